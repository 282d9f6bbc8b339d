//! `upgrade-fixtures`: writes the files of this version that every later one must read: a plan, offsets
//! with their metadata, a changelog, a state dir and the crashes of an event, all of one run on a real Kafka.
//!
//! `cargo run -p kaspr-tests --bin upgrade-fixtures -- tests/upgrade/VERSION` after `cargo build`; Kafka is
//! started for it. `tests/tests/upgrade.rs` reads every folder there.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use kaspr_exec::broker::position::Metadata;
use kaspr_exec::event::message::Event;
use kaspr_exec::run::record::write_event;
use kaspr_tests::clock::{now, pause};
use kaspr_tests::kafka::{Broker, Record};
use kaspr_tests::process::terminate;
use kaspr_tests::program::{command, run};
use serde_json::{Value, json};

/// The app: consumer group and start of the changelog's name.
const APP: &str = "upgrade";
/// The topic that it reads, with [`PARTITIONS`].
const INPUT: &str = "orders";
/// Partitions of topics and table.
const PARTITIONS: i32 = 2;
/// Keys, and events of each but for those that are forgotten.
const KEYS: usize = 12;
/// Events of each key.
const ROUNDS: usize = 3;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes the files that later versions must read.
#[derive(Debug, Parser)]
struct Arguments {
    /// A folder that does not exist yet.
    folder: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { folder } = Arguments::parse();
    if folder.exists() {
        let _ =
            writeln!(std::io::stderr(), "error: \"{}\" exists: files of a version are written once", folder.display());
        return ExitCode::from(2);
    }
    let folder = std::path::absolute(folder).expect("a folder has a place");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    Writer { broker: Broker::start(), folder }.write();
    ExitCode::SUCCESS
}

struct Writer {
    broker: Broker,
    folder: PathBuf,
}

