//! Brokers that speak TLS: connections that come about, and reasons why others do not.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use kaspr_tests::clock::{now, pause};
use kaspr_tests::kafka::{Broker, Record, free_port, unique};
use kaspr_tests::pod::{ECHO, Pod};
use kaspr_tests::program::{command, stderr};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
const BOB: [&str; 3] = ["sasl.mechanisms=PLAIN", "sasl.username=bob", "sasl.password=bobs-secret"];

/// Runs an agent from `in` to `out` to the end of its input.
fn run(servers: &str, topics: [&str; 2], settings: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: echo}}\nspec:\n  input: {{topic: {{name: {}}}}}\n  \
         output: {{topics: [{{name: {}}}]}}\n  processors:\n    pipeline: [pass]\n    operations:\n      - name: pass\n        \
         map: {{python: \"def pass_on(value): return value\"}}\n",
        topics[0], topics[1]
    );
    let path = folder.path().join("agent.yaml");
    std::fs::write(&path, spec).expect("written");
    let mut command = command("kaspr-exec", &["run", &path.display().to_string(), "--until-caught-up", "--quiet"]);
    command.args(["--bootstrap-servers", servers, "--app", &unique("echo")]);
    settings.iter().for_each(|setting| {
        command.args(["--kafka", setting]);
    });
    command.output().expect("it runs")
}

/// `openssl s_server` with a certificate that has expired: no broker is needed to refuse it.
struct Expired(Child, String);

