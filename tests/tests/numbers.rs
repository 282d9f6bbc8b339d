//! The numbers of the summary: the columns add up to the totals, and the totals to what a run has left behind.

use std::collections::BTreeMap;
use std::path::Path;

use kaspr_tests::kafka::{Record, broker, unique};
use kaspr_tests::program::{run, stderr, stdout};
use serde_json::Value;

/// An agent in which each thing happens that is counted, one whose batches fail whole, and one behind a channel.
const SPECS: &str = r#"
apiVersion: kaspr.io/v1alpha1
kind: KasprTable
metadata: {name: seen}
spec: {valueSerializer: json}
---
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: shop}
spec:
  onError: {action: deadLetter, topic: dead}
  input: {topic: {name: in}}
  output:
    topics:
      - name: first
      - name: second
        predicate: {python: "def even(value): return value['n'] % 2 == 0"}
        # No serializer takes the key of event 14.
        keySelector: {python: "def key(value): return object() if value['n'] == 14 else 'k'"}
    channels: [{name: audit}]
  processors:
    pipeline: [few, price, call, spread]
    operations:
      - name: few
        filter: {python: "def few(value): return value['n'] % 10 != 3"}
      - name: price
        tables: [{name: seen, paramName: seen}]
        map:
          entrypoint: price
          python: |
            import asyncio
            async def price(value, seen):
                if value["n"] % 5 == 0:
                    await asyncio.sleep(0.001)
                if value["n"] % 4 == 0:
                    context["app"].send("side", value=value)
                seen["last"] = value["n"]
                if value["n"] == 8:
                    raise ValueError("no price")
                return value
      - name: call
        onError: {action: retry, attempts: 3, backoff: {initial: 1ms, jitter: 0}, then: skip}
        map:
          entrypoint: call
          python: |
            tries = {}
            def call(value):
                tries[value["n"]] = tries.get(value["n"], 0) + 1
                if value["n"] == 12 or value["n"] == 11 and tries[11] < 3:
                    raise OSError("busy")
                return value
      - name: spread
        map:
          entrypoint: spread
          python: |
            def spread(value):
                for part in range(3 if value["n"] == 1 else 1):
                    yield value
---
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: audit}
spec:
  input: {channel: {name: audit}}
  output:
    sinks: [{name: note, python: "def note(value): print(value)"}]
  processors: {pipeline: []}
---
apiVersion: kaspr.io/v1alpha1
kind: KasprAgent
metadata: {name: batches}
spec:
  onError: {action: skip}
  input: {topic: {name: in}, take: {max: 10, within: 10m}}
  output: {topics: [{name: sums}]}
  processors:
    pipeline: [sum]
    operations:
      - name: sum
        map:
          entrypoint: sum_up
          python: |
            def sum_up(values):
                numbers = [value["n"] for value in values]
                assert 25 not in numbers
                return sum(numbers)
"#;

/// The summary of a run, and what its columns add up to.
#[derive(Debug)]
struct Summary {
    totals: Value,
    rows: Vec<Value>,
}

impl Summary {
    fn of(log: &str) -> Summary {
        let objects = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is an object"));
        let totals = objects.into_iter().find(|line| line["message"] == "summary").expect("a summary");
        let rows = totals["operations"].as_array().expect("a list").clone();
        Summary { totals, rows }
    }

    fn total(&self, name: &str) -> u64 {
        self.totals[name].as_u64().expect("a number")
    }

    fn column(&self, name: &str) -> u64 {
        self.rows.iter().map(|row| row[name].as_u64().expect("a number")).sum()
    }

    /// Counts of an operation: in, out, filtered, failed, retried, awaited, records, dead letters.
    fn row(&self, agent: &str, operation: &str) -> [u64; 8] {
        let is_it = |row: &&Value| row["agent"] == agent && row["operation"] == operation;
        let row = self.rows.iter().find(is_it).unwrap_or_else(|| panic!("{agent} {operation}: {:#?}", self.rows));
        ["in", "out", "filtered", "failed", "retried", "awaited", "records", "deadLetters"]
            .map(|column| row[column].as_u64().expect("a number"))
    }

    /// Each total equals its column, and what came to a place has gone on, or it was held back or failed there.
    #[track_caller]
    fn adds_up(&self) {
        for name in ["records", "failed", "retried", "awaited", "deadLetters"] {
            assert_eq!(self.total(name), self.column(name), "{name}: {self:#?}");
        }
        let decoded = self.rows.iter().filter(|row| row["operation"] == "decode");
        let taken: u64 = decoded.map(|row| row["in"].as_u64().expect("a number")).sum();
        assert_eq!(self.total("events"), taken, "{self:#?}");
        for row in &self.rows {
            let [taken, given, filtered, failed] =
                ["in", "out", "filtered", "failed"].map(|name| row[name].as_u64().expect("a number"));
            // A batch is one value, and all of its events fail; a generator gives any number of values.
            if row["agent"] != "batches" && row["operation"] != "spread" {
                assert_eq!(taken, given + filtered + failed, "{row}");
            }
        }
    }
}

