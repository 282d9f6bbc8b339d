//! Files of every version that was released are read by this one: `upgrade-fixtures` has written them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use kaspr_exec::broker::log::{Log, NewRecord};
use kaspr_exec::broker::position::{Metadata, NameHash};
use kaspr_exec::clock::SimulatedClock;
use kaspr_exec::config::Config;
use kaspr_exec::event::effects::Scratch;
use kaspr_exec::event::kept::Kept;
use kaspr_exec::event::message::TopicPartition;
use kaspr_exec::guard::{Guard, Post};
use kaspr_exec::run::record::{self, Record};
use kaspr_exec::tables::Tables;
use kaspr_exec::tables::restore::Restore;
use kaspr_exec::tables::store::{DurableStore, MemoryStore, Store};
use kaspr_ir::plan::{Plan, TableId};
use kaspr_tests::kafka::{self, Broker};
use kaspr_tests::program::{run, stderr, stdout};
use kaspr_tests::root;
use serde_json::{Value, json};

/// Partitions of the input and of the table.
const PARTITIONS: i32 = 2;
const TABLE: TableId = TableId(0);

/// The files that a version left.
struct Version(PathBuf);

impl Version {
    fn all() -> Vec<Version> {
        let folders = std::fs::read_dir(root().join("tests/upgrade")).expect("there are fixtures");
        let folders = folders.map(|entry| entry.expect("it can be read").path()).filter(|path| path.is_dir());
        let versions: Vec<Version> = folders.map(Version).collect();
        assert!(!versions.is_empty(), "tests/upgrade holds no version");
        versions
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn text(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap_or_else(|error| panic!("{}: {error}", self.path(name)))
    }

    fn expected(&self) -> Value {
        self.json("expected.json")
    }

    fn app(&self) -> String {
        self.expected()["app"].as_str().expect("the app's name").to_owned()
    }

    fn plan(&self) -> Rc<Plan> {
        let plan = Plan::from_json(&self.text("plan.json"));
        Rc::new(plan.unwrap_or_else(|error| panic!("{}: {error}", self.path("plan.json"))))
    }

    fn records(&self, name: &str) -> Vec<Record> {
        let parse = |line: &str| record::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.text(name).lines().map(parse).collect()
    }

    /// The state dir, as a worker may write to it.
    fn state(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        copy_all(&self.0.join("state"), copy.path());
        copy
    }

    /// The content of the table, by partition and key.
    fn counts(&self) -> BTreeMap<i32, BTreeMap<String, Value>> {
        serde_json::from_value(self.expected()["counts"].clone()).expect("counts of partitions")
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("it can be read") {
        let (from, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).expect("it can be read");
        if from.is_dir() {
            copy_all(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("it can be copied");
        }
    }
}

/// Keys and values of a table as JSON.
fn shown(pairs: impl IntoIterator<Item = (Kept, Kept)>) -> BTreeMap<String, Value> {
    let key = |key: &Kept| serde_json::from_slice::<String>(key).expect("keys are JSON");
    let value = |value: &Kept| serde_json::from_slice(value).expect("values are JSON");
    pairs.into_iter().map(|(k, v)| (key(&k), value(&v))).collect()
}

#[test]
fn offsets_of_every_version_are_understood() {
    for version in Version::all() {
        let (offsets, expected) = (version.json("offsets.json"), version.expected());
        assert_eq!(offsets.as_array().map(Vec::len), usize::try_from(PARTITIONS).ok());
        for offset in offsets.as_array().expect("a list") {
            let counted = &expected["counted"][offset["partition"].to_string()];
            let metadata = Metadata {
                transactional_id: expected["transactionalId"].as_str().expect("a name").to_owned(),
                partitions_at_start: PARTITIONS,
                readers: NameHash::of_all(["audit", "counter"].into_iter()),
                ahead: [(NameHash::of("counter"), counted.as_i64().expect("a number"))].into(),
            };
            assert_eq!(offset["metadata"].as_str().and_then(Metadata::decode), Some(metadata), "{offset}");
        }
    }
}

#[test]
fn changelogs_of_every_version_give_the_table() {
    for version in Version::all() {
        let (log, app, plan) = (Log::new(PARTITIONS), version.app(), version.plan());
        let changelog = format!("{app}-counts-changelog");
        log.create(&changelog, PARTITIONS);
        for Record { partition, key, value, headers, .. } in version.records("changelog.jsonl") {
            let record = NewRecord { partition, key, value, headers, ..NewRecord::default() };
            log.append(&changelog.as_str().into(), record).expect("it is appended");
        }
        let mut config = Config::new(&app, "one", 0);
        config.keeps_changelogs = true;
        let mut tables = Tables::over(Box::<MemoryStore>::default());
        let mut restore = Restore::new(&plan, &config, Some(Box::new(log.changelog())));
        tables.follow_changelogs(restore.fed(), true);
        let inputs = (0..PARTITIONS).map(|partition| TopicPartition::new("orders", partition));
        inputs.clone().for_each(|input| restore.want(&input));
        while restore.is_restoring() {
            restore.turn(&mut tables, &SimulatedClock::default()).expect("it turns");
        }
        for (partition, counts) in version.counts() {
            assert_eq!(shown(tables.store().pairs(TABLE, partition).expect("it reads")), counts);
            for (key, value) in counts {
                let key = json!(key).to_string();
                let found = tables.get(TABLE, partition, key.as_bytes(), &Scratch::default()).expect("it reads");
                assert_eq!(found.map(|found| serde_json::from_slice(&found).expect("JSON")), Some(value));
            }
        }
    }
}

#[test]
fn state_of_every_version_opens_as_it_was_left() {
    for version in Version::all() {
        let state = version.state();
        let clock = Rc::new(SimulatedClock::default());
        let store = DurableStore::open(state.path(), 0, &["counts"], clock).expect("it opens");
        for (partition, counts) in version.counts() {
            assert_eq!(shown(store.pairs(TABLE, partition).expect("it reads")), counts);
            let followed = store.followed(TABLE, partition).expect("it reads").expect("it knows its place");
            let changes = version.records("changelog.jsonl");
            let last = changes.iter().rfind(|change| change.partition == Some(partition));
            // Behind the record stands the marker of its transaction.
            assert_eq!(Some(followed.offset - 2), last.and_then(|last| last.offset), "nothing is to be read again");
            assert!(!followed.topic.is_empty());
        }
    }
}

#[test]
fn crashes_of_every_version_are_counted_on() {
    for version in Version::all() {
        let (state, app, plan) = (version.state(), version.app(), version.plan());
        let post = Post { state_dir: state.path(), worker: 0, app: &app, revision: &plan.revision };
        let guard = Guard::open(post).expect("it opens");
        let found: Value = guard
            .poison_events()
            .iter()
            .map(|crash| json!({"reader": crash.reader, "partition": crash.partition, "offset": crash.offset, "crashes": crash.crashes}))
            .collect();
        assert_eq!(found, json!([version.expected()["crash"]]), "two stand in crashes.0, one in running.0");
        assert_eq!(guard.poison_events()[0].place(), "agent \"counter\", operation \"count\"");
    }
}

/// The plan runs over the state: counts go on, and what crashed three times is not run a fourth time.
#[test]
fn a_plan_of_every_version_goes_on_with_its_state() {
    for version in Version::all() {
        let (plan, state, app) = (version.path("plan.json"), version.state(), version.app());
        let (state, failures) = (state.path().display().to_string(), state.path().join("failures"));
        let arguments = ["run", &plan, "--local", "--quiet", "--app", &app, "--state-dir", &state, "--partitions", "2"];
        let input = ["--input", "orders=-", "--input-format", "record"];
        let failed = ["--failures", &failures.display().to_string()];
        let output = run("kaspr-exec", &[&arguments[..], &input, &failed].concat(), &version.text("inputs.jsonl"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let firsts = first_counts(stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")));
        for (key, count) in version.counts().into_values().flatten() {
            assert_eq!(firsts.get(&key), Some(&(count["n"].as_u64().expect("a number") + 1)), "{key}");
        }
        let failures = std::fs::read_to_string(failures).expect("there are failures");
        let failure: Value = serde_json::from_str(&failures).expect("one line");
        let crash = &version.expected()["crash"];
        assert_eq!(failure["failure"]["kind"], "ProcessCrash");
        assert_eq!(
            [&failure["failure"]["partition"], &failure["failure"]["offset"]],
            [&crash["partition"], &crash["offset"]]
        );
    }
}

/// The first count of each key among records that agents wrote, which have no keys and so stand in any
/// partition.
fn first_counts(records: impl Iterator<Item = Value>) -> BTreeMap<String, u64> {
    let mut firsts = BTreeMap::new();
    for record in records.filter(|record| record["topic"] == "counted") {
        let (key, n) =
            (record["value"]["k"].as_str().expect("a key"), record["value"]["n"].as_u64().expect("a number"));
        firsts.entry(key.to_owned()).and_modify(|first: &mut u64| *first = n.min(*first)).or_insert(n);
    }
    firsts
}

/// A cluster as the version left it: the worker goes on where the last one stood, and counts nothing twice.
#[test]
fn a_group_of_every_version_goes_on_where_it_stood() {
    for version in Version::all() {
        let (broker, app, state) = (Broker::start(), version.app(), version.state());
        let changelog = format!("{app}-counts-changelog");
        for topic in ["orders", "counted", "audited", &changelog] {
            broker.named_topic(topic, PARTITIONS);
        }
        broker.produce("orders", version.records("inputs.jsonl").into_iter().map(as_sent));
        broker.produce(&changelog, version.records("changelog.jsonl").into_iter().map(as_sent));
        for offset in version.json("offsets.json").as_array().expect("a list") {
            let number = |name: &str| offset[name].as_i64().expect("a number");
            let partition = i32::try_from(number("partition")).expect("few");
            let metadata = offset["metadata"].as_str().expect("text");
            broker.commit(&app, "orders", partition, (number("offset"), metadata));
        }
        let news = (0..PARTITIONS).zip(["k-1", "k-11"]);
        broker.produce(
            "orders",
            news.map(|(partition, key)| {
                let value = json!({"k": key, "name": "new"}).to_string();
                kafka::Record { partition: Some(partition), ..kafka::Record::new(key, value) }
            }),
        );
        let (plan, state) = (version.path("plan.json"), state.path().display().to_string());
        let arguments = ["run", &plan, "--bootstrap-servers", &broker.servers, "--app", &app, "--until-caught-up"];
        let output = run("kaspr-exec", &[&arguments[..], &["--state-dir", &state, "--quiet"]].concat(), "");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let mut counted: Vec<Value> =
            broker.read("counted").iter().map(|record| serde_json::from_str(&record.text()).expect("JSON")).collect();
        counted.sort_by_key(|value| value["k"].to_string());
        assert_eq!(counted, [json!({"k": "k-1", "n": 4}), json!({"k": "k-11", "n": 4})], "{}", stderr(&output));
    }
}

fn as_sent(record: Record) -> kafka::Record {
    let bytes = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.to_vec());
    kafka::Record {
        partition: record.partition,
        key: bytes(record.key),
        value: bytes(record.value),
        ..kafka::Record::default()
    }
}