impl Expired {
    fn start(broker: &Broker) -> Expired {
        let port = free_port();
        let file = |name: &str| broker.file(name).display().to_string();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
        command.args(["-cert", &file("expired.crt"), "-key", &file("broker.key")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Expired(command.spawn().expect("openssl is installed"), format!("127.0.0.1:{port}"));
        let began = now();
        while std::net::TcpStream::connect(&server.1).is_err() {
            assert!(now() - began < PATIENCE, "openssl does not listen at {}", server.1);
            pause(Duration::from_millis(50));
        }
        server
    }
}

impl Drop for Expired {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn agents_run_over_tls_and_are_told_why_they_cannot() {
    let broker = Broker::start_with_tls();
    let authority = format!("ssl.ca.location={}", broker.file("ca.pem").display());
    for (protocol, servers) in [("ssl", broker.with_tls()), ("sasl_ssl", broker.with_tls_and_passwords())] {
        let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
        broker.produce(&input, [Record::new("k", "1")]);
        let security = format!("security.protocol={protocol}");
        let settings = [&[&*security, &authority], &BOB[..]].concat();
        let ended = run(&servers, [&input, &output], &settings);
        assert_eq!((ended.status.code(), broker.count(&output)), (Some(0), 1), "{protocol}: {}", stderr(&ended));
    }
    let elsewhere = broker.with_tls().replace("127.0.0.1", "localhost");
    let expired = Expired::start(&broker);
    let faults: [(&str, &str, &str, &str); 11] = [
        (&broker.with_tls(), "ssl", "", "its certificate comes from an authority that is not known here"),
        (&broker.with_tls_and_passwords(), "sasl_ssl", "", "its certificate comes from an authority that is not known"),
        (&expired.1, "ssl", &authority, "its certificate has expired"),
        (&elsewhere, "ssl", &authority, "its certificate is not for \"localhost\""),
        (&broker.with_tls(), "plaintext", "", "speaks TLS, and security.protocol is plaintext"),
        (&broker.with_tls_and_passwords(), "sasl_plaintext", "", "speaks TLS, and security.protocol is sasl_plaintext"),
        (&broker.servers, "ssl", &authority, "speaks no TLS, and security.protocol is ssl"),
        (&broker.with_passwords(), "sasl_ssl", &authority, "speaks no TLS, and security.protocol is sasl_ssl"),
        (
            &broker.with_passwords(),
            "plaintext",
            "",
            "ask for a user (mechanisms PLAIN), and security.protocol is plaintext",
        ),
        (
            &broker.with_tls_and_passwords(),
            "ssl",
            &authority,
            "ask for a user (mechanisms PLAIN), and security.protocol is",
        ),
        (&broker.servers, "sasl_plaintext", "", "ask for no user, and security.protocol is sasl_plaintext"),
    ];
    for (servers, protocol, authority, told) in faults {
        let began = now();
        let protocol = format!("security.protocol={protocol}");
        let trusted: &[&str] = if authority.is_empty() { &[] } else { &[authority] };
        let settings = [&[&*protocol], &BOB[..], trusted].concat();
        let ended = run(servers, ["in", "out"], &settings);
        let words = stderr(&ended);
        assert_eq!(ended.status.code(), Some(1), "{words}");
        let line = words.lines().last().unwrap_or_default();
        assert!(line.contains(told) && line.contains(servers), "{servers} with {protocol}: {words}");
        #[allow(clippy::print_stdout, reason = "a figure for those who ask with --nocapture")]
        {
            println!("{:.1} s: {line}", (now() - began).as_secs_f64());
        }
    }
}

#[test]
fn users_are_told_why_they_are_not_let_in() {
    let broker = Broker::start();
    let servers = broker.with_passwords();
    let faults: [(&[&str], &str); 5] = [
        (
            &["sasl.mechanisms=PLAIN", "sasl.username=bob", "sasl.password=guessed"],
            "look at sasl.username and sasl.password",
        ),
        (
            &["sasl.mechanisms=PLAIN", "sasl.username=eve", "sasl.password=guessed"],
            "look at sasl.username and sasl.password",
        ),
        (
            &["sasl.mechanisms=SCRAM-SHA-256", "sasl.username=bob", "sasl.password=bobs-secret"],
            "let users in by the mechanisms PLAIN, and sasl.mechanisms is SCRAM-SHA-256: connect with --kafka sasl.mechanisms=PLAIN",
        ),
        (&["sasl.username=bob", "sasl.password=guessed"], "(mechanism PLAIN)"),
        (&["sasl.mechanisms=PLAIN", "sasl.username=bob"], "sasl.password is not set"),
    ];
    for (settings, told) in faults {
        let ended = run(&servers, ["in", "out"], &[&["security.protocol=sasl_plaintext"], settings].concat());
        let words = stderr(&ended);
        let line = words.lines().last().unwrap_or_default();
        assert!(matches!(ended.status.code(), Some(1 | 2)) && line.contains(told), "{settings:?}: {words}");
        assert!(!words.contains("guessed") && !line.contains("bobs-secret"), "{words}");
    }
}

/// The way in which a pod learns of the authority of the brokers' certificates.
#[derive(Clone, Copy, Debug)]
enum Authority {
    None,
    File,
    Folder,
    Text,
}

/// A way into a broker: `SASL_SSL`, the mechanism if there is one, and how the authority is told.
type Way = (&'static str, &'static str, Authority);

/// Runs an agent to the end of its input, told everything by the operator's variables. Returns the status, what was
/// said, and whether the event has come through.
fn pod(broker: &Broker, servers: &str, (protocol, mechanism, authority): Way, trusted: &Path, password: &str) -> Ended {
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    broker.produce(&input, [Record::new("k", "1")]);
    let pod = Pod::new(&unique("echo")).with("K_KAFKA_BOOTSTRAP_SERVERS", servers);
    let pod = pod.defined("agents.yaml", &ECHO.replace("INPUT", &input).replace("OUTPUT", &output));
    let pod = pod.with("K_KAFKA_SECURITY_PROTOCOL", protocol);
    let mut pod = pod.with("K_KAFKA_AUTH_USERNAME", "bob").with("K_KAFKA_AUTH_PASSWORD", password);
    if !mechanism.is_empty() {
        pod = pod.with("K_KAFKA_SASL_MECHANISM", mechanism);
    }
    pod = match authority {
        Authority::None => pod,
        Authority::File => pod.with("K_KAFKA_AUTH_CAFILE", &trusted.display().to_string()),
        Authority::Text => pod.with("K_KAFKA_AUTH_CADATA", &std::fs::read_to_string(trusted).expect("it is there")),
        Authority::Folder => {
            let folder = pod.authorities(trusted);
            pod.with("K_KAFKA_AUTH_CAPATH", &folder)
        }
    };
    let began = now();
    let ended = pod.ends(&["--until-caught-up"]);
    let words = stderr(&ended);
    assert!(!words.contains(password), "{words}");
    #[allow(
        clippy::print_stdout,
        reason = "a figure for those who ask with --nocapture: a refusal takes less than 5 s"
    )]
    {
        let last = words.lines().last().unwrap_or_default();
        println!("{:.1} s: {protocol} {mechanism} {authority:?}: {last}", (now() - began).as_secs_f64());
    }
    Ended { status: ended.status.code(), has_run: broker.count(&output) == 1, last_words: pod.last_words(), words }
}

/// The end of a pod.
struct Ended {
    status: Option<i32>,
    has_run: bool,
    last_words: String,
    words: String,
}

#[test]
fn every_way_in_is_taken_by_the_operators_variables() {
    use Authority::{File, Folder, None, Text};
    let broker = Broker::start_with_users();
    let ways: [(String, Way); 8] = [
        (broker.with_passwords(), ("SASL_PLAINTEXT", "PLAIN", None)),
        (broker.with_passwords(), ("SASL_PLAINTEXT", "SCRAM-SHA-256", None)),
        (broker.with_passwords(), ("SASL_PLAINTEXT", "SCRAM-SHA-512", None)),
        (broker.with_tls(), ("SSL", "", Folder)),
        (broker.with_tls(), ("SSL", "", Text)),
        (broker.with_tls_and_passwords(), ("SASL_SSL", "PLAIN", File)),
        (broker.with_tls_and_passwords(), ("SASL_SSL", "SCRAM-SHA-256", Folder)),
        (broker.with_tls_and_passwords(), ("SASL_SSL", "SCRAM-SHA-512", Text)),
    ];
    for (servers, way) in ways {
        let ended = pod(&broker, &servers, way, &broker.file("ca.pem"), "bobs-secret");
        assert_eq!((ended.status, ended.has_run), (Some(0), true), "{way:?}: {}", ended.words);
    }
}

/// The certificate of an authority that has signed nothing.
fn stranger(folder: &Path) -> PathBuf {
    let file = folder.join("stranger.pem");
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=stranger", "-keyout"]).arg(folder.join("stranger.key")).arg("-out").arg(&file);
    assert!(command.output().expect("openssl is installed").status.success());
    file
}

#[test]
fn every_way_in_that_is_refused_is_explained_in_one_line() {
    use Authority::{File, Folder, None, Text};
    let broker = Broker::start_with_users();
    let folder = tempfile::tempdir().expect("a folder");
    let (known, strange) = (broker.file("ca.pem"), stranger(folder.path()));
    let [tls, users] = [broker.with_tls(), broker.with_tls_and_passwords()];
    let elsewhere = |servers: &str| servers.replace("127.0.0.1", "localhost");
    let (unknown, other_host) = ("comes from an authority that is not known here", "is not for \"localhost\"");
    let password = "look at sasl.username and sasl.password";
    let faults: [(&str, Way, &Path, &str, &str); 14] = [
        (&broker.with_passwords(), ("SASL_PLAINTEXT", "PLAIN", None), &known, "guessed", password),
        (&broker.with_passwords(), ("SASL_PLAINTEXT", "SCRAM-SHA-256", None), &known, "guessed", password),
        (&broker.with_passwords(), ("SASL_PLAINTEXT", "SCRAM-SHA-512", None), &known, "guessed", password),
        (&users, ("SASL_SSL", "PLAIN", File), &known, "guessed", password),
        (&users, ("SASL_SSL", "SCRAM-SHA-256", Folder), &known, "guessed", password),
        (&users, ("SASL_SSL", "SCRAM-SHA-512", Text), &known, "guessed", password),
        (&tls, ("SSL", "", None), &known, "bobs-secret", unknown),
        (&tls, ("SSL", "", File), &strange, "bobs-secret", unknown),
        (&tls, ("SSL", "", Folder), &strange, "bobs-secret", unknown),
        (&tls, ("SSL", "", Text), &strange, "bobs-secret", unknown),
        (&users, ("SASL_SSL", "PLAIN", None), &known, "bobs-secret", unknown),
        (&users, ("SASL_SSL", "SCRAM-SHA-512", File), &strange, "bobs-secret", unknown),
        (&elsewhere(&tls), ("SSL", "", File), &known, "bobs-secret", other_host),
        (&elsewhere(&users), ("SASL_SSL", "SCRAM-SHA-256", Text), &known, "bobs-secret", other_host),
    ];
    for (servers, way, trusted, password, told) in faults {
        let ended = pod(&broker, servers, way, trusted, password);
        let last = ended.words.lines().last().unwrap_or_default();
        assert_eq!((ended.status, ended.has_run), (Some(1), false), "{way:?}: {}", ended.words);
        assert!(last.contains(told) && last.contains(servers), "{way:?}: {}", ended.words);
        assert!(ended.last_words.contains(told), "{way:?}: {}", ended.last_words);
        assert!(!ended.words.contains(password) && !ended.last_words.contains(password), "{way:?}: {}", ended.words);
    }
}
