//! Tables on a real Kafka: they come back from their changelogs, from the disk, and from neither.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use kaspr_tests::counting::App;
use kaspr_tests::kafka::{Record, broker};
use kaspr_tests::program::command;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

const KEYED: &str = "keySelector: {python: \"def key(value): return value['k']\"}";

/// Counts how often each key came.
fn counter(name: &str, inputs: &str, output: &str) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: {name}}}\nspec:\n  input:\n    topic: {{name: {inputs}}}\n  output:\n    \
         topics: [{{name: {output}, {KEYED}}}]\n  processors:\n    pipeline: [count]\n    operations:\n      - name: count\n        \
         tables: [{{name: counts, paramName: counts}}]\n        map:\n          python: |\n            def count(value, counts):\n                \
         counts[value['k']] = counts.get(value['k'], 0) + 1\n                return {{'k': value['k'], 'n': counts[value['k']]}}\n---\n"
    )
}

fn table(fields: &str) -> String {
    format!("apiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {{name: counts}}\nspec: {{{fields}}}\n---\n")
}

fn events(keys: u64, rounds: u64) -> impl Iterator<Item = Record> {
    (0..keys * rounds).map(move |n| Record::new(format!("k-{}", n % keys), format!("{{\"k\": \"k-{}\"}}", n % keys)))
}

/// The count of every key, by the last record of each; counts of a key came in order, each once.
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

#[track_caller]
fn assert_all(counts: &BTreeMap<String, u64>, keys: u64, count: u64) {
    assert_eq!(counts.len() as u64, keys);
    assert!(counts.values().all(|n| *n == count), "{counts:?}");
}

/// Records read, and ms, of the last restoration in a log.
fn restored(words: &str) -> (u64, u64) {
    let line = words.lines().rfind(|line| line.contains("tables are restored")).unwrap_or_else(|| panic!("{words}"));
    let number = |after: &str| {
        let from = &line[line.find(after).unwrap_or_else(|| panic!("{line}")) + after.len()..];
        from.trim_start().split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    (number("records="), number("ms="))
}

#[allow(clippy::disallowed_methods, reason = "a real broker takes real time")]
fn now() -> Instant {
    Instant::now()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = now();
    while !is_so() {
        assert!(now() - began < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_table_comes_back_from_its_changelog() {
    let broker = broker();
    for guarantee in ["exactly-once", "at-least-once"] {
        let (input, output) = (broker.topic("in", 3), broker.topic("out", 3));
        let app = App::new(
            broker,
            &(table("extraTopicConfigs: {segment.ms: \"60000\"}") + &counter("counter", &input, &output)),
        )
        .with(&["--guarantee", guarantee]);
        for round in 1..4 {
            broker.produce(&input, events(100, 2));
            let words = app.catch_up();
            assert_all(&counts(&broker.read(&output)), 100, round * 2);
            assert_eq!(restored(&words).0 > 0, round > 1, "{words}");
        }
        assert_eq!(broker.partitions(&app.changelog()), 3);
        let describe = ["--describe", "--topic", &app.changelog()];
        let config = broker.tool("org.apache.kafka.tools.TopicCommand", &describe, "");
        assert!(config.contains("cleanup.policy=compact") && config.contains("segment.ms=60000"), "{config}");
    }
}

#[test]
fn a_table_on_disk_reads_nothing_again_after_a_stop_or_a_kill() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 3), broker.topic("out", 3));
    let app =
        App::new(broker, &(table("") + &counter("counter", &input, &output))).on_disk().with(&["--instance", "one"]);
    broker.produce(&input, events(100, 5));
    app.catch_up();
    let mut rounds = 5;
    for _ in 0..3 {
        let mut worker = app.start(0, &[]);
        broker.produce(&input, events(100, 5));
        rounds += 5;
        wait_until("the output", || broker.lag(&app.name, &input) == 0);
        worker.kill().expect("it is killed");
        worker.wait().expect("it ends");
        let words = app.words(0);
        assert!(restored(&words).0 <= 100, "{words}");
        assert_all(&counts(&broker.read(&output)), 100, rounds);
    }
    broker.produce(&input, events(100, 1));
    let words = app.catch_up();
    assert!(restored(&words).0 <= 100, "what was committed last may be missing on disk: {words}");
    assert_all(&counts(&broker.read(&output)), 100, rounds + 1);
}

#[test]
fn a_death_at_any_step_of_a_commit_loses_and_repeats_nothing() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let specs = table("") + &counter("counter", &input, &output);
    // A name of its own for each worker: none inherits the transaction that the one before left open.
    let app = App::new(broker, &specs).on_disk().with(&["--kafka", "session.timeout.ms=3000"]);
    for (round, step) in (1..).zip(["delivered", "offsets", "committed", "applied"]) {
        broker.produce(&input, events(20, 1));
        let mut worker = app.start_at(0, step);
        let status = worker.wait().expect("it ends");
        assert_eq!(status.code(), None, "it dies at \"{step}\": {}", app.words(0));
        let words = app.catch_up();
        assert_all(&counts(&broker.read(&output)), 20, round);
        assert!(!words.contains("wiped"), "at \"{step}\": {words}");
    }
}