impl Writer {
    fn write(&self) {
        let plan = self.file("plan.json");
        let compiled = run("kasprc", &["compile", "tests/upgrade/app.yaml", "-o", &plan], "");
        assert!(compiled.status.success(), "{compiled:?}");
        for (topic, partitions) in [(INPUT, PARTITIONS), ("counted", PARTITIONS), ("audited", 1)] {
            self.broker.named_topic(topic, partitions);
        }
        self.broker.produce(INPUT, events());
        let worker = self.start();
        self.wait_until_ahead();
        terminate(worker.id());
        self.end_with(worker, 0);
        self.broker.produce(INPUT, [Record::new("exit", r#"{"k": "exit"}"#)]);
        // The third crash stands in the mark alone: the next start counts it.
        (0..3).for_each(|_| self.end_with(self.start(), 9));
        self.dump(INPUT, "inputs.jsonl");
        self.dump(&self.changelog(), "changelog.jsonl");
        self.save("offsets.json", &self.offsets());
        self.save("expected.json", &self.expected());
        shorten(&self.folder.join("state"));
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn changelog(&self) -> String {
        format!("{APP}-counts-changelog")
    }

    fn start(&self) -> Child {
        let (plan, state) = (self.file("plan.json"), self.file("state"));
        let arguments = ["run", &plan, "--bootstrap-servers", &self.broker.servers, "--app", APP, "--instance", "one"];
        let mut command = command("kaspr-exec", &[&arguments[..], &["--state-dir", &state, "--quiet"]].concat());
        command.stdout(Stdio::null()).spawn().expect("kaspr-exec starts")
    }

    fn end_with(&self, mut worker: Child, status: i32) {
        assert_eq!(worker.wait().expect("it ends").code(), Some(status));
    }

    /// Until the counter has committed everything, and the audit nothing.
    fn wait_until_ahead(&self) {
        let began = now();
        let ahead =
            |(_, metadata): &(i64, String)| Metadata::decode(metadata).map(|own| own.ahead.values().sum::<i64>());
        loop {
            let committed = self.broker.committed(APP, INPUT);
            let sum: i64 = committed.iter().flatten().filter_map(ahead).sum();
            if usize::try_from(sum).is_ok_and(|sum| sum == events().count()) {
                return;
            }
            assert!(now() - began < PATIENCE, "{committed:?}");
            pause(Duration::from_millis(100));
        }
    }

    fn dump(&self, topic: &str, name: &str) {
        let mut lines = Vec::new();
        for record in self.broker.read(topic) {
            write_event(&event(topic, record), &mut lines);
            lines.push(b'\n');
        }
        std::fs::write(self.file(name), lines).expect("it can be written");
    }

    fn save(&self, name: &str, value: &Value) {
        let text = serde_json::to_string_pretty(value).expect("it is JSON") + "\n";
        std::fs::write(self.file(name), text).expect("it can be written");
    }

    fn offsets(&self) -> Value {
        let committed = self.broker.committed(APP, INPUT);
        let offset = |(partition, committed): (usize, &Option<(i64, String)>)| {
            let (offset, metadata) = committed.as_ref().expect("every partition has a commit");
            json!({"topic": INPUT, "partition": partition, "offset": offset, "metadata": metadata})
        };
        committed.iter().enumerate().map(offset).collect()
    }

    /// The truth, counted from the input: nothing of it comes from what the executor wrote.
    fn expected(&self) -> Value {
        let mut counts: BTreeMap<i32, BTreeMap<String, Value>> = BTreeMap::new();
        let (mut counted, mut crash) = (BTreeMap::<i32, i64>::new(), Value::Null);
        for record in self.broker.read(INPUT) {
            let value: Value = serde_json::from_str(&record.text()).expect("events are JSON");
            let partition = record.partition.expect("it was read");
            let key = value["k"].as_str().expect("a key").to_owned();
            if key == "exit" {
                crash = json!({"reader": "counter", "partition": partition, "offset": record.offset, "crashes": 3});
                continue;
            }
            *counted.entry(partition).or_default() += 1;
            let counts = counts.entry(partition).or_default();
            if value.get("forget").is_some() {
                counts.remove(&key);
                continue;
            }
            let n = counts.get(&key).map_or(0, |count| count["n"].as_u64().unwrap_or_default()) + 1;
            counts.insert(key, json!({"n": n, "name": value["name"]}));
        }
        json!({"app": APP, "transactionalId": format!("{APP}.one.0"), "counts": counts, "counted": counted, "crash": crash})
    }
}

fn event(topic: &str, record: Record) -> Event {
    Event {
        topic: topic.into(),
        partition: record.partition.expect("it was read"),
        slot: 0,
        offset: record.offset,
        timestamp_ms: record.timestamp,
        key: record.key.map(Into::into),
        value: record.value.map(Into::into),
        headers: record.headers.into_iter().map(|(name, value)| (name, value.map(Into::into))).collect(),
    }
}

/// Every key in each round; in the last one every fourth is forgotten.
fn events() -> impl Iterator<Item = Record> {
    (0..KEYS * ROUNDS).map(|number| {
        let (key, is_last) = (number % KEYS, number / KEYS == ROUNDS - 1);
        let value = match is_last && key % 4 == 0 {
            true => json!({"k": format!("k-{key}"), "forget": true}),
            false => json!({"k": format!("k-{key}"), "name": format!("Küche \"{key}\"")}),
        };
        Record::new(format!("k-{key}"), value.to_string())
    })
}

/// Zeros that stay at a journal's end: its last entry may end with some.
const ZEROS_KEPT: usize = 64;

/// Takes away the room at the end of journals, which the store sets aside in advance (64 MB) and finds as
/// zeros.
fn shorten(state: &Path) {
    for entry in std::fs::read_dir(state).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            shorten(&path);
        } else if path.extension().is_some_and(|extension| extension == "jnl") {
            let bytes = std::fs::read(&path).expect("it can be read");
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let kept = bytes.len().min(used + ZEROS_KEPT);
            std::fs::write(&path, &bytes[..kept]).expect("it can be written");
        }
    }
}
