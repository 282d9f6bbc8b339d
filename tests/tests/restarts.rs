//! Apps whose topics, offsets, disks or workers are not what they were: what is logged, what stops, what goes
//! on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use kaspr_exec::broker::partitioner::partition_for;
use kaspr_tests::clock::{now, pause};
use kaspr_tests::cluster::Cluster;
use kaspr_tests::counting::App;
use kaspr_tests::kafka::{Broker, Record, broker, unique};
use kaspr_tests::process;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Counts how often each key came, with `pad` beside each count in its table.
fn counter(input: &str, output: &str, pad: &str) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {{name: counts}}\nspec: {{}}\n---\n\
         apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: counter}}\nspec:\n  input:\n    topic: {{{input}}}\n  output:\n    \
         topics: [{{name: {output}, keySelector: {{python: \"def key(value): return value['k']\"}}}}]\n  processors:\n    pipeline: [count]\n    operations:\n      - name: count\n        \
         tables: [{{name: counts, paramName: counts}}]\n        map:\n          python: |\n            def count(value, counts):\n                \
         n = counts.get(value['k'], [0])[0] + 1\n                counts[value['k']] = [n, {pad}]\n                return {{'k': value['k'], 'n': n}}\n---\n"
    )
}

fn named(topic: &str) -> String {
    format!("name: {topic}")
}

/// Passes on what comes; keys stay.
fn echo(input: &str, output: &str, on_error: &str) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: echo}}\nspec:\n  input:\n    topic: {{name: {input}}}\n  output:\n    \
         topics: [{{name: {output}, keySelector: {{python: \"def key(value): return value['k']\"}}}}]\n  processors:\n    pipeline: [step]\n    operations:\n      - name: step\n        \
         {on_error}\n        map: {{python: \"def step(value): return {{'k': value['k']}}\"}}\n---\n"
    )
}

/// Waits until an app stops by itself; gives its log.
#[track_caller]
fn stops(app: &App, mut worker: Child) -> String {
    wait_until("the app to stop", || worker.try_wait().expect("it can be asked").is_some());
    assert_eq!(worker.wait().expect("it ended").code(), Some(1), "{}", app.words(0));
    app.words(0)
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = now();
    while !is_so() {
        assert!(now() - began < PATIENCE, "waited {PATIENCE:?} for {what}");
        pause(Duration::from_millis(50));
    }
}

/// Ends a run as Kubernetes does.
#[track_caller]
fn terminate(mut worker: Child) {
    process::terminate(worker.id());
    assert_eq!(worker.wait().expect("it ends").code(), Some(0));
}

fn events(keys: u64, rounds: u64) -> impl Iterator<Item = Record> {
    (0..keys * rounds).map(move |n| Record::new(format!("k-{}", n % keys), format!("{{\"k\": \"k-{}\"}}", n % keys)))
}

/// The last count of every key; each count of a key came once, in order.
#[track_caller]
fn counts(records: &[Record]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for record in records {
        let value: serde_json::Value =
            serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("JSON");
        let (key, n) = (value["k"].as_str().expect("a key").to_owned(), value["n"].as_u64().expect("a number"));
        let before = counts.insert(key.clone(), n).unwrap_or(0);
        assert_eq!(n, before + 1, "the count of {key}");
    }
    counts
}

fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &broker.servers).create().expect("an admin client")
}

fn grow(broker: &Broker, topic: &str, partitions: usize) {
    let admin = admin(broker);
    let (new, options) = (NewPartitions::new(topic, partitions), AdminOptions::new());
    let grown = admin.create_partitions([&new], &options);
    futures_executor::block_on(grown).expect("the broker answers").into_iter().for_each(|grown| {
        grown.expect("the topic grows");
    });
    wait_until("the partitions", || broker.partitions(topic) == i32::try_from(partitions).expect("few"));
}

fn delete(broker: &Broker, topic: &str) {
    let admin = admin(broker);
    let deleted = futures_executor::block_on(admin.delete_topics(&[topic], &AdminOptions::new()));
    deleted.expect("the broker answers").into_iter().for_each(|deleted| {
        deleted.expect("the topic is deleted");
    });
    wait_until("the end of the topic", || broker.partitions(topic) == 0);
}

fn group_client(broker: &Broker, group: &str) -> BaseConsumer {
    ClientConfig::new().set("bootstrap.servers", &broker.servers).set("group.id", group).create().expect("a client")
}

/// A worker that reads while its topics change, and has counted every key once.
fn running(app: &App, broker: &Broker, input: &str) -> Child {
    let worker = app.start(0, &[]);
    broker.produce(input, events(50, 1));
    wait_until("the first counts", || broker.lag(&app.name, input) == 0);
    worker
}

#[test]
fn a_table_stops_when_its_topics_get_other_partitions() {
    let broker = broker();
    let app_of = |input: &str, output: &str| App::new(broker, &counter(&named(input), output, "0"));
    let topics = || (broker.topic("in", 2), broker.topic("out", 2));
    let (moved_in, moved_out) = topics();
    let (quiet_in, quiet_out) = topics();
    let (other_in, other_out) = topics();
    let (moved, quiet, other) =
        (app_of(&moved_in, &moved_out), app_of(&quiet_in, &quiet_out), app_of(&other_in, &other_out));
    let workers = [(&moved, &moved_in), (&quiet, &quiet_in), (&other, &other_in)];
    let [moving, waiting, losing] = workers.map(|(app, input)| running(app, broker, input));
    // Keys move at once: none may be counted from 1 again.
    grow(broker, &moved_in, 3);
    broker.produce(&moved_in, events(50, 2));
    // Nothing comes, and the state goes.
    grow(broker, &quiet_in, 3);
    delete(broker, &other.changelog());
    broker.named_topic(&other.changelog(), 5);
    let needs = |app: &App| format!("the topic \"{}\" (the changelog of table \"counts\") has", app.changelog());
    let words = stops(&moved, moving);
    assert!(words.contains(&needs(&moved)) && words.contains("2 partitions and needs 3"), "{words}");
    let found = counts(&broker.read(&moved_out));
    assert_eq!(found.len(), 50);
    let words = stops(&quiet, waiting);
    assert!(words.contains(&needs(&quiet)) && words.contains("2 partitions and needs 3"), "{words}");
    let words = stops(&other, losing);
    assert!(words.contains("was deleted or recreated while the app ran"), "{words}");
    // The start says the same.
    let words = stops(&moved, moved.start(0, &[]));
    assert!(words.contains(&needs(&moved)) && words.contains("2 partitions and needs 3"), "{words}");
}

#[test]
fn an_app_without_tables_takes_new_partitions_on() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 2));
    let app = App::new(broker, &echo(&input, &output, ""));
    let worker = app.start(0, &["--kafka", "topic.metadata.refresh.interval.ms=1000"]);
    broker.produce(&input, events(20, 1));
    wait_until("the first records", || broker.count(&output) == 20);
    grow(broker, &input, 3);
    grow(broker, &output, 4);
    let again = |partition| events(20, 1).map(move |record| Record { partition: Some(partition), ..record });
    let mut expected = 20;
    // Keys go where the new number of partitions has them, once the worker knows it.
    wait_until("keys in their new partitions", || {
        let before: BTreeMap<i32, i64> = ends(&broker.read(&output));
        (0..3).for_each(|partition| broker.produce(&input, again(partition)));
        expected += 60;
        wait_until("all records, of new partitions too", || broker.count(&output) == expected);
        let new: Vec<Record> = broker.read(&output);
        let mut new = new.iter().filter(|record| {
            let partition = record.partition.expect("it was read");
            record.offset > before.get(&partition).copied().unwrap_or(-1)
        });
        new.all(|record| record.partition == Some(partition_for(record.key.as_deref(), 4, 0)))
    });
    terminate(worker);
}

