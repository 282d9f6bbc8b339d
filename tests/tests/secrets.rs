//! A canary in every place where a secret can be given is searched in everything that can be seen.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use kaspr_tests::clock::{now, pause};
use kaspr_tests::http::get;
use kaspr_tests::kafka::{Broker, Record, children, free_port, unique};
use kaspr_tests::process::terminate;
use kaspr_tests::program::{command, stderr, stdout};

/// The password of bob, a user of the test's broker: every secret here is this.
const CANARY: &str = "bobs-secret";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// An address at which no broker listens.
const NOWHERE: &str = "127.0.0.1:1";

/// An agent that sends everything that it can see of its own process and of the one that started it.
const SPY: &str = r#"
import os, subprocess, sys

def read(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode("latin-1")
    except OSError as error:
        return str(error)

def look(value):
    seen = {f"{who} {what}": read(f"/proc/{who}/{what}") for who in ("self", os.getppid()) for what in ("cmdline", "environ")}
    seen["started"] = subprocess.run(["env"], capture_output=True).stdout.decode()
    seen["stdin"] = os.read(0, 1000).decode() if value == "stdin too" else ""
    return {**seen, "environ": dict(os.environ), "argv": sys.argv + sys.orig_argv, "conf": repr(context["app"].conf)}
"#;

/// A folder with the spy's spec and files of secrets.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(input: &str, output: &str) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        let python: String = SPY.lines().map(|line| format!("            {line}\n")).collect();
        let spec = format!(
            "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: spy}}\nspec:\n  input: {{topic: {{name: {input}}}}}\n  \
             output: {{topics: [{{name: {output}}}]}}\n  processors:\n    pipeline: [look]\n    operations:\n      - name: look\n        \
             map:\n          entrypoint: look\n          python: |\n{python}"
        );
        folder.write("agent.yaml", spec.as_bytes());
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.0.path().join(name), bytes).expect("it can be written");
        self.path(name)
    }
}

/// The ways to give a secret.
#[derive(Clone, Copy, Debug)]
enum Way {
    Flag,
    Variable,
    OperatorVariable,
    FileVariable,
    /// The operator's own name of the password; for other settings as `OperatorVariable`.
    AuthVariable,
    /// The same without the underscore that the operator may leave out.
    JoinedVariable,
    AuthFile,
}

const WAYS: [Way; 7] = [
    Way::Flag,
    Way::Variable,
    Way::OperatorVariable,
    Way::FileVariable,
    Way::AuthVariable,
    Way::JoinedVariable,
    Way::AuthFile,
];

impl Way {
    /// Gives a setting the canary as its value.
    fn give(self, command: &mut Command, setting: &str, folder: &Folder) {
        let variable = setting.to_ascii_uppercase().replace('.', "_");
        let is_password = setting == "sasl.password";
        match self {
            Way::AuthVariable if is_password => command.env("K_KAFKA_AUTH_PASSWORD", CANARY),
            Way::JoinedVariable if is_password => command.env("K_KAFKAAUTHPASSWORD", CANARY),
            Way::AuthFile if is_password => {
                let file = folder.write("auth", CANARY.as_bytes());
                command.env("KASPR_KAFKA_AUTH_PASSWORD_FILE", file)
            }
            Way::Flag => command.args(["--kafka", &format!("{setting}={CANARY}")]),
            Way::Variable => command.env(format!("KASPR_KAFKA_{variable}"), CANARY),
            Way::OperatorVariable | Way::AuthVariable | Way::JoinedVariable | Way::AuthFile => {
                command.env(format!("K_KAFKA_{variable}"), CANARY)
            }
            Way::FileVariable => {
                let file = folder.write(setting, format!("{CANARY}\n").as_bytes());
                command.env(format!("KASPR_KAFKA_{variable}_FILE"), file)
            }
        };
    }
}

#[track_caller]
fn assert_unseen(what: &str, text: &str) {
    assert!(!text.contains(CANARY), "{what} shows the secret:\n{text}");
}

