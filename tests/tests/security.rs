//! Brokers that speak TLS: connections that come about, and reasons why others do not.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use kaspr_tests::clock::{now, pause};
use kaspr_tests::kafka::{Broker, Record, free_port, unique};
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
