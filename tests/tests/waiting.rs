//! A worker that waits says for what, and acts on SIGTERM and Ctrl-C at once.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use kaspr_tests::clock::{now, pause};
use kaspr_tests::counting::{App, shop};
use kaspr_tests::kafka::{Broker, Record, broker, unique};
use kaspr_tests::process;
use serde_json::Value;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time from the signal to the end that proves that no call was waited for: the shortest that would be takes 10 s.
const NOT_WAITED: Duration = Duration::from_secs(8);

/// An agent with a table from one topic to another, whose init waits for a file beside the spec.
fn spec(input: &str, output: &str) -> String {
    const INIT: &str = r#"
import pathlib, time
folder = pathlib.Path(__file__).parent
(folder / "loading").touch()
while not (folder / "go").exists():
    time.sleep(0.01)"#;
    shop(input, &[format!("{{name: {output}, declare: true}}")], INIT.trim_start())
}

/// An app that waits, and logs as JSON.
struct Run(App);

impl Run {
    fn new(servers: &str, spec: &str) -> Run {
        Run(App::at(servers, spec).with(&["--log-format", "json"]))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.folder.path().join(name)
    }

    /// Lines of the log whose message begins so.
    fn lines(&self, number: usize, message: &str) -> Vec<Value> {
        let log = self.0.words(number);
        let objects = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects.filter(|line| line["message"].as_str().is_some_and(|said| said.starts_with(message))).collect()
    }

    /// Lets init come to its end.
    fn go(&self) {
        std::fs::write(self.path("go"), "").expect("written");
    }

    #[track_caller]
    fn wait_for(&self, number: usize, message: &str) -> Value {
        self.wait_until(message, || !self.lines(number, message).is_empty());
        self.lines(number, message).remove(0)
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = now();
        while !is_so() {
            assert!(now() - began < PATIENCE, "waited for {what}:\n{}\n{}", self.0.words(0), self.0.words(1));
            pause(Duration::from_millis(50));
        }
    }

    /// Sends the signal, and asserts that the process ends with this status and has waited for nothing.
    #[track_caller]
    fn stops(&self, mut child: Child, number: usize, (signal, status): (i32, i32)) {
        let began = now();
        match signal {
            libc::SIGTERM => process::terminate(child.id()),
            // SAFETY: the child has not been waited for, so the number is its own.
            signal => drop(unsafe { libc::kill(i32::try_from(child.id()).expect("a process number"), signal) }),
        }
        let ended = child.wait().expect("it ends");
        let took = now() - began;
        assert_eq!(ended.code(), Some(status), "{}", self.0.words(number));
        assert!(took < NOT_WAITED, "{took:?}:\n{}", self.0.words(number));
    }
}

/// A process that would stand still for ever if its test failed.
struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const STOPPED: (i32, i32) = (libc::SIGTERM, 0);

#[test]
fn a_start_without_a_broker_says_where_it_waits_and_stops_at_once() {
    // One port refuses connections, the other takes them and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address").to_string();
    for servers in ["127.0.0.1:1", &silent] {
        for (flags, end) in [
            (&[][..], STOPPED),
            (&["--until-caught-up"], (libc::SIGTERM, 143)),
            (&["--until-caught-up"], (libc::SIGINT, 130)),
        ] {
            let run = Run::new(servers, &spec("in", "out"));
            let child = run.0.start(0, flags);
            let line = run.wait_for(0, "waiting for a broker");
            assert_eq!((&line["servers"], &line["level"]), (&servers.into(), &"WARN".into()), "{line}");
            assert!(line["error"].is_string(), "{line}");
            run.stops(child, 0, end);
            run.wait_for(0, "asked to stop before the start was complete");
            assert!(run.lines(0, "no broker answers").is_empty(), "{}", run.0.words(0));
            assert!(!run.path("loading").exists(), "user code has not run");
        }
    }
}

