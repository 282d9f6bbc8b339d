//! Calls that do not end, events that end the process, and what a worker logs when it stands still.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use kaspr_tests::kafka::{Record, broker, unique};
use kaspr_tests::process;
use kaspr_tests::program::{command, run, stderr, stdout};
use serde_json::Value;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A function to which each value names something to do to its worker.
const NASTY: &str = r#"
import asyncio, ctypes, os, time

def step(value):
    if value == "exit" or isinstance(value, list) and "exit" in value:
        os._exit(9)
    if value == "segfault":
        ctypes.string_at(0)
    if value == "hold":
        ctypes.PyDLL(None).sleep(600)
    if value == "block":
        time.sleep(600)
    if value == "block later":
        return later(lambda: time.sleep(600))
    if value == "spin later":
        return later(spin)
    if value == "await":
        return asyncio.sleep(600)
    if value == "slow":
        time.sleep(15)
    return value

async def later(call):
    await asyncio.sleep(0.01)
    call()

def spin():
    while True:
        pass
"#;

/// An agent from `input` to `output` with that function, and whatever else its spec says.
fn agent(input: &str, output: &str, more: &str) -> String {
    let python: String = NASTY.lines().map(|line| format!("            {line}\n")).collect();
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: nasty}}\nspec:\n{more}\
         \x20 output: {{topics: [{{name: {output}}}]}}\n  processors:\n    pipeline: [step]\n    operations:\n      - name: step\n        \
         map:\n          entrypoint: step\n          python: |\n{python}"
    )
    .replace("INPUT", &format!("topic: {{name: {input}}}"))
}