#[test]
fn a_store_in_doubt_is_built_anew() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let app = App::new(broker, &(table("") + &counter("counter", &input, &output))).on_disk();
    broker.produce(&input, events(50, 3));
    app.catch_up();
    harm(&app.state());
    broker.produce(&input, events(50, 1));
    let words = app.catch_up();
    assert!(words.contains("wiped and restored from changelogs"), "{words}");
    assert!(restored(&words).0 >= 50, "{words}");
    assert_all(&counts(&broker.read(&output)), 50, 4);
    std::fs::remove_dir_all(app.state()).expect("it is removed");
    broker.produce(&input, events(50, 1));
    app.catch_up();
    assert_all(&counts(&broker.read(&output)), 50, 5);
    broker.produce(&input, events(50, 1));
    assert_eq!(restored(&app.catch_up()).0, 0, "the new store holds everything");
}

#[test]
fn a_local_run_keeps_its_tables_in_the_state_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spec, input) = (folder.path().join("agents.yaml"), folder.path().join("in.jsonl"));
    std::fs::write(&spec, table("") + &counter("counter", "in", "out")).expect("written");
    std::fs::write(&input, "{\"k\": \"a\"}\n{\"k\": \"b\"}\n{\"k\": \"a\"}\n").expect("written");
    let run = |round: u64| {
        let mut command = command("kaspr-exec", &["run", "--local", "--quiet"]);
        command.arg(&spec).arg("--input").arg(format!("in={}", input.display()));
        command.arg("--state-dir").arg(folder.path().join("state"));
        command.arg("--output-dir").arg(folder.path().join(format!("out-{round}")));
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(folder.path().join(format!("out-{round}/tables/counts.jsonl"))).expect("a table")
    };
    for round in 1..4 {
        let lines = run(round);
        assert!(lines.contains(&(2 * round).to_string()) && lines.contains(&round.to_string()), "{round}: {lines}");
    }
}

/// Garbles every file in a folder.
fn harm(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            harm(&path);
        } else {
            std::fs::write(path, b"this is no database").expect("it is written");
        }
    }
}

#[test]
fn a_state_folder_has_one_process() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let app = App::new(broker, &(table("") + &counter("counter", &input, &output))).on_disk();
    let mut first = app.start(1, &[]);
    wait_until("the first worker", || app.words(1).contains("tables are kept on the disk"));
    let words = app.refused();
    first.kill().expect("it is killed");
    first.wait().expect("it ends");
    assert!(words.contains("is in use by another worker"), "{words}");
}

#[test]
fn a_hundred_thousand_keys_come_back() {
    const KEYS: u64 = 100_000;
    let broker = broker();
    let (input, output) = (broker.topic("in", 4), broker.topic("out", 4));
    let app =
        App::new(broker, &(table("") + &counter("counter", &input, &output))).on_disk().with(&["--instance", "one"]);
    broker.produce(&input, events(KEYS, 1));
    let mut worker = app.start(0, &[]);
    wait_until("all to be counted", || broker.lag(&app.name, &input) == 0);
    worker.kill().expect("it is killed");
    worker.wait().expect("it ends");
    broker.produce(&input, events(100, 1));
    let (records, ms_disk) = restored(&app.catch_up());
    assert!(records < KEYS / 10, "all but the last commit is on disk");
    std::fs::remove_dir_all(app.state()).expect("it is removed");
    broker.produce(&input, events(KEYS, 1));
    let (records, ms_log) = restored(&app.catch_up());
    assert!(records >= KEYS);
    let counts = counts(&broker.read(&output));
    assert_eq!((counts.len() as u64, counts["k-99"], counts["k-100"]), (KEYS, 3, 2));
    say(&format!(
        "{KEYS} keys are whole {ms_disk} ms after the partitions came with their store, {ms_log} ms without it"
    ));
}