fn lines_of(path: &Path) -> u64 {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count() as u64)
}

/// Numbers from 0 on as lines, and one that does not decode.
fn events(count: u64) -> String {
    (0..count).map(|n| format!("{{\"n\":{n}}}\n")).chain(["no JSON\n".to_owned()]).collect()
}

/// A local run in a folder of its own: its exit status, its log, lines of each topic, and of failures.
fn play(specs: &str, lines: &str, more: &[&str]) -> (Option<i32>, String, BTreeMap<String, u64>, u64) {
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("specs.yaml"), specs).expect("a spec can be written");
    let [spec, out, failures] = ["specs.yaml", "out", "failures"].map(|name| path(name).display().to_string());
    let fixed = ["run", &spec, "--local", "--input", "in=-", "--output-dir", &out, "--failures", &failures];
    let output = run("kaspr-exec", &[&fixed[..], more].concat(), lines);
    assert_eq!(stdout(&output), "");
    let name = |topic: &str| path("out").join(format!("{topic}.jsonl"));
    let topics = ["first", "second", "side", "sums", "dead"].map(|topic| (topic.to_owned(), lines_of(&name(topic))));
    (output.status.code(), stderr(&output), BTreeMap::from(topics), lines_of(&path("failures")))
}

#[test]
fn columns_add_up_to_the_totals_and_to_what_is_left_behind() {
    let (status, log, topics, failures) = play(SPECS, &events(30), &["--log-format", "json"]);
    assert_eq!(status, Some(0), "{log}");
    let summary = Summary::of(&log);
    summary.adds_up();
    assert_eq!(summary.total("events"), 62, "31 events for each of two readers");
    let letters = topics["dead"];
    assert_eq!(summary.total("deadLetters"), letters, "{topics:?}");
    assert_eq!(summary.total("records"), topics.values().sum::<u64>() - letters, "{topics:?}");
    assert_eq!(summary.total("failed"), failures, "{log}");
    for (place, counts) in [
        (("shop", "decode"), [31, 30, 0, 1, 0, 0, 0, 1]),
        (("shop", "few"), [30, 27, 3, 0, 0, 0, 0, 0]),
        // Eight events send to "side"; of these two fail, and their records are not sent.
        (("shop", "price"), [27, 26, 0, 1, 0, 6, 6, 1]),
        // Events 11 and 12 are tried three times.
        (("shop", "call"), [26, 25, 0, 1, 4, 0, 0, 0]),
        (("shop", "spread"), [25, 27, 0, 0, 0, 0, 0, 0]),
        // The first output of event 14 passes, and is not sent, for the second fails.
        (("shop", "output:first"), [27, 27, 0, 0, 0, 0, 26, 0]),
        (("shop", "output:second"), [27, 12, 14, 1, 0, 0, 12, 1]),
        (("shop", "channel:audit"), [26, 26, 0, 0, 0, 0, 0, 0]),
        (("audit", "sink:note"), [26, 26, 0, 0, 0, 0, 0, 0]),
        (("batches", "decode"), [31, 30, 0, 1, 0, 0, 0, 0]),
        // Three batches of ten events come, and one with what does not decode has none left for the operation.
        (("batches", "sum"), [3, 2, 0, 10, 0, 0, 0, 0]),
        (("batches", "output:sums"), [2, 2, 0, 0, 0, 0, 2, 0]),
    ] {
        assert_eq!(summary.row(place.0, place.1), counts, "{place:?}: {log}");
    }
}

#[test]
fn a_halted_event_is_counted_once() {
    let lines = events(30);
    let halts = SPECS.replace("onError: {action: deadLetter, topic: dead}", "onError: {action: halt}");
    let retries = SPECS.replace("then: skip", "then: halt");
    for (specs, operation, counts, events) in
        [(&halts, "price", [8, 7, 0, 1, 0], 9), (&retries, "call", [11, 10, 0, 1, 4], 13)]
    {
        let (status, log, topics, failures) = play(specs, &lines, &["--log-format", "json"]);
        assert_eq!(status, Some(1), "{log}");
        let summary = Summary::of(&log);
        summary.adds_up();
        assert_eq!(summary.row("shop", "decode")[..4], [events, events, 0, 0], "{log}");
        assert_eq!(summary.row("shop", operation)[..5], counts, "{log}");
        // It is not recorded: it comes again.
        assert_eq!(summary.total("failed"), failures + 1, "{log}");
        assert_eq!(summary.total("records"), topics.values().sum::<u64>() - topics["dead"], "{log}");
    }
    let batches = SPECS.replace("onError: {action: skip}", "onError: {action: halt}");
    let (status, log, ..) = play(&batches, &lines, &["--log-format", "json"]);
    assert_eq!(status, Some(1), "{log}");
    let summary = Summary::of(&log);
    summary.adds_up();
    assert_eq!(summary.row("batches", "sum")[..4], [3, 2, 0, 10], "all events of the batch: {log}");
}