const PLAIN: &str = "  timeout: 300ms\n  input: {INPUT}\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(spec: &str) -> Folder {
        let folder = tempfile::tempdir().expect("a folder is made");
        std::fs::write(folder.path().join("agent.yaml"), spec).expect("a spec can be written");
        Folder(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// One local run over `"a"`, the value, `"b"` with a state dir: its status, values, failures and words.
fn play(folder: &Folder, value: &str) -> (Option<i32>, Vec<String>, Vec<Value>, String) {
    let (spec, state, failures) = (folder.path("agent.yaml"), folder.path("state"), folder.path("failures"));
    let arguments = ["run", &spec, "--local", "--quiet", "--input", "in=-", "--state-dir", &state];
    let arguments = [&arguments[..], &["--failures", &failures]].concat();
    let output = run("kaspr-exec", &arguments, &format!("\"a\"\n\"{value}\"\n\"b\"\n"));
    let json = |line: &str| serde_json::from_str::<Value>(line).expect("a line is JSON");
    let values = stdout(&output).lines().map(|line| json(line)["value"].to_string()).collect();
    let failures = std::fs::read_to_string(&failures).unwrap_or_default();
    let failures = failures.lines().map(|line| json(line)["failure"].clone()).collect();
    (output.status.code(), values, failures, stderr(&output))
}

#[test]
fn an_event_that_ends_the_process_three_times_fails_alone() {
    for (value, status) in [("exit", Some(9)), ("segfault", None), ("hold", Some(75)), ("block later", Some(75))] {
        let folder = Folder::with(&agent("in", "out", PLAIN));
        for _ in 0..3 {
            let (ended, _, failures, words) = play(&folder, value);
            assert_eq!((ended, failures.len()), (status, 0), "{value}: {words}");
            let cause = "watchdog: agent \"nasty\", operation \"step\" on in/0@1 has blocked for";
            assert_eq!(words.contains(cause), status == Some(75), "{value}: {words}");
        }
        let (ended, values, failures, words) = play(&folder, value);
        assert_eq!((ended, &values[..]), (Some(0), &["\"a\"".to_owned(), "\"b\"".to_owned()][..]), "{value}: {words}");
        let [failure] = &failures[..] else { panic!("{value}: {failures:?}") };
        let field = |name: &str| failure[name].as_str().unwrap_or_default().to_owned();
        assert_eq!((field("kind"), field("operation")), ("ProcessCrash".to_owned(), "step".to_owned()));
        assert_eq!(failure["offset"], 1);
    }
}

#[test]
fn a_batch_that_ends_the_process_fails_as_one_unit() {
    let window = "  input: {INPUT, take: {max: 2, within: 10m}}\n";
    let folder = Folder::with(&agent("in", "out", window));
    for _ in 0..3 {
        assert_eq!(play(&folder, "exit").0, Some(9));
    }
    let (ended, values, failures, words) = play(&folder, "exit");
    assert_eq!((ended, &values[..]), (Some(0), &["[\"b\"]".to_owned()][..]), "{words}");
    let failed: Vec<_> = failures.iter().map(|failure| (failure["offset"].as_i64(), &failure["kind"])).collect();
    assert_eq!(failed, [(Some(0), &Value::from("ProcessCrash")), (Some(1), &Value::from("ProcessCrash"))]);
    assert!(
        words.contains(
            "in/0@0: the last process ended here (a batch of 2 events): crash 3, it is not run again and fails"
        ),
        "{words}"
    );
}

#[test]
fn what_can_be_interrupted_fails_without_ending_the_process() {
    let folder = Folder::with(&agent("in", "out", PLAIN));
    let (ended, values, failures, words) = play(&folder, "spin later");
    assert_eq!((ended, values.len(), failures.len()), (Some(0), 2, 1), "{words}");
    assert_eq!((&failures[0]["kind"], &failures[0]["operation"]), (&"Timeout".into(), &"step".into()));
    assert_eq!(failures[0]["message"], "the call took longer than 300ms");
    let at = failures[0]["at"].as_str().unwrap_or_default();
    assert!(at.starts_with(&folder.path("agent.yaml")), "the line where it was interrupted: {at}");
}

/// A local run that waits for more input.
struct Waiting {
    child: Child,
    stdin: Option<ChildStdin>,
    words: std::path::PathBuf,
}

impl Waiting {
    fn start(folder: &Folder, lines: &str, flags: &[&str]) -> Waiting {
        let words = Path::new(&folder.path("words")).to_owned();
        let log = std::fs::File::create(&words).expect("a log");
        let spec = folder.path("agent.yaml");
        let mut command = command("kaspr-exec", &["run", &spec, "--local", "--quiet", "--input", "in=-"]);
        let mut child = start(command.args(flags).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log));
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(lines.as_bytes()).expect("it reads");
        Waiting { child, stdin: Some(stdin), words }
    }

    fn words(&self) -> String {
        std::fs::read_to_string(&self.words).unwrap_or_default()
    }

    /// Waits for a line with these words; `…` stands for any.
    #[track_caller]
    fn wait_for(&self, words: &str) {
        let says = |line: &str| {
            let rest = words.split('…').try_fold(line, |rest, part| rest.split_once(part).map(|(_, rest)| rest));
            rest.is_some()
        };
        wait_until_or(words, &|| self.words(), || self.words().lines().any(says));
    }

    /// Asks for the status until the worker itself gives it: a thread that looks answers for a worker that
    /// takes long.
    fn status(&self) -> Value {
        loop {
            let status = self.any_status();
            if status.get("partitions").is_some() {
                return status;
            }
        }
    }

    /// Asks for the status, from the worker's thread or the watchdog.
    fn any_status(&self) -> Value {
        let before = self.words().matches("{\"status\":").count();
        signal(&self.child, libc::SIGUSR1);
        wait_until("the status", || {
            let words = self.words();
            words.matches("{\"status\":").count() > before && words.ends_with('\n')
        });
        let words = self.words();
        let line = words.lines().rfind(|line| line.starts_with("{\"status\":")).expect("a line");
        serde_json::from_str::<Value>(line).expect("it is JSON")["status"].take()
    }

    fn end(mut self) -> Option<i32> {
        drop(self.stdin.take());
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn start(command: &mut Command) -> Child {
    command.spawn().expect("kaspr-exec starts")
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so the number is its own.
    unsafe { libc::kill(i32::try_from(child.id()).expect("a process number"), signal) };
}

#[allow(clippy::disallowed_methods, reason = "these tests wait for processes")]
fn now() -> Instant {
    Instant::now()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_until_or(what, &String::new, &mut is_so);
}

/// As above; a test that waits in vain shows what was logged.
#[track_caller]
fn wait_until_or(what: &str, said: &dyn Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let began = now();
    while !is_so() {
        assert!(now() - began < PATIENCE, "waited {PATIENCE:?} for {what}\n{}", said());
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn an_open_window_is_a_stall_with_a_name_and_stands_in_the_status() {
    let window = "  input: {INPUT, take: {max: 3, within: 10m}}\n";
    let folder = Folder::with(&agent("in", "out", window));
    let mut run = Waiting::start(&folder, "1\n2\n", &["--stall-after", "1s"]);
    run.wait_for(
        "reader \"nasty\": in/0@0: stands still for … s, 2 behind: an open window holds 2 events for another 5",
    );
    let status = run.status();
    let partition = &status["partitions"][0];
    assert_eq!((&partition["topic"], &partition["high"]), (&"in".into(), &2.into()), "{status}");
    let reader = &partition["readers"][0];
    assert_eq!((&reader["taken"], &reader["done"]), (&2.into(), &0.into()), "{status}");
    assert!(
        reader["holds"].as_str().is_some_and(|holds| holds.starts_with("an open window holds 2 events")),
        "{status}"
    );
    // Long enough for a line that came again.
    std::thread::park_timeout(Duration::from_secs(1));
    run.stdin.as_mut().expect("it is open").write_all(b"3\n").expect("it reads");
    run.wait_for("reader \"nasty\": in/0: goes on after");
    let status = run.status();
    let step = status["steps"].as_array().expect("a list").iter().find(|step| step["operation"] == "step");
    let step = step.expect("the operation has a row");
    assert_eq!((&step["in"], &step["out"], &step["failed"]), (&1.into(), &1.into(), &0.into()), "{status}");
    assert_eq!(run.words().matches(" stands still ").count(), 1, "one line a stall: {}", run.words());
    assert_eq!(run.end(), Some(0));
}

#[test]
fn back_off_and_awaits_are_told() {
    let retries =
        "  onError: {action: retry, attempts: 9, backoff: {initial: 10m}}\n  timeout: 200s\n  input: {INPUT}\n";
    let folder = Folder::with(&agent("in", "out", retries));
    let run = Waiting::start(&folder, "not JSON\n", &["--stall-after", "1s"]);
    run.wait_for("in/0@0: stands still for … s, 1 behind: offset 0 failed 1 times and is tried again in ");
    drop(run);
    let run = Waiting::start(&folder, "\"await\"\n", &["--stall-after", "1s"]);
    run.wait_for("1 behind: agent \"nasty\", operation \"step\" has been awaiting for ");
}

#[test]
fn a_call_that_keeps_the_worker_is_told_and_stands_in_the_status() {
    let folder = Folder::with(&agent("in", "out", "  input: {INPUT}\n"));
    let run = Waiting::start(&folder, "\"slow\"\n", &["--stall-after", "1s"]);
    run.wait_for("agent \"nasty\", operation \"step\" has not returned for … s on in/0@0: this worker stands still");
    let running = &run.any_status()["running"];
    assert_eq!((&running["operation"], &running["on"]), (&"step".into(), &"in/0@0".into()), "{running}");
    run.wait_for("the worker goes on");
    assert_eq!(run.status()["completed"], 1);
    assert_eq!(run.end(), Some(0));
}

#[test]
fn the_last_failures_stand_in_the_status() {
    let folder = Folder::with(&agent("in", "out", PLAIN));
    let run = Waiting::start(&folder, &"{\n".repeat(30), &[]);
    wait_until("the failures", || run.words().contains(": more failed like this, this one last: Decode: "));
    let status = run.status();
    let offsets: Vec<i64> = status["failures"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|failure| failure["offset"].as_i64())
        .collect();
    assert_eq!(offsets, (10..30).collect::<Vec<_>>(), "{status}");
    assert_eq!(run.end(), Some(0));
}

#[test]
fn an_event_that_runs_when_the_process_is_told_to_end_is_not_to_blame() {
    let folder = Folder::with(&agent("in", "out", "  input: {INPUT}\n"));
    let state = folder.path("state");
    for _ in 0..4 {
        let mut run = Waiting::start(&folder, "\"block\"\n", &["--state-dir", &state, "--stall-after", "200ms"]);
        run.wait_for("has not returned for");
        process::terminate(run.child.id());
        process::terminate(run.child.id());
        assert_eq!(run.child.wait().expect("it ends").code(), Some(75));
        assert!(!run.words().contains("the last process ended"), "{}", run.words());
    }
}

#[test]
fn on_kafka_an_event_that_kills_the_process_becomes_a_dead_letter_and_the_others_go_on() {
    poison("exit");
}

#[test]
fn on_kafka_a_call_that_blocks_becomes_a_dead_letter_and_the_others_go_on() {
    poison("hold");
}

fn poison(value: &str) {
    let broker = broker();
    let (input, output, dead) = (broker.topic("in", 2), broker.topic("out", 2), broker.topic("dead", 1));
    let more = format!("  onError: {{action: deadLetter, topic: {dead}}}\n{PLAIN}");
    let folder = Folder::with(&agent(&input, &output, &more));
    let (spec, state) = (folder.path("agent.yaml"), folder.path("state"));
    let words = Path::new(&folder.path("words")).to_owned();
    let log = std::fs::File::create(&words).expect("a log");
    let instance = unique("pod");
    let mut command = command("kaspr-exec", &["run", &spec, "--bootstrap-servers", &broker.servers]);
    command.args(["--app", &format!("app-{value}-{instance}"), "--instance", &instance, "--state-dir", &state]);
    // The supervisor starts again every worker that ends.
    command.args(["--workers", "2"]);
    let mut supervisor = start(command.stdout(Stdio::null()).stderr(log));
    let said = || std::fs::read_to_string(&words).unwrap_or_default();
    wait_until_or("both partitions", &said, || said().matches("started").count() >= 2);
    let record = |partition: i32, text: &str| Record {
        partition: Some(partition),
        ..Record::new(format!("{partition}"), format!("\"{text}\""))
    };
    let poison = (0..100).map(|n| if n == 50 { record(0, value) } else { record(0, &format!("p{n}")) });
    broker.produce(&input, poison.chain((0..100).map(|n| record(1, &format!("q{n}")))));
    wait_until_or("the dead letter and the others", &said, || {
        !broker.read(&dead).is_empty() && broker.read(&output).len() >= 199
    });
    process::terminate(supervisor.id());
    let status = supervisor.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", said());
    let letter = broker.read(&dead).pop().expect("it was just seen");
    let header = |name: &str| {
        let found = letter.headers.iter().find(|(header, _)| header == name).and_then(|(_, value)| value.clone());
        String::from_utf8(found.unwrap_or_default()).expect("it is text")
    };
    assert_eq!((header("kaspr.dlq.kind"), letter.text()), ("ProcessCrash".to_owned(), format!("\"{value}\"")));
    assert_eq!(broker.read(&dead).len(), 1);
    let values = broker.read(&output);
    let mut texts: Vec<String> = values.iter().map(Record::text).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!((values.len(), texts.len()), (199, 199), "each once: {}", said());
    let is_crash = |line: &&str| line.contains("agent \"nasty\": operation \"step\"") && line.contains("ended here");
    assert_eq!(said().lines().filter(is_crash).count(), 3, "{}", said());
}

#[test]
fn on_kafka_quiet_partitions_are_no_stall() {
    let broker = broker();
    let (input, between, output) = (broker.topic("in", 2), broker.topic("between", 2), broker.topic("out", 2));
    // The first agent's transactions leave markers at the ends of what the second reads.
    let second = agent(&between, &output, "  input: {INPUT}\n").replace("name: nasty", "name: second");
    let folder = Folder::with(&format!("{}---\n{second}", agent(&input, &between, "  input: {INPUT}\n")));
    let words = Path::new(&folder.path("words")).to_owned();
    let log = std::fs::File::create(&words).expect("a log");
    let mut command = command("kaspr-exec", &["run", &folder.path("agent.yaml"), "--stall-after", "1s"]);
    command.args(["--bootstrap-servers", &broker.servers, "--app", &unique("app")]).stdout(Stdio::null()).stderr(log);
    let mut member = start(&mut command);
    broker.produce(&input, (0..10).map(|n| Record::new(format!("{n}"), format!("{n}"))));
    let said = || std::fs::read_to_string(&words).unwrap_or_default();
    wait_until_or("the records", &said, || broker.read(&output).len() == 10);
    // A pause by a slow start does not matter.
    std::thread::park_timeout(Duration::from_secs(1));
    let from = said().len();
    std::thread::park_timeout(Duration::from_secs(4));
    signal(&member, libc::SIGUSR1);
    wait_until_or("the status", &said, || said().contains("{\"status\":"));
    process::terminate(member.id());
    assert_eq!(member.wait().expect("it ends").code(), Some(0), "{}", said());
    assert!(!said()[from..].contains(" stands still "), "{}", said());
    let words = said();
    let line = words.lines().find(|line| line.starts_with("{\"status\":")).expect("a line");
    let status = serde_json::from_str::<Value>(line).expect("it is JSON")["status"].take();
    let readers = status["partitions"].as_array().expect("a list").iter();
    let ends = readers.map(|partition| (&partition["high"], &partition["readers"][0]["done"]));
    assert!(ends.clone().count() == 4 && ends.clone().all(|(high, done)| high == done), "{status}");
    assert_eq!(status["completed"], 20, "{status}");
}