#[allow(clippy::print_stderr, reason = "a figure for those who look")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[test]
fn partitions_that_do_not_fit_are_refused_before_the_first_event() {
    let broker = broker();
    let (two, three, output) = (broker.topic("in", 2), broker.topic("in", 3), broker.topic("out", 2));
    let both = counter("first", &two, &output) + &counter("second", &three, &output);
    let words = App::new(broker, &(table("") + &both)).refused();
    for needle in ["(2 partitions)", "(3)", "must have equal partition counts", "the changelog of table \"counts\""] {
        assert!(words.contains(needle), "{needle}: {words}");
    }
    let words = App::new(broker, &(table("partitions: 5") + &counter("first", &two, &output))).refused();
    assert!(words.contains("needs 2 partitions") && words.contains("the table says 5"), "{words}");
    let app = App::new(broker, &(table("") + &counter("first", &two, &output)));
    broker.named_topic(&app.changelog(), 7);
    let words = app.refused();
    assert!(words.contains("has 7 partitions and needs 2"), "{words}");
    let app = App::new(broker, &(table("global: true") + &both));
    app.catch_up();
    assert_eq!(broker.partitions(&app.changelog()), 1, "a global table's changelog has one");
}

#[test]
fn a_global_table_is_whole_on_every_worker() {
    let broker = broker();
    let (names, asked, output) = (broker.topic("names", 2), broker.topic("asked", 2), broker.topic("out", 1));
    let step = |name: &str, input: &str, body: &str| {
        format!(
            "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: {name}}}\nspec:\n  input:\n    topic: {{name: {input}}}\n  output:\n    \
             topics: [{{name: {output}}}]\n  processors:\n    pipeline: [step]\n    operations:\n      - name: step\n        \
             tables: [{{name: counts, paramName: table}}]\n        map:\n          python: |\n            def step(value, table):\n                {body}\n---\n"
        )
    };
    let specs = table("global: true")
        + &step("writer", &names, "table[value['k']] = value['v']; return ['wrote', value['k']]")
        + &step("reader", &asked, "return [value['k'], table.get(value['k']), context['event'].message.partition]");
    let app = App::new(broker, &specs).with(&["--kafka", "session.timeout.ms=3000"]);
    let mut workers: Vec<Child> = (0..2).map(|number| app.start(number, &[])).collect();
    // Asks in every partition until every answer is this one: other workers learn of a write in their turn.
    let know = |expected: &str| {
        wait_until(expected, || {
            let before = broker.count(&output);
            let question = |partition| Record { partition: Some(partition), ..Record::new("", "{\"k\": \"lamp\"}") };
            broker.produce(&asked, (0..2).map(question));
            wait_until("answers", || broker.lag(&app.name, &asked) == 0);
            let answers: Vec<String> =
                broker.read(&output).iter().filter(|record| record.offset >= before).map(Record::text).collect();
            (0..2).all(|partition| answers.contains(&format!("[\"lamp\", \"{expected}\", {partition}]")))
        });
    };
    let told = |key: &str, value: &str| {
        let record = format!("{{\"k\": \"{key}\", \"v\": \"{value}\"}}");
        broker.produce(&names, [Record { partition: Some(0), ..Record::new("", record) }]);
        wait_until("the write", || broker.lag(&app.name, &names) == 0);
    };
    told("lamp", "brass");
    know("brass");
    // A worker that comes later has read all of it before its first event.
    workers[0].kill().expect("it is killed");
    workers[0].wait().expect("it ends");
    workers[0] = app.start(0, &[]);
    told("lamp", "tin");
    know("tin");
    for worker in &mut workers {
        worker.kill().expect("it is killed");
        worker.wait().expect("it ends");
    }
}

#[test]
fn a_write_that_the_changelog_would_not_take_fails_its_event_alone() {
    let broker = broker();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let grows = "counts[value['k']] = counts.get(value['k'], 0) + 1\n                counts['pad'] = 'x' * (2_000_000 if value['k'] == 'k-1' else 1)";
    let specs = counter("counter", &input, &output);
    let specs = specs.replace("counts[value['k']] = counts.get(value['k'], 0) + 1", grows);
    let app = App::new(broker, &(table("") + &specs));
    broker.produce(&input, events(3, 2));
    let words = app.catch_up();
    assert!(words.contains("is larger than the changelog of the table \"counts\" takes"), "{words}");
    let counts = counts(&broker.read(&output));
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("k-0".to_owned(), 2), ("k-2".to_owned(), 2)], "{words}");
    let kept = broker.read(&app.changelog());
    assert!(kept.iter().all(|record| record.key.as_deref() != Some(b"\"k-1\"")), "nothing of the event is kept");
}
