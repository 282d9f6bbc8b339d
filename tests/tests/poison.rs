//! Events that would stop an app or harm what is around it: each fails alone, whatever it holds.
#![allow(clippy::disallowed_methods, reason = "a real broker takes real time")]

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kaspr_tests::kafka::{Broker, Record, unique};
use kaspr_tests::process;
use kaspr_tests::program::{command, run, stderr, stdout};
use serde_json::Value;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// An agent whose function gives topic and value of each record that it sends.
fn sorter(input: &str) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: sorter}}\nspec:\n  input: {{topic: {{name: {input}}}}}\n\
         \x20 output:\n    topics:\n      - nameSelector:\n          python: |\n            def name(value): return value['topic']\n"
    )
}

/// An agent that counts events by key, and sends what it counted.
fn counter(input: &str, output: &str) -> String {
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {{name: counts}}\nspec: {{keySerializer: json}}\n---\n\
         apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: counter}}\nspec:\n  input: {{topic: {{name: {input}}}}}\n\
         \x20 output: {{topics: [{{name: {output}}}]}}\n  processors:\n    pipeline: [count]\n    operations:\n      - name: count\n        \
         tables: [{{name: counts, paramName: counts}}]\n        map:\n          entrypoint: count\n          python: |\n            \
         def count(value, counts):\n                if value['n'] % 10 == 3:\n                    counts['all'] = value['n']\n                return value\n"
    )
}

/// One line of input that names the topic of its output.
fn to(topic: &str, n: usize) -> String {
    format!("{}\n", serde_json::json!({"topic": topic, "n": n}))
}

struct Played {
    files: Vec<String>,
    failures: Vec<Value>,
    log: String,
}

/// Runs a spec on lines of the topic `in`; what it writes goes to `out` in a folder of its own.
fn play(spec: &str, lines: &str, flags: &[&str]) -> Played {
    let folder = tempfile::tempdir().expect("a folder is made");
    let (spec_file, inner) = (folder.path().join("agent.yaml"), folder.path().join("inner"));
    std::fs::create_dir(&inner).expect("a folder is made");
    std::fs::write(&spec_file, spec).expect("a spec can be written");
    let (out, failures) = (inner.join("out"), folder.path().join("failures.jsonl"));
    let text = |path: &PathBuf| path.display().to_string();
    let (spec_file, out, failures) = (text(&spec_file), text(&out), text(&failures));
    let fixed = ["run", &spec_file, "--local", "--quiet", "--app", "shop", "--input", "in=-", "--output-dir", &out];
    let output = run("kaspr-exec", &[&fixed[..], &["--failures", &failures], flags].concat(), lines);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    let mut files = Vec::new();
    walk(folder.path(), &mut files);
    let prefix = format!("{}/", folder.path().display());
    files.retain(|file| file.ends_with(".jsonl"));
    let files = files.iter().map(|file| file.trim_start_matches(&prefix).to_owned()).collect();
    let failures = std::fs::read_to_string(&failures).expect("failures are written");
    let failures = failures.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["failure"].clone());
    Played { files, failures: failures.collect(), log: stderr(&output) }
}

fn walk(folder: &std::path::Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => walk(&path, files),
            false => files.push(path.display().to_string()),
        }
    }
    files.sort();
}

#[test]
fn names_from_payloads_lead_to_no_other_folder() {
    let escape = tempfile::tempdir().expect("a folder is made");
    let absolute = escape.path().join("evil").display().to_string();
    let long = "x".repeat(250);
    let own = "shop-counts-changelog";
    let bad = ["../evil", "..", ".", &absolute, "a/b", "nul\0byte", "", "ü", &long, own, "__consumer_offsets"];
    let longest = "y".repeat(249);
    let lines: String = ["fine", &longest].iter().chain(&bad).chain(&["fine"]).map(|name| to(name, 1)).collect();
    let spec =
        format!("{}---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {{name: counts}}\n", sorter("in"));
    let played = play(&spec, &lines, &[]);
    let failed: Vec<_> = played.failures.iter().map(|failure| failure["offset"].as_u64().unwrap_or(99)).collect();
    assert_eq!(failed, (2..2 + bad.len() as u64).collect::<Vec<_>>(), "{}", played.log);
    assert!(played.failures.iter().all(|failure| failure["kind"] == "Topic"), "{:?}", played.failures);
    let expected = ["failures.jsonl".to_owned(), "inner/out/fine.jsonl".to_owned()];
    let tables = "inner/out/tables/counts.jsonl".to_owned();
    let expected = [&expected[..], &[tables, format!("inner/out/{longest}.jsonl")]].concat();
    assert_eq!(played.files, expected);
    assert_eq!(std::fs::read_dir(escape.path()).expect("it is there").count(), 0, "nothing is written elsewhere");
}

