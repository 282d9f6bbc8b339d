//! Clients that prove who they are by tokens (SASL OAUTHBEARER), against a broker that takes unsigned ones.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kaspr_tests::clock::{pause, since_1970};
use kaspr_tests::kafka::{Broker, Record, unique};
use kaspr_tests::pod::{ECHO, Pod};
use kaspr_tests::program::stderr;

/// A secret key of AWS.
const CANARY: &str = "wJalrXUtnFEMI/K7MDENG";

/// A pod of the echo with tokens, which knows nobody's password, and its topics.
fn echo(broker: &Broker) -> (Pod, String, String) {
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let pod = Pod::new(&unique("echo")).with("K_KAFKA_BOOTSTRAP_SERVERS", &broker.with_passwords());
    let pod = pod.defined("agents.yaml", &ECHO.replace("INPUT", &input).replace("OUTPUT", &output));
    let pod = pod.with("K_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT").with("K_KAFKA_SASL_MECHANISM", "OAUTHBEARER");
    (pod, input, output)
}

#[test]
fn every_client_has_a_token_and_gets_the_next_one() {
    // Connections that do not bring a new token in time are closed.
    let broker = Broker::start_with_short_sessions();
    let (pod, input, output) = echo(&broker);
    let table = "tables:\n- name: seen\n";
    let spec = ECHO.replace("INPUT", &input).replace("OUTPUT", &output);
    let spec = spec.replace("def pass_on(value)", "def pass_on(value, seen)");
    let spec =
        spec.replace("    - name: pass_on\n", "    - name: pass_on\n      tables: [{name: seen, param_name: seen}]\n");
    pod.define("agents.yaml", &(spec + table));
    let pod = pod
        .with("KASPR_KAFKA_ENABLE_SASL_OAUTHBEARER_UNSECURE_JWT", "true")
        .with("KASPR_KAFKA_SASL_OAUTHBEARER_CONFIG", "principal=shop lifeSeconds=40")
        .with("K_CONSUMER_GROUP_INSTANCE_ID", "echo-0")
        .with("LOG_LEVEL", "debug");
    let mut process = pod.start();
    for number in 1..=2 {
        broker.produce(&input, [Record::new("k", number.to_string())]);
        process.wait_until("its record", || broker.count(&output) == number);
        if number == 1 {
            // Longer than a token lives. A client asks for the next one when a fifth of its life is left, and is heard
            // at the worker's next turn: after five seconds at most, where nothing happens.
            pause(Duration::from_secs(45));
        }
    }
    let words = process.words();
    let is_loud = |line: &&str| !line.contains(" DEBUG ");
    let mut loud = words.lines().filter(is_loud);
    assert!(!loud.any(|line| line.contains("authentication") || line.contains("waiting for a broker")), "{words}");
    // The search for partitions without an owner looks around for a minute, with a client of its own.
    assert!(!words.contains("without an owner are not"), "{words}");
    assert_eq!(process.terminate(), Some(0), "{}", process.words());
}

#[test]
fn credentials_of_aws_make_a_token_that_shows_nothing_of_them() {
    let broker = Broker::start_with_users();
    let refused = |variables: &[(&str, &str)]| {
        let (pod, ..) = echo(&broker);
        let pod = pod.with("KASPR_KAFKA_SASL_OAUTHBEARER_METHOD", "aws_msk_iam");
        let pod = variables.iter().fold(pod, |pod, (name, value)| pod.with(name, value));
        let ended = pod.ends(&["--until-caught-up"]);
        let words = stderr(&ended);
        assert!(!words.contains(CANARY) && !pod.last_words().contains(CANARY), "{words}");
        (ended.status.code(), words)
    };
    let region = ("AWS_REGION", "eu-west-1");
    let (code, words) = refused(&[region, ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token")]);
    let told = "AWS_ACCESS_KEY_ID is not set (AWS_WEB_IDENTITY_TOKEN_FILE is set, and is not read)";
    assert!(code == Some(2) && words.contains(told), "{words}");
    // This broker takes no such token, and says so.
    let (code, words) = refused(&[region, ("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", CANARY)]);
    let last = words.lines().last().unwrap_or_default();
    assert!(code == Some(1) && last.contains("authentication failed"), "{words}");
    assert!(last.contains("look at the credentials of AWS"), "{words}");
}

#[test]
fn a_source_of_tokens_must_be_named() {
    let broker = Broker::start_with_users();
    let (pod, ..) = echo(&broker);
    let ended = pod.ends(&[]);
    let words = stderr(&ended);
    assert_eq!(ended.status.code(), Some(2), "{words}");
    assert!(words.contains("set sasl.oauthbearer.method to oidc or aws_msk_iam"), "{words}");
}

/// A token endpoint on a port of its own: it gives every client that knows the secret an unsigned token.
struct Endpoint(u16);

impl Endpoint {
    fn start() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = answer(stream);
            }
        });
        Endpoint(port)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.0)
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut length, mut knows) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "authorization" => {
                let given = value.strip_prefix("Basic ").and_then(|given| STANDARD.decode(given).ok());
                knows = given == Some(format!("shop:{CANARY}").into_bytes());
            }
            _ => {}
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let now = since_1970() / 1000;
    let parts =
        [serde_json::json!({ "alg": "none" }), serde_json::json!({ "sub": "shop", "iat": now, "exp": now + 60 })];
    let [head, claims] = parts.map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let (status, body) = match knows {
        true => ("200 OK", serde_json::json!({ "access_token": format!("{head}.{claims}."), "token_type": "bearer" })),
        false => ("401 Unauthorized", serde_json::json!({ "error": "invalid_client" })),
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn an_endpoint_gives_tokens_where_that_is_built_in() {
    let (broker, endpoint) = (Broker::start_with_users(), Endpoint::start());
    let run = |secret: &str| {
        let (pod, input, output) = echo(&broker);
        broker.produce(&input, [Record::new("k", "1")]);
        let pod = pod
            .with("KASPR_KAFKA_SASL_OAUTHBEARER_METHOD", "oidc")
            .with("KASPR_KAFKA_SASL_OAUTHBEARER_CLIENT_ID", "shop")
            .with("KASPR_KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET", secret)
            .with("KASPR_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", &endpoint.url());
        let ended = pod.ends(&["--until-caught-up"]);
        let words = stderr(&ended);
        assert!(!words.contains(secret) && !pod.last_words().contains(secret), "{words}");
        (ended.status.code(), broker.count(&output), words)
    };
    let (code, count, words) = run(CANARY);
    if words.contains("which this build leaves out: build with --features oidc") {
        assert_eq!((code, count), (Some(2), 0), "{words}");
        return;
    }
    assert_eq!((code, count), (Some(0), 1), "{words}");
    #[allow(clippy::print_stdout, reason = "for those who ask with --nocapture which of the two builds was tried")]
    {
        println!("tokens came from {}", endpoint.url());
    }
    let (code, count, words) = run("guessed");
    assert_eq!((code, count), (Some(1), 0), "{words}");
    let last = words.lines().last().unwrap_or_default();
    assert!(last.contains("authentication failed") && last.contains("sasl.oauthbearer."), "{words}");
}
