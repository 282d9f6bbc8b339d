//! An app with a table `counts` in a folder of its own, whose workers are processes on a Kafka.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::kafka::{Broker, unique};
use crate::program::command;

/// A spec whose agent `shop` passes events of a topic on, with its table at hand. `outputs` are the entries of its
/// list of topics, each on a line; `init` is the text of its init block.
pub fn shop(input: &str, outputs: &[String], init: &str) -> String {
    let lines = |text: &str, indent: &str| text.lines().map(|line| format!("{indent}{line}\n")).collect::<String>();
    format!(
        r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprTable
metadata: {{name: counts}}
---
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {{name: shop}}
spec:
  input: {{topic: {{name: {input}}}}}
  output:
    topics:
{}  processors:
    init:
      python: |
{}    pipeline: [step]
    operations:
      - name: step
        tables: [{{name: counts, paramName: counts}}]
        map: {{python: "def step(value, counts): return value"}}
"#,
        lines(&outputs.join("\n"), "      - "),
        lines(init, "        ")
    )
}

/// An app in a folder of its own.
pub struct App {
    /// Holds its specs, logs and state.
    pub folder: tempfile::TempDir,
    /// Its name, which is its group's.
    pub name: String,
    /// The brokers that it connects to.
    pub servers: String,
    flags: Vec<String>,
}

impl App {
    /// An app of these specs, under a name of its own.
    pub fn new(broker: &Broker, specs: &str) -> App {
        App::at(&broker.servers, specs)
    }

    /// The same on brokers that a test does not hold.
    pub fn at(servers: &str, specs: &str) -> App {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("agents.yaml"), specs).expect("written");
        App { folder, name: unique("app"), servers: servers.to_owned(), flags: Vec::new() }
    }

    /// Adds flags with which workers are started.
    pub fn with(mut self, flags: &[&str]) -> App {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// The folder that outlives its workers, with [`App::on_disk`].
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Keeps its state on disk.
    pub fn on_disk(self) -> App {
        let state = self.state().display().to_string();
        self.with(&["--state-dir", &state])
    }

    /// The changelog of its table `counts`.
    pub fn changelog(&self) -> String {
        format!("{}-counts-changelog", self.name)
    }

    /// The command of a worker.
    pub fn command(&self, flags: &[&str]) -> Command {
        let mut command = command("kaspr-exec", &["run"]);
        command.arg(self.folder.path().join("agents.yaml"));
        command.args(["--bootstrap-servers", &self.servers, "--app", &self.name]).args(&self.flags).args(flags);
        command
    }

    /// Starts a worker that writes to a log of this number.
    pub fn start(&self, number: usize, flags: &[&str]) -> Child {
        let log = std::fs::File::create(self.log(number)).expect("a log");
        let mut command = self.command(flags);
        command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
    }

    /// Starts a worker that dies at a step of a commit: not of the first, which only says where it starts.
    pub fn start_at(&self, number: usize, step: &str) -> Child {
        let log = std::fs::File::create(self.log(number)).expect("a log");
        let mut command = self.command(&["--until-caught-up"]);
        command.env("KASPR_FAILPOINT", format!("{step}:2"));
        command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
    }

    /// The log of the worker with this number.
    pub fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("log-{number}"))
    }

    /// All that the worker with this number has logged.
    pub fn words(&self, number: usize) -> String {
        std::fs::read_to_string(self.log(number)).unwrap_or_default()
    }

    /// Runs a worker to the end of the input; gives its log.
    #[track_caller]
    pub fn catch_up(&self) -> String {
        let status = self.start(0, &["--until-caught-up"]).wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.words(0));
        self.words(0)
    }

    /// Runs a worker that must refuse to start; gives its log.
    #[track_caller]
    pub fn refused(&self) -> String {
        let status = self.start(0, &["--until-caught-up"]).wait().expect("it ends");
        assert_eq!(status.code(), Some(1), "{}", self.words(0));
        self.words(0)
    }
}

impl Drop for App {
    /// Shows what the workers logged when a test fails.
    #[allow(clippy::print_stderr, reason = "only when a test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            (0..2).for_each(|number| eprintln!("-- {} {number}:\n{}", self.name, self.words(number)));
        }
    }
}