#[test]
fn a_start_that_waits_for_answers_stops_at_once() {
    let broker = Broker::start();
    // With a topic that is declared the run waits for its creation, else for its producer's coordinator.
    for declared in [true, false] {
        let (input, output) = (broker.topic("in", 1), unique("out"));
        if !declared {
            broker.named_topic(&output, 1);
        }
        let run = Run::new(&broker.servers, &spec(&input, &output));
        if !declared {
            broker.named_topic(&run.0.changelog(), 1);
        }
        let child = run.0.start(0, &[]);
        run.wait_until("user code", || run.path("loading").exists());
        broker.freeze(true);
        run.go();
        // Nothing says that it waits now; a run that had not come so far would stop all the same.
        pause(Duration::from_secs(1));
        run.stops(child, 0, STOPPED);
        broker.freeze(false);
        run.wait_for(0, "asked to stop before the start was complete");
        assert!(run.lines(0, "the producer waits").is_empty(), "{}", run.0.words(0));
        assert!(broker.partitions(&output) == i32::from(!declared), "{}", run.0.words(0));
    }
}

#[test]
fn a_worker_whose_brokers_are_away_says_so_again_and_stops_at_once() {
    let mut broker = Broker::start();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let run = Run::new(&broker.servers, &spec(&input, &output));
    run.go();
    let child = run.0.start(0, &[]);
    broker.produce(&input, [Record::new("k", "1")]);
    run.wait_until("the first record", || broker.count(&output) == 1);
    broker.stop();
    let line = run.wait_for(0, "waiting for a broker");
    assert_eq!((&line["servers"], line["error"].is_string()), (&broker.servers.as_str().into(), true), "{line}");
    let line = run.wait_for(0, "still waiting for a broker");
    assert!(line["seconds"].as_u64().is_some_and(|seconds| seconds >= 10), "{line}");
    run.stops(child, 0, STOPPED);
}

/// A broker that takes requests and does not answer: its connections stay.
#[test]
fn a_worker_whose_broker_stands_still_stops_at_once() {
    let broker = Broker::start();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let run = Run::new(&broker.servers, &spec(&input, &output));
    run.go();
    let child = run.0.start(0, &[]);
    broker.produce(&input, [Record::new("k", "1")]);
    run.wait_until("the first record to be committed", || broker.lag(&run.0.name, &input) == 0);
    pause(Duration::from_secs(1));
    broker.freeze(true);
    pause(Duration::from_secs(1));
    run.stops(child, 0, STOPPED);
    broker.freeze(false);
}

/// A second process holds the group: it is frozen, so that its coordinator waits for it.
#[test]
fn a_member_without_partitions_says_what_its_group_waits_for_and_stops_at_once() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let run = Run::new(&broker.servers, &spec(&input, &output));
    run.go();
    let mut first = Frozen(run.0.start(0, &[]));
    broker.produce(&input, [Record::new("k", "1")]);
    run.wait_until("the first member to be at rest", || broker.members(&run.0.name) == Some(1));
    let first_id = i32::try_from(first.0.id()).expect("a process number");
    // SAFETY: the child has not been waited for, so the number is its own.
    unsafe { libc::kill(first_id, libc::SIGSTOP) };
    let second = run.0.start(1, &[]);
    let line = run.wait_for(1, "waiting for partitions: the group counts other members");
    assert_eq!((&line["group"], &line["members"]), (&run.0.name.as_str().into(), &1.into()), "{line}");
    assert!(line["message"].as_str().is_some_and(|said| said.contains("one that is gone for another")), "{line}");
    assert!(line["others"].as_str().is_some_and(|others| others.contains("127.0.0.1")), "{line}");
    run.stops(second, 1, STOPPED);
    // SAFETY: as above.
    unsafe { libc::kill(first_id, libc::SIGCONT) };
    // The member that was only frozen goes on; one more has nothing to do, and says so.
    let second = run.0.start(1, &[]);
    let line = run.wait_for(1, "waiting for partitions: other members have all of them");
    assert_eq!(line["members"], 2, "{line}");
    run.stops(second, 1, STOPPED);
    process::terminate(first.0.id());
    assert_eq!(first.0.wait().expect("it ends").code(), Some(0), "{}", run.0.words(0));
}

/// An open transaction of a stranger hides the changelog's end.
#[test]
fn a_worker_that_restores_stops_at_once() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let run = Run::new(&broker.servers, &spec(&input, &output));
    let changelog = run.0.changelog();
    broker.named_topic(&changelog, 1);
    let stranger = broker.open_transaction(&changelog);
    run.go();
    let child = run.0.start(0, &["--stall-after", "1s"]);
    let line = run.wait_for(0, "has not started");
    assert!(line["cause"].as_str().is_some_and(|cause| cause.contains("restoring table \"counts\"")), "{line}");
    run.stops(child, 0, STOPPED);
    stranger.abort();
}