#[test]
fn the_text_has_the_same_numbers() {
    let (status, log, topics, failures) = play(SPECS, &events(30), &[]);
    assert_eq!(status, Some(0), "{log}");
    let table: Vec<&str> = log.lines().skip_while(|line| !line.starts_with("agent ")).collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let titles = words(table[0]);
    assert_eq!(titles[2..], ["in", "out", "filtered", "failed", "retried", "awaited", "records", "time"], "{log}");
    let (totals, rows) = table[1..].split_last().expect("the totals");
    let cell = |row: &str, column: usize| words(row)[column].replace(',', "").parse::<u64>().expect("a number");
    let column = |title: &str| {
        let at = titles.iter().position(|other| other == title).expect("a column");
        rows.iter().map(|row| cell(row, at)).sum::<u64>()
    };
    let decoded: u64 = rows.iter().filter(|row| words(row)[1] == "decode").map(|row| cell(row, 2)).sum();
    let [records, failed, retried, awaited] = ["records", "failed", "retried", "awaited"].map(column);
    let letters = topics["dead"];
    let expected = format!(
        "{decoded} events in, {records} records out, {failed} failed ({letters} dead letters), {retried} retried, {awaited} awaited, "
    );
    assert!(totals.starts_with(&expected), "{expected}\n{log}");
    assert_eq!((failed, records), (failures, topics.values().sum::<u64>() - letters), "{log}");
}

/// A transaction that the broker refuses is aborted, and its events run again: they count once.
#[test]
fn aborted_work_counts_once_on_kafka() {
    let broker = broker();
    let names = ["in", "first", "second", "side", "sums", "dead"].map(|name| (name, broker.topic(name, 1)));
    let topic = |name: &str| names.iter().find(|(one, _)| *one == name).map(|(_, topic)| topic.as_str()).expect("it");
    let mut specs = SPECS.to_owned();
    for (name, topic) in &names {
        for (before, after) in [("name: ", "}"), ("name: ", "\n"), ("topic: ", "}"), ("send(\"", "\"")] {
            specs = specs.replace(&format!("{before}{name}{after}"), &format!("{before}{topic}{after}"));
        }
    }
    // Its records have no keys: the broker takes none of them, however the events are committed.
    let compacted = [
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        topic("side"),
        "--add-config",
        "cleanup.policy=compact",
    ];
    broker.tool("kafka.admin.ConfigCommand", &compacted, "");
    let lines = events(30);
    broker.produce(topic("in"), lines.lines().map(|line| Record { key: None, ..Record::new("", line) }));
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = folder.path().join("specs.yaml");
    std::fs::write(&path, specs).expect("a spec can be written");
    let (path, app) = (path.display().to_string(), unique("numbers"));
    for guarantee in ["exactly-once", "at-least-once"] {
        let app = format!("{app}-{guarantee}");
        let arguments = ["run", &path, "--bootstrap-servers", &broker.servers, "--app", &app, "--until-caught-up"];
        let before: Vec<u64> = names.iter().map(|(_, topic)| broker.count(topic).cast_unsigned()).collect();
        let more = ["--log-format", "json", "--guarantee", guarantee];
        if guarantee == "at-least-once" {
            let plain = [
                "--alter",
                "--entity-type",
                "topics",
                "--entity-name",
                topic("side"),
                "--add-config",
                "cleanup.policy=delete",
            ];
            broker.tool("kafka.admin.ConfigCommand", &plain, "");
        }
        let output = run("kaspr-exec", &[&arguments[..], &more].concat(), "");
        let log = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{log}");
        let summary = Summary::of(&log);
        summary.adds_up();
        let sent: BTreeMap<&str, u64> = names
            .iter()
            .zip(before)
            .map(|((name, topic), before)| (*name, broker.count(topic).cast_unsigned() - before))
            .collect();
        let all: u64 = sent.values().sum();
        assert_eq!((summary.total("events"), summary.total("deadLetters")), (62, sent["dead"]), "{sent:?} {log}");
        assert_eq!(summary.total("records"), all - sent["dead"], "{sent:?} {log}");
        assert_eq!(log.contains("everything since the last commit runs again"), guarantee == "exactly-once", "{log}");
    }
}