/// The last offset of each partition.
fn ends(records: &[Record]) -> BTreeMap<i32, i64> {
    records.iter().map(|record| (record.partition.expect("it was read"), record.offset)).collect()
}

const ANEW: &str = "WARN";

#[test]
fn state_does_not_restart_without_a_word() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let app = App::new(broker, &counter(&named(&input), &output, "0"));
    broker.produce(&input, events(20, 1));
    let words = app.catch_up() + &app.catch_up();
    assert!(!words.contains("committed offsets"), "a first start and a second one are nothing special: {words}");
    let names = |words: &str, what: &str| {
        let line = words.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {words}"));
        assert!(line.contains(ANEW) && line.contains(&app.name) && line.contains(&input), "{line}");
        line.to_owned()
    };

    // A changelog that is gone: the group goes on, the table does not.
    delete(broker, &app.changelog());
    let line = names(&app.catch_up(), "is empty: the table starts empty");
    assert!(line.contains(&app.changelog()) && line.contains("reset the group's offsets"), "{line}");

    // A member in the group that belongs to another program.
    let stranger = group_client(broker, &app.name);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&input, 0, Offset::Offset(1)).expect("an offset");
    stranger.commit(&offsets, CommitMode::Sync).expect("it commits");
    let line = names(&app.catch_up(), "were committed by another program");
    assert!(line.contains("partition 0 at 1") && line.contains("--app"), "{line}");

    // A group that is gone: the table goes on, the group does not.
    let groups = admin(broker);
    wait_until("the group's end", || {
        let deleted = futures_executor::block_on(groups.delete_groups(&[&app.name], &AdminOptions::new()));
        deleted.is_ok_and(|deleted| deleted.iter().all(Result::is_ok))
    });
    let line = names(&app.catch_up(), "has no committed offsets");
    assert!(line.contains(&app.changelog()) && line.contains("counted again"), "{line}");
}

/// Overwrites the blocks of the sorted files of a store in the middle of each.
fn damage(folder: &Path) -> usize {
    let mut damaged = 0;
    for entry in std::fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            damaged += damage(&path);
        } else if path.parent().is_some_and(|parent| parent.ends_with("tables")) {
            let length = path.metadata().expect("a file").len();
            let mut file = std::fs::OpenOptions::new().write(true).open(&path).expect("it opens");
            file.write_all(&vec![0x5a; usize::try_from(length).expect("it fits")]).expect("it is damaged");
            damaged += 1;
        }
    }
    damaged
}