#[test]
fn inputs_have_names_that_kafka_can_hold() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let spec = folder.path().join("agent.yaml");
    let reads_all = sorter("in").replace("{name: in}", "{pattern: '.*'}");
    std::fs::write(&spec, reads_all).expect("a spec can be written");
    let output = run("kaspr-exec", &["run", &spec.display().to_string(), "--local", "--input", "../in=-"], "{}\n");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("\"../in\" is not the name of a topic"), "{}", stderr(&output));
}

/// An agent whose function raises what its event says.
const RAISES: &str = "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {name: raises}\nspec:\n  input: {topic: {name: in}}\n  \
     output: {topics: [{name: out}]}\n  processors:\n    pipeline: [step]\n    operations:\n      - name: step\n        map:\n          \
     entrypoint: step\n          python: |\n            import logging\n            def step(value):\n                \
     if value == 'log':\n                    try:\n                        raise KeyError('inner')\n                    \
     except KeyError:\n                        logging.exception('it\\n2026-01-01T00:00:00Z ERROR forged by logging')\n                    \
     return value\n                raise type('Evil\\n2026-01-01T00:00:00Z ERROR forged', (ValueError,), {})(value)\n";

/// The lines of a log that are no continuation of the line before them: each begins with a time.
fn assert_no_line_is_forged(log: &str) {
    for line in log.lines().filter(|line| !line.starts_with("    ")) {
        let rest = line.split_once("Z ").map_or("", |(_, rest)| rest.trim_start());
        let level = ["INFO ", "WARN ", "ERROR "].iter().find_map(|level| rest.strip_prefix(level));
        assert!(level.is_some_and(|message| !message.starts_with("forged")), "{line}\nin:\n{log}");
    }
}

#[test]
fn text_of_an_exception_begins_no_line_of_the_log() {
    let evil = "boom\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2Jgone\u{2028}";
    let lines = [evil, "log"].map(|text| format!("{}\n", serde_json::json!(text))).concat();
    let played = play(RAISES, &lines, &[]);
    assert_eq!(played.failures.len(), 1, "{}", played.log);
    assert!(played.failures[0]["message"].as_str().is_some_and(|message| message == evil), "records keep the text");
    assert_no_line_is_forged(&played.log);
    assert!(!played.log.contains(['\r', '\u{1b}', '\u{2028}']), "{:?}", played.log);
    assert!(played.log.contains("    Traceback (most recent call last):"), "{}", played.log);
    let played = play(RAISES, &lines, &["--log-format", "json"]);
    for line in played.log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(event["level"].is_string() && event["timestamp"].is_string() && event["message"].is_string(), "{line}");
    }
    assert_eq!(played.log.matches("\"traceback\":").count(), 2, "{}", played.log);
}

#[test]
fn a_long_message_is_logged_once_and_cut() {
    let mark = "unmistakable";
    let long = format!("{mark} {}", "x".repeat(200_000));
    for format in ["text", "json"] {
        let played = play(RAISES, &format!("{}\n", serde_json::json!(long)), &["--log-format", format]);
        assert_eq!(played.log.matches(mark).count(), 1, "{}", played.log);
        assert!(played.log.len() < 8_000, "{} bytes: {}", played.log.len(), played.log);
    }
}

#[test]
fn a_failure_that_halts_forges_nothing() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let spec = folder.path().join("agent.yaml");
    std::fs::write(&spec, RAISES.replace("spec:\n", "spec:\n  onError: {action: halt}\n")).expect("written");
    let line = format!("{}\n", serde_json::json!("boom\nerror: forged"));
    let output =
        run("kaspr-exec", &["run", &spec.display().to_string(), "--local", "--quiet", "--input", "in=-"], &line);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!stderr(&output).lines().any(|line| line.starts_with("error: forged")), "{}", stderr(&output));
}

/// A run on Kafka as user bob, whose permissions are checked.
struct Run<'a> {
    broker: &'a Broker,
    folder: tempfile::TempDir,
    app: String,
}