/// Runs to the end; asserts that the output is free of the canary.
#[track_caller]
fn to_end(what: &str, command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    assert_unseen(what, &stdout(&output));
    assert_unseen(what, &stderr(&output));
    output
}

#[track_caller]
fn assert_refused(what: &str, command: &mut Command, told: &str) {
    let output = to_end(what, command);
    let words = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{what}: {words}");
    assert!(words.contains(told), "{what} is not told with \"{told}\": {words}");
}

fn on_kafka(folder: &Folder, servers: &str) -> Command {
    let mut command = command("kaspr-exec", &["run", &folder.path("agent.yaml")]);
    command.args(["--bootstrap-servers", servers, "--app", "spy"]);
    command
}

#[test]
fn a_setting_that_is_refused_shows_its_name_alone() {
    let folder = Folder::new("in", "out");
    let refused = [
        ("sasl.pasword", "\"sasl.pasword\" is refused: librdkafka has no setting of this name"),
        ("linger.ms", "\"linger.ms\" is refused: its value is not accepted"),
        ("security.protocol", "\"security.protocol\" is refused: its value is not accepted"),
        ("debug", "\"debug\" is refused: its value is not accepted"),
        ("acks", "\"acks\" is fixed"),
        ("sasl.jaas.config", "\"sasl.jaas.config\" is refused"),
    ];
    for (setting, told) in refused {
        for way in WAYS {
            let mut command = on_kafka(&folder, NOWHERE);
            way.give(&mut command, setting, &folder);
            assert_refused(&format!("{setting} by {way:?}"), &mut command, told);
        }
    }
}

#[test]
fn a_slip_on_the_command_line_shows_no_value() {
    let folder = Folder::new("in", "out");
    let typed = [
        (vec!["--kafka", CANARY], "--kafka needs KEY=VALUE"),
        (vec!["--kafka=bobs-secret"], "--kafka needs KEY=VALUE"),
        // Base64 may end with "=".
        (vec!["--kafka", "bobs-secret=="], "--kafka needs KEY=VALUE"),
        (vec!["--kafka", "linger.ms=5", "sasl.password=bobs-secret"], "\"sasl.password=…\" is no file"),
        (vec!["--kafak", "sasl.password=bobs-secret"], "--kafak"),
        (vec!["--kafak=sasl.password=bobs-secret"], "--kafak"),
        (vec!["--sasl.password=bobs-secret"], "--sasl.password"),
    ];
    for (flags, told) in &typed {
        for local in [&["--local", "--input", "in=-"][..], &["--bootstrap-servers", NOWHERE, "--app", "spy"]] {
            let mut command = command("kaspr-exec", &["run", &folder.path("agent.yaml")]);
            assert_refused(&format!("{flags:?}"), command.args(local).args(flags), told);
        }
    }
}

#[test]
fn a_file_that_does_not_do_is_named_without_what_it_holds() {
    let folder = Folder::new("in", "out");
    let files = [
        (folder.path("missing"), "cannot read"),
        (folder.write("empty", b"\n"), "it is empty"),
        (folder.write("binary", &[CANARY.as_bytes(), &[0xFF]].concat()), "it is not UTF-8"),
        (folder.write("large", CANARY.repeat(30_000).as_bytes()), "it is larger than"),
    ];
    for (file, told) in &files {
        let mut command = on_kafka(&folder, NOWHERE);
        command.env("KASPR_KAFKA_SASL_PASSWORD_FILE", file);
        assert_refused(file, &mut command, told);
        assert_refused(file, &mut command, &format!("KASPR_KAFKA_SASL_PASSWORD_FILE: cannot read \"{file}\""));
    }
    let mut command = on_kafka(&folder, NOWHERE);
    Way::Variable.give(&mut command, "sasl.password", &folder);
    Way::FileVariable.give(&mut command, "sasl.password", &folder);
    let both = "KASPR_KAFKA_SASL_PASSWORD and KASPR_KAFKA_SASL_PASSWORD_FILE set the same";
    assert_refused("both", &mut command, both);
}