#[test]
fn a_damaged_copy_is_built_again_while_the_app_runs() {
    const KEYS: u64 = 240;
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let app = App::new(broker, &counter(&named(&input), &output, "'x' * 200_000")).on_disk();
    let mut worker = app.start(0, &[]);
    broker.produce(&input, events(KEYS, 1));
    wait_until("the first counts", || broker.lag(&app.name, &input) == 0);
    let store = app.state().join("tables.0");
    wait_until("blocks on the disk", || damage(&store) > 0);
    broker.produce(&input, events(KEYS, 1));
    wait_until("the second counts", || {
        assert!(worker.try_wait().expect("it can be asked").is_none(), "it runs");
        broker.lag(&app.name, &input) == 0
    });
    assert!(app.words(0).contains("the store of tables cannot be read"), "it has met the damage");
    let found = counts(&broker.read(&output));
    assert!(found.len() as u64 == KEYS && found.values().all(|n| *n == 2), "{found:?}");
    terminate(worker);
    // The table that was rebuilt is on the disk.
    broker.produce(&input, events(KEYS, 1));
    app.catch_up();
    assert!(counts(&broker.read(&output)).values().all(|n| *n == 3));
}

#[test]
fn one_worker_that_cannot_start_stops_no_other() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 4), broker.topic("out", 4));
    let app = App::new(broker, &counter(&named(&input), &output, "0")).on_disk();
    let (lock, workers) = (app.state().join("tables.1.lock"), ["--workers", "2"]);
    std::fs::create_dir_all(&lock).expect("it is in the way");
    let supervisor = app.start(0, &workers);
    broker.produce(&input, events(50, 1));
    wait_until("the other worker's counts", || broker.lag(&app.name, &input) == 0);
    wait_until("a second try", || app.words(0).matches("worker 1: stopped by a fault").count() > 1);
    std::fs::remove_dir(&lock).expect("it is out of the way");
    wait_until("two workers", || broker.members(&app.name) == Some(2));
    terminate(supervisor);
    assert_eq!(counts(&broker.read(&output)).len(), 50);
    // No worker can start: that is not the fault of a single one.
    let mut nowhere = App::new(broker, &echo(&input, &output, ""));
    nowhere.servers = "127.0.0.1:9".to_owned();
    let words = stops(&nowhere, nowhere.start(0, &workers));
    assert!(words.contains("no worker could start"), "{words}");
}

#[test]
fn what_the_spec_halts_stops_all_workers() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let app = App::new(broker, &echo(&input, &output, "onError: {action: halt}"));
    broker.produce(&input, [Record::new("k", "{}")]);
    let words = stops(&app, app.start(0, &["--workers", "2"]));
    assert!(words.contains("halted:") && words.contains("stopping all"), "{words}");
}

#[test]
fn workers_that_stop_for_anothers_fault_end_what_they_have_begun() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let slow = "\"import time\\ndef step(value):\\n  print('begins')\\n  time.sleep(value.get('seconds', 0))\\n  return {'k': value['k']}\"";
    let spec = echo(&input, &output, "onError: {action: halt}");
    let spec = spec.replace("\"def step(value): return {'k': value['k']}\"", slow);
    let app = App::new(broker, &spec);
    let worker = app.start(0, &["--workers", "2"]);
    wait_until("two workers", || broker.members(&app.name) == Some(2));
    let at = |partition, value| Record { partition: Some(partition), ..Record::new("k", value) };
    broker.produce(&input, [at(1, r#"{"k": "slow", "seconds": 2}"#)]);
    wait_until("the slow event to begin", || app.words(0).contains("begins"));
    broker.produce(&input, [at(0, "{}")]);
    let words = stops(&app, worker);
    assert!(words.contains("stopping all"), "{words}");
    assert_eq!(broker.read(&output).len(), 1, "the slow event's output: {words}");
}

#[test]
fn first_starts_on_three_brokers_live() {
    const APPS: usize = 12;
    const AT_ONCE: usize = 3;
    let cluster = Cluster::start();
    let broker = cluster.brokers();
    let output = broker.topic("out", 3);
    let apps: Vec<App> = (0..APPS)
        .map(|_| {
            let declared = format!("declare: true, partitions: 3, name: {}", unique("in"));
            App::new(broker, &counter(&declared, &output, "0"))
        })
        .collect();
    let mut failed = BTreeSet::new();
    for apps in apps.chunks(AT_ONCE) {
        // Two of each begin at the same moment.
        let mut workers: Vec<(usize, &App, Child)> = (0..2)
            .flat_map(|number| apps.iter().map(move |app| (number, app)))
            .map(|(number, app)| (number, app, app.start(number, &["--until-caught-up"])))
            .collect();
        for (number, app, worker) in &mut workers {
            if worker.wait().expect("it ends").code() != Some(0) {
                failed.insert(app.words(*number));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {} starts died: {failed:#?}", failed.len(), 2 * APPS);
}
