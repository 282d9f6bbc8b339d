//! The app that is put to the test: an agent with a table, two outputs and a dead letter, beside one
//! with a ten-minute window and one that is often in back-off, all readers of one topic; and its
//! processes, which come and go.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::clock::{now, pause};
use crate::kafka::{Broker, unique};
use crate::process;
use crate::program::command;
use crate::verify::read::{Topics, left};
use crate::verify::{Verdict, judge};

/// The agents. `counts` keeps a table, `gathers` a window, `waits` events that are to be retried.
const SPEC: &str = include_str!("app.yaml");
/// Longest time for the last run, which processes what is left.
const DRAIN_MAX: Duration = Duration::from_secs(180);

/// The app in a folder of its own, with topics of its own.
pub struct App {
    folder: tempfile::TempDir,
    /// The app's name, which is its group's.
    pub name: String,
    /// The brokers to which its processes connect.
    pub servers: String,
    /// The topic that it reads.
    pub input: String,
    /// Partitions of every topic.
    pub partitions: i32,
    flags: Vec<String>,
    agents: Vec<(&'static str, Topics)>,
}

/// The agents of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agents {
    /// The one with the table.
    One,
    /// All three.
    All,
}

impl App {
    /// An app with new topics on this broker.
    pub fn new(broker: &Broker, agents: Agents, partitions: i32) -> App {
        App::reading(broker, broker.topic("in", partitions), agents, partitions)
    }

    /// An app with this input, and other topics that are new.
    pub fn reading(broker: &Broker, input: String, agents: Agents, partitions: i32) -> App {
        let topic = |name: &str| broker.topic(name, partitions);
        let name = unique("app");
        let counts = Topics {
            input: input.clone(),
            outputs: vec![topic("first"), topic("second")],
            dead_letters: Some(topic("dead")),
            changelog: Some(format!("{name}-counts-changelog")),
        };
        let mut known = vec![("counts", counts)];
        if agents == Agents::All {
            let gathers = Topics { input: input.clone(), outputs: vec![topic("gathered")], ..Topics::default() };
            let waits = Topics {
                input: input.clone(),
                outputs: vec![topic("waited")],
                dead_letters: Some(topic("given-up")),
                changelog: None,
            };
            known.extend([("gathers", gathers), ("waits", waits)]);
        }
        let spec = spec(&known);
        App::in_folder(broker, name, &spec, known, partitions)
    }

    /// An app of another spec, of which one agent can be judged: the one with these topics.
    pub fn of(broker: &Broker, spec: &str, agent: &'static str, topics: Topics, partitions: i32) -> App {
        let agents = vec![(agent, topics)];
        App::in_folder(broker, unique("app"), spec, agents, partitions)
    }

    fn in_folder(
        broker: &Broker,
        name: String,
        spec: &str,
        agents: Vec<(&'static str, Topics)>,
        partitions: i32,
    ) -> App {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("agents.yaml"), spec).expect("it can be written");
        let (servers, input) = (broker.servers.clone(), agents[0].1.input.clone());
        App { folder, name, servers, input, partitions, flags: Vec::new(), agents }
    }

    /// Adds these flags.
    pub fn with(mut self, flags: &[&str]) -> App {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// Adds a setting of the Kafka clients.
    pub fn with_kafka(self, setting: &str) -> App {
        self.with(&["--kafka", setting])
    }

    /// Makes its processes connect here.
    pub fn at(mut self, servers: String) -> App {
        self.servers = servers;
        self
    }

    /// All topics of the agents, the input once.
    pub fn topics(&self) -> Vec<String> {
        let of = |topics: &Topics| {
            let others = topics.dead_letters.iter().chain(&topics.changelog);
            topics.outputs.iter().chain(others).cloned().collect::<Vec<_>>()
        };
        std::iter::once(self.input.clone()).chain(self.agents.iter().flat_map(|(_, topics)| of(topics))).collect()
    }

    /// The first output of the first agent: of the one with the table.
    pub fn output(&self) -> &str {
        &self.agents[0].1.outputs[0]
    }

    /// Starts a process. `number` names its log and its state.
    pub fn start(&self, number: usize) -> Member {
        self.start_with(number, &[], None)
    }

    /// Starts a process with more flags, or with a failpoint at which it aborts.
    pub fn start_with(&self, number: usize, flags: &[&str], failpoint: Option<&str>) -> Member {
        let mut command = command("kaspr-exec", &["run"]);
        command.arg(self.folder.path().join("agents.yaml"));
        command.args(["--bootstrap-servers", &self.servers, "--app", &self.name]).args(&self.flags).args(flags);
        command.arg("--state-dir").arg(self.folder.path().join(format!("state-{number}")));
        if let Some(failpoint) = failpoint {
            command.env("KASPR_FAILPOINT", failpoint);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(number)).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        Member { child: Some(child) }
    }

    /// The output of the processes of this number.
    pub fn words(&self, number: usize) -> String {
        std::fs::read_to_string(self.log(number)).unwrap_or_default()
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("log-{number}"))
    }