impl<'a> Run<'a> {
    fn new(broker: &'a Broker, spec: &str) -> Run<'a> {
        let folder = tempfile::tempdir().expect("a folder is made");
        std::fs::write(folder.path().join("agents.yaml"), spec).expect("a spec can be written");
        Run { broker, folder, app: unique("app") }
    }

    fn start(&self, flags: &[&str]) -> Child {
        let mut command = command("kaspr-exec", &["run"]);
        command.arg(self.folder.path().join("agents.yaml")).args(["--app", &self.app]).args(flags);
        command.args(["--bootstrap-servers", &self.broker.with_passwords()]);
        for setting in [
            "security.protocol=sasl_plaintext",
            "sasl.mechanisms=PLAIN",
            "sasl.username=bob",
            "sasl.password=bobs-secret",
        ] {
            command.args(["--kafka", setting]);
        }
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts")
    }

    fn words(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Takes bob's right to write a topic away.
    fn revoke_write(&self, topic: &str) {
        let allow =
            ["--add", "--force", "--allow-principal", "User:bob", "--operation", "Describe", "--operation", "Read"];
        self.broker.tool("org.apache.kafka.tools.AclCommand", &[&allow[..], &["--topic", topic]].concat(), "");
    }

    /// Lines of the log that report failures, and the number of these.
    fn failed(&self) -> (Vec<String>, u64) {
        let words = self.words();
        let count = |line: &str| {
            let (_, more) = line.rsplit_once(" count=")?;
            more.split(' ').next().and_then(|more| more.parse().ok())
        };
        let is_failure = |line: &&str| line.contains(": failed: ") || line.contains(": more failed like this");
        let lines: Vec<String> = words.lines().filter(is_failure).map(str::to_owned).collect();
        let failures = lines.iter().map(|line| count(line).unwrap_or(1)).sum();
        (lines, failures)
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}\n{}", self.words());
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

fn terminate(mut child: Child) -> Option<i32> {
    process::terminate(child.id());
    child.wait().expect("it ends").code()
}

fn numbers(records: &[Record]) -> Vec<u64> {
    let number = |record: &Record| serde_json::from_str::<Value>(&record.text()).expect("JSON")["n"].as_u64();
    let mut numbers: Vec<u64> = records.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn topics_that_are_not_for_users_fail_their_events_alone() {
    let broker = Broker::start();
    let (input, output) = (broker.topic("in", 2), broker.topic("out", 2));
    let run = Run::new(&broker, &format!("{}---\n{}", sorter(&input), counter(&input, &output)));
    let changelog = format!("{}-counts-changelog", run.app);
    let bad = ["__consumer_offsets", "__transaction_state", &changelog, "../evil", "a b", ""];
    let line = |n: usize| to(bad.get(n % 10).filter(|_| n < 60).map_or(output.as_str(), |bad| bad), n);
    broker.produce(&input, (0..100).map(|n| Record::new(format!("k{n}"), line(n))));
    let status = run.start(&["--until-caught-up"]).wait().expect("it ends").code();
    assert_eq!(status, Some(0), "{}", run.words());
    assert_eq!(run.failed().1, 36, "{}", run.words());
    assert!(!run.words().contains("done again"), "nothing of it reaches a transaction\n{}", run.words());
    let sorted = (0..100_u64).filter(|n| *n >= 60 || n % 10 >= 6);
    let mut expected: Vec<u64> = sorted.chain(0..100).collect();
    expected.sort_unstable();
    assert_eq!(numbers(&broker.read(&output)), expected, "{}", run.words());
}

#[test]
fn a_permission_that_is_taken_away_fails_the_events_that_need_it() {
    let broker = Broker::start();
    let (input, fine, shut) = (broker.topic("in", 2), broker.topic("fine", 1), broker.topic("shut", 1));
    let run = Run::new(&broker, &sorter(&input));
    let member = run.start(&[]);
    let line = |n: usize| to(if n % 10 == 3 { &shut } else { &fine }, n);
    let records = |numbers: std::ops::Range<usize>| numbers.map(|n| Record::new(format!("k{n}"), line(n)));
    broker.produce(&input, records(0..100));
    run.wait_until("the first records", || broker.count(&fine) == 90 && broker.count(&shut) == 10);
    run.revoke_write(&shut);
    broker.produce(&input, records(100..200));
    run.wait_until("the others", || broker.lag(&run.app, &input) == 0 && broker.count(&fine) == 180);
    assert_eq!(terminate(member), Some(0), "{}", run.words());
    let (failed, count) = run.failed();
    assert_eq!(count, 10, "{}", run.words());
    assert!(failed.iter().all(|line| line.contains(&shut) && !line.contains(&fine)), "{failed:?}");
    assert_eq!(broker.count(&shut), 10);
    assert!(!run.words().contains("Purge"), "victims are not named\n{}", run.words());
    assert!(run.words().matches("done again").count() <= 20, "{}", run.words());
}

#[test]
fn a_changelog_that_may_not_be_written_fails_the_events_that_change_its_table() {
    let broker = Broker::start();
    let (input, output) = (broker.topic("in", 1), broker.topic("out", 1));
    let run = Run::new(&broker, &counter(&input, &output));
    let member = run.start(&[]);
    let records = |numbers: std::ops::Range<usize>| numbers.map(|n| Record::new(format!("k{n}"), to("-", n)));
    broker.produce(&input, records(0..100));
    run.wait_until("the first records", || broker.count(&output) == 100);
    let changelog = format!("{}-counts-changelog", run.app);
    run.revoke_write(&changelog);
    broker.produce(&input, records(100..200));
    run.wait_until("the others", || broker.lag(&run.app, &input) == 0);
    assert_eq!(terminate(member), Some(0), "{}", run.words());
    let (failed, count) = run.failed();
    assert_eq!(count, 10, "{}", run.words());
    assert!(failed.iter().all(|line| line.contains(&changelog) && line.contains("authorization")), "{failed:?}");
    let expected: Vec<u64> = (0..200).filter(|n| *n < 100 || n % 10 != 3).collect();
    assert_eq!(numbers(&broker.read(&output)), expected, "{}", run.words());
}