#[test]
fn every_command_keeps_it() {
    let folder = Folder::new("in", "out");
    let (spec, plan) = (folder.path("agent.yaml"), folder.path("plan.json"));
    let commands: [&[&str]; 12] = [
        &["kaspr-exec", "--help"],
        &["kaspr-exec", "--version"],
        &["kaspr-exec", "run", "--help"],
        &["kaspr-exec", "check", "--help"],
        &["kaspr-exec", "test", "--help"],
        &["kaspr-exec", "test", "specs/tested"],
        &["kaspr-exec", "run", &spec],
        &["kaspr-exec", "check", &spec, "--bootstrap-servers", NOWHERE, "--app", "spy", "--log-level", "trace"],
        &["kasprc", "check", &spec],
        &["kasprc", "compile", &spec, "-o", &plan],
        &["kasprc", "compile", &spec, "--emit", "json"],
        &["kasprc", "--help"],
    ];
    std::thread::scope(|scope| {
        for (way, arguments) in WAYS.iter().flat_map(|way| commands.map(|arguments| (*way, arguments))) {
            let folder = &folder;
            scope.spawn(move || {
                let mut command = command(arguments[0], &arguments[1..]);
                let knows_the_flag = arguments[0] == "kaspr-exec" && ["run", "check"].contains(&arguments[1]);
                if knows_the_flag || !matches!(way, Way::Flag) {
                    way.give(&mut command, "sasl.password", folder);
                    way.give(&mut command, "ssl.key.password", folder);
                }
                to_end(&format!("{arguments:?} by {way:?}"), &mut command);
            });
        }
    });
    assert_unseen("the plan", &std::fs::read_to_string(plan).expect("it was written"));
}

#[test]
fn user_code_sees_no_secret() {
    let folder = Folder::new("in", "out");
    let input = folder.write("in.jsonl", b"1\n");
    for way in WAYS {
        let mut command = command("kaspr-exec", &["run", &folder.path("agent.yaml"), "--local", "--quiet"]);
        command.args(["--input", &format!("in={input}"), "--kafka", "linger.ms=7"]);
        // A misspelt name, and one that only an operator knows, are hidden too.
        for setting in ["sasl.password", "ssl.key.pem", "sasl.pasword", "auth.password"] {
            way.give(&mut command, setting, &folder);
        }
        command.env("KASPR_KAFKA_SASL_USERNAME", "bob-the-user").env("DATABASE_PASSWORD", "not-ours");
        let output = to_end(&format!("{way:?}"), &mut command);
        let seen = stdout(&output);
        assert!(output.status.success() && seen.contains("bob-the-user"), "{}", stderr(&output));
        assert!(seen.contains("not-ours") && seen.contains("linger.ms=7"), "what is no secret of ours stays: {seen}");
    }
}

/// A supervisor with two workers that write what they see.
struct Spied {
    supervisor: Child,
    log: PathBuf,
}

impl Spied {
    fn start(broker: &Broker, way: Way, folder: &Folder) -> Spied {
        let log = Path::new(&folder.path("log")).to_owned();
        let mut command = command("kaspr-exec", &["run", &folder.path("agent.yaml"), "--workers", "2"]);
        command.args([
            "--bootstrap-servers",
            &broker.with_passwords(),
            "--app",
            &unique("spy"),
            "--log-level",
            "debug",
        ]);
        // A member that starts again under its name is given its partitions at once.
        command.args(["--instance", "one"]);
        for flag in ["security.protocol=sasl_plaintext", "sasl.mechanisms=PLAIN", "sasl.username=bob"] {
            command.args(["--kafka", flag]);
        }
        way.give(&mut command, "sasl.password", folder);
        let stderr = File::create(&log).expect("a log");
        let supervisor = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        Spied { supervisor: supervisor.expect("it starts"), log }
    }

    fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = now();
        while !is_so() {
            assert!(now() - began < PATIENCE, "waited for {what}:\n{}", self.words());
            pause(Duration::from_millis(50));
        }
    }

    /// Looks at the processes from outside, as every process of this user can.
    #[track_caller]
    fn look(&self) {
        let workers = children(self.supervisor.id());
        assert_eq!(workers.len(), 2, "{}", self.words());
        for process in workers.into_iter().chain(i32::try_from(self.supervisor.id())) {
            for what in ["cmdline", "environ", "comm", "stat"] {
                let bytes = std::fs::read(format!("/proc/{process}/{what}")).expect("it runs");
                assert_unseen(what, &String::from_utf8_lossy(&bytes));
            }
            // No memory goes into core files.
            let filter = std::fs::read_to_string(format!("/proc/{process}/coredump_filter")).expect("it runs");
            assert_eq!(u32::from_str_radix(filter.trim(), 16), Ok(0));
        }
    }
}

impl Drop for Spied {
    fn drop(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

/// The workers get the password, also when they start again, and no other process sees it on its way.
#[test]
fn a_supervisor_hands_secrets_over_unseen() {
    let broker = Broker::start();
    for way in WAYS {
        let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
        let folder = Folder::new(&input, &output);
        let mut spied = Spied::start(&broker, way, &folder);
        broker.produce(&input, (0..20).map(|n| Record::new(n.to_string(), n.to_string())));
        spied.wait_until("20 records", || broker.count(&output) == 20);
        spied.look();
        let killed = children(spied.supervisor.id())[0];
        // SAFETY: the supervisor has not waited for its worker yet, or it is still running.
        unsafe { libc::kill(killed, libc::SIGKILL) };
        let again = || children(spied.supervisor.id()).iter().filter(|worker| **worker != killed).count() == 2;
        spied.wait_until("the worker to start again", again);
        broker.produce(&input, [Record::new("1", "\"stdin too\""), Record::new("2", "\"stdin too\"")]);
        spied.wait_until("22 records", || broker.count(&output) == 22);
        // SAFETY: the supervisor runs, so the number is its own.
        unsafe { libc::kill(i32::try_from(spied.supervisor.id()).expect("a process"), libc::SIGUSR1) };
        spied.wait_until("two statuses", || spied.words().matches("\"partitions\"").count() >= 2);
        spied.look();
        terminate(spied.supervisor.id());
        assert_eq!(spied.supervisor.wait().expect("it ends").code(), Some(0), "{}", spied.words());
        assert_unseen("the log", &spied.words());
        let warned = spied.words().contains("\"sasl.password\" stood on the command line");
        assert_eq!(warned, matches!(way, Way::Flag), "{way:?}: {}", spied.words());
        for record in broker.read(&output) {
            assert_unseen(&format!("what user code sees, given by {way:?}"), &record.text());
        }
    }
}

/// Pages of the HTTP server are seen by whoever reaches the port.
#[test]
fn no_page_shows_it() {
    let broker = Broker::start();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let folder = Folder::new(&input, &output);
    let port = free_port();
    let log = Path::new(&folder.path("log")).to_owned();
    let mut command = on_kafka(&folder, &broker.with_passwords());
    command.args(["--log-level", "trace"]).env("K_WEB_PORT", port.to_string());
    for flag in ["security.protocol=sasl_plaintext", "sasl.mechanisms=PLAIN", "sasl.username=bob"] {
        command.args(["--kafka", flag]);
    }
    Way::OperatorVariable.give(&mut command, "sasl.password", &folder);
    let stderr = File::create(&log).expect("a log");
    let supervisor = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("it starts");
    let spied = Spied { supervisor, log };
    let pages = [
        "/",
        "/status/",
        "/health/live",
        "/health/ready",
        "/kaspr/status",
        "/kaspr/plan",
        "/kaspr/plan?format=text",
        "/kaspr/plan?format=dot",
        "/metrics",
        "/nowhere",
    ];
    let look = || {
        for page in pages {
            if let Ok(answer) = get(port, page) {
                assert_unseen(page, &format!("{answer:?}"));
            }
        }
    };
    spied.wait_until("a page", || get(port, "/").is_ok());
    look();
    spied.wait_until("the worker to be ready", || get(port, "/health/ready").is_ok_and(|page| page.status == 200));
    broker.produce(&input, [Record::new("1", "1")]);
    spied.wait_until("a record", || broker.count(&output) == 1);
    look();
    assert_unseen("the log", &spied.words());
}