    /// Processes what is left, windows too, with a last process of its own.
    ///
    /// # Errors
    /// In words, if that process fails or does not end.
    pub fn drain(&self) -> Result<(), String> {
        const NUMBER: usize = 99;
        let mut member = self.start_with(NUMBER, &["--until-caught-up"], None);
        match member.ends_within(DRAIN_MAX) {
            Some(Some(0)) => Ok(()),
            Some(status) => Err(format!("the last run ended with {status:?}:\n{}", self.words(NUMBER))),
            None => Err(format!("the last run did not end in {DRAIN_MAX:?}:\n{}", self.words(NUMBER))),
        }
    }

    /// Judges what the agents left.
    ///
    /// # Errors
    /// In words, if it cannot be read.
    pub fn verify(&self, broker: &Broker) -> Result<Verdict, String> {
        let mut sum = Verdict::default();
        for (name, topics) in &self.agents {
            let verdict = judge(&left(&broker.servers, topics).map_err(|why| format!("agent {name}: {why}"))?);
            sum.add(verdict);
        }
        Ok(sum)
    }

    /// The last lines in the logs of these processes, without those about marked events.
    pub fn last_words(&self, numbers: impl IntoIterator<Item = usize>, lines: usize) -> String {
        let last = |number: usize| {
            let words = self.words(number);
            let of_marked = |line: &&str| {
                let source = ["Traceback", "File \"", "raise ValueError(\"marked", "ValueError"];
                line.contains("marked to ") || source.iter().any(|start| line.trim_start().starts_with(start))
            };
            let all: Vec<&str> = words.lines().filter(|line| !of_marked(line)).collect();
            format!("-- process {number}:\n{}\n", all[all.len().saturating_sub(lines)..].join("\n"))
        };
        numbers.into_iter().map(last).collect()
    }
}

/// The documents of these agents, with the names of their topics.
fn spec(agents: &[(&'static str, Topics)]) -> String {
    let documents = SPEC.split("---\n");
    let is_there = |document: &&str| {
        agents
            .iter()
            .any(|(name, _)| document.contains(&format!("  name: {name}\n")) || document.contains("kind: KasprTable"))
    };
    let mut spec: String = documents.filter(is_there).map(|document| format!("{document}---\n")).collect();
    for (name, topics) in agents {
        spec = spec.replace("@input", &topics.input);
        for (number, output) in topics.outputs.iter().enumerate() {
            spec = spec.replace(&format!("@{name}-{number}"), output);
        }
        spec = spec.replace(&format!("@{name}-dead"), topics.dead_letters.as_deref().unwrap_or_default());
    }
    spec
}

/// A process of an app. It is killed when it is dropped.
pub struct Member {
    child: Option<Child>,
}

impl Member {
    /// Its number; 0: it has ended.
    pub fn id(&self) -> u64 {
        self.child.as_ref().map_or(0, |child| u64::from(child.id()))
    }

    fn signal(&self, signal: i32) {
        if let Some(child) = &self.child {
            // SAFETY: the child has not been waited for, so the number is its own.
            unsafe { libc::kill(i32::try_from(child.id()).expect("a process number"), signal) };
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.wait();
    }

    /// Stops it as it stands, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        self.signal(if frozen { libc::SIGSTOP } else { libc::SIGCONT });
    }

    /// Ends it as Kubernetes does; gives its exit status.
    pub fn terminate(&mut self) -> Option<i32> {
        process::terminate(self.id());
        self.wait()
    }

    /// Waits for its end; gives its exit status, `None` after a signal.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.take()?.wait().expect("it ends").code()
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        let status = self.child.as_mut()?.try_wait().expect("it can be asked")?;
        self.child = None;
        Some(status.code())
    }

    /// Its exit status, if it ends within this time.
    pub fn ends_within(&mut self, time: Duration) -> Option<Option<i32>> {
        let began = now();
        while now() - began < time {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            pause(Duration::from_millis(20));
        }
        None
    }

    /// Bytes of memory that it has, and the most that it had.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) << 10
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
        self.kill();
    }
}
