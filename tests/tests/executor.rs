//! The limits of user code towards its worker, and the user's own tests.
#![allow(clippy::disallowed_methods, reason = "these tests feed and measure in real time")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Instant;

use kaspr_tests::program::{command, run, said_of_tests, stderr, stdout};
use serde_json::Value;

/// An agent from `in` to `out` with one map, and whatever else its spec says.
fn agent(name: &str, input: &str, more: &str, python: &str) -> String {
    let python: String = python.lines().map(|line| format!("            {line}\n")).collect();
    format!(
        "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: {name}}}\nspec:\n{more}  input: {{topic: {{name: \
         {input}}}}}\n  output: {{topics: [{{name: {input}-out}}]}}\n  processors:\n    pipeline: [step]\n    operations:\n      - \
         name: step\n        map:\n          entrypoint: step\n          python: |\n{python}"
    )
}

struct Ran {
    records: Vec<Value>,
    values: Vec<Value>,
    failures: Vec<(i64, String)>,
    messages: Vec<String>,
    log: String,
    seconds: f64,
}

/// Runs a spec on the lines of `in`.
fn play(spec: &str, lines: &str) -> Ran {
    let folder = tempfile::tempdir().expect("a folder is made");
    let (path, failures) = (folder.path().join("agent.yaml"), folder.path().join("failures.jsonl"));
    std::fs::write(&path, spec).expect("a spec can be written");
    let (path, failures) = (path.display().to_string(), failures.display().to_string());
    let start = Instant::now();
    let output =
        run("kaspr-exec", &["run", &path, "--local", "--quiet", "--input", "in=-", "--failures", &failures], lines);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let seconds = start.elapsed().as_secs_f64();
    let json = |line: &str| serde_json::from_str::<Value>(line).expect("a line is JSON");
    let records: Vec<Value> = stdout(&output).lines().map(json).collect();
    let values = records.iter().map(|record| record["value"].clone()).collect();
    let lines = std::fs::read_to_string(&failures).expect("failures are written");
    let failed: Vec<Value> = lines.lines().map(|line| json(line)["failure"].clone()).collect();
    let text = |failure: &Value, name: &str| failure[name].as_str().unwrap_or_default().to_owned();
    let messages = failed.iter().map(|failure| text(failure, "message")).collect();
    let failures = failed.iter().map(|failure| (failure["offset"].as_i64().unwrap_or(-1), text(failure, "kind")));
    Ran { records, values, failures: failures.collect(), messages, log: stderr(&output), seconds }
}

fn failed(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
    expected.iter().map(|(offset, kind)| (*offset, (*kind).to_owned())).collect()
}

const SLOW: &str = r#"
import asyncio, time

def step(value):
    if value == "spin":
        while True:
            try:
                sum(range(100))
            except Exception:
                pass
    if value == "sleep":
        time.sleep(0.6)
    if value == "await":
        return asyncio.sleep(30)
    if value == "blocks":
        return blocks()
    if value == "generator":
        return generator()
    return value

async def blocks():
    while True:
        pass

def generator():
    yield 1
    while True:
        pass
"#;

#[test]
fn a_call_that_takes_too_long_fails_alone() {
    let lines = "\"a\"\n\"spin\"\n\"b\"\n\"sleep\"\n\"c\"\n\"await\"\n\"d\"\n\"blocks\"\n\"e\"\n\"generator\"\n\"f\"\n";
    let ran = play(&agent("slow", "in", "  timeout: 300ms\n", SLOW), lines);
    assert_eq!(ran.failures, failed(&[1, 3, 5, 7, 9].map(|offset| (offset, "Timeout"))), "{}", ran.log);
    assert_eq!(ran.values, ["a", "b", "c", "d", "e", "f"].map(Value::from));
    assert!(ran.log.contains("Timeout: the call took longer than 300ms"), "{}", ran.log);
}

const NASTY: &str = r#"
import sys

def step(value):
    kind = value["kind"]
    if kind == "exit":
        sys.exit(3)
    if kind == "deep":
        return step(value)
    if kind == "print":
        print("x" * (1 << 20))
    if kind == "generator":
        return half_way()
    if kind == "async generator":
        return half_way_async()
    if kind == "interrupt":
        raise KeyboardInterrupt()
    if kind == "base":
        raise BaseException("any")
    if kind == "change":
        value.clear()
        value["changed"] = True
    return value

def half_way():
    yield {"kind": "lost"}
    raise ValueError("half-way")

async def half_way_async():
    yield {"kind": "lost"}
    raise KeyError("half-way")
"#;

#[test]
fn whatever_user_code_raises_is_a_failure_of_its_event() {
    let kinds =
        ["fine", "exit", "deep", "print", "generator", "async generator", "interrupt", "base", "change", "fine"];
    let lines: String = kinds.iter().map(|kind| format!("{{\"kind\": \"{kind}\"}}\n")).collect();
    let ran = play(&agent("nasty", "in", "", NASTY), &lines);
    let expected = [
        (1, "SystemExit"),
        (2, "RecursionError"),
        (4, "ValueError"),
        (5, "KeyError"),
        (6, "KeyboardInterrupt"),
        (7, "BaseException"),
    ];
    assert_eq!(ran.failures, failed(&expected));
    let kinds: Vec<&str> = ran.values.iter().map(|value| value["kind"].as_str().unwrap_or("changed")).collect();
    assert_eq!(kinds, ["fine", "print", "changed", "fine"]);
    assert!(ran.log.len() > 1 << 20, "what is printed is logged");
}

const LARGE: &str = r#"
def step(value):
    if value == "message":
        raise ValueError("é" * 1000)
    if value == "record":
        return "x" * (2 << 20)
    return deep(50, value)

def deep(depth, value):
    if depth:
        return deep_too(depth - 1, value)
    raise LookupError("deep")

def deep_too(depth, value):
    return deep(depth, value)
"#;

#[test]
fn what_is_too_large_is_cut_or_fails() {
    // The dead letter of the last fits without its traceback only.
    let large = "x".repeat((1 << 20) - 2000);
    let lines = format!("\"message\"\n\"record\"\n\"{large}\"\n");
    let ran = play(&agent("large", "in", "  onError: {action: deadLetter, topic: dead}\n", LARGE), &lines);
    assert_eq!(ran.failures, failed(&[(0, "ValueError"), (1, "Size"), (2, "LookupError")]), "{}", ran.log);
    assert_eq!(ran.messages[0], "é".repeat(300));
    let headers = |record: &Value| -> BTreeMap<String, usize> {
        let pairs = record["headers"].as_array().expect("a list").iter();
        let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.len()));
        pairs.map(|header| pair(header).expect("texts")).collect()
    };
    let letters: Vec<_> = ran.records.iter().map(headers).collect();
    assert_eq!(letters.len(), 3, "each has its dead letter");
    assert_eq!(letters[0]["kaspr.dlq.message"], 1024, "a dead letter's message is up to a kilobyte");
    assert!(letters[0]["kaspr.dlq.traceback"] > 0);
    assert!(!letters[2].contains_key("kaspr.dlq.traceback") && letters[2].contains_key("kaspr.dlq.kind"));
}

#[test]
fn what_is_printed_and_logged_bears_the_agents_name() {
    let python = "import logging\nprint('loaded')\nasync def step(value):\n    print('one\\ntwo')\n    context['app'].log.warning('by hand')\n    return value\n";
    let log = play(&agent("talks", "in", "", python), "1\n").log;
    for line in ["loaded", "one", "two", "kaspr: by hand"] {
        assert!(log.contains(&format!("agent \"talks\": {line}\n")), "{line}:\n{log}");
    }
}

#[test]
fn sinks_see_what_their_selectors_give() {
    let sinks = "    sinks:\n      - name: s\n        predicate: {python: 'def wanted(value): return value != 0'}\n        \
                 valueSelector: {python: 'def pick(value): return [value]'}\n        python: 'async def sink(value): \
                 print(\"sunk\", value)'\n  processors:\n";
    let spec = agent("sinks", "in", "", "def step(value):\n    return value\n").replace("  processors:\n", sinks);
    let spec = spec.replace("output: {topics: [{name: in-out}]}\n", "output:\n    topics: [{name: in-out}]\n");
    let ran = play(&spec, "0\n1\n");
    assert!(ran.log.contains("sunk [1]") && !ran.log.contains("sunk [0]"), "{}", ran.log);
    assert_eq!(ran.values, [0, 1].map(Value::from));
}

#[test]
fn sinks_run_last_of_all() {
    let python = "def step(value):\n    yield 1\n    yield object() if value == 0 else 2\n";
    let sinks = "    sinks: [{name: s, python: 'def sink(value): raise OSError(value)'}]\n  processors:\n";
    let spec = agent("sinks", "in", "", python).replace("  processors:\n", sinks);
    let spec = spec.replace("output: {topics: [{name: in-out}]}\n", "output:\n    topics: [{name: in-out}]\n");
    // The second value of the first event cannot be encoded: no sink has been called before that.
    assert_eq!(play(&spec, "0\n1\n").failures, failed(&[(0, "Encode"), (1, "OSError")]));
}

#[test]
fn failing_events_do_not_stall() {
    let lines: String = (0..10_000).map(|number| format!("{number}\n")).collect();
    let ran = play(&agent("fails", "in", "", "def step(value):\n    raise ValueError(value)\n"), &lines);
    assert_eq!((ran.failures.len(), ran.values.len()), (10_000, 0));
    // Each costs its line of log; none costs a wait: ten thousand waits would be a hundred times what events that
    // do not fail take in the same minute.
    let control = play(&agent("works", "in", "", "def step(value):\n    return value\n"), &lines);
    assert!(ran.seconds < 30.0 * control.seconds, "{} s beside {} s", ran.seconds, control.seconds);
}

/// Runs a spec whose input stays open: the lines that are typed, and the records as they come.
fn typing(spec: &str, more: &[&str]) -> (tempfile::TempDir, Child, ChildStdin, impl Iterator<Item = Value> + use<>) {
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = folder.path().join("agents.yaml");
    std::fs::write(&path, spec).expect("a spec can be written");
    let path = path.display().to_string();
    let mut child = command("kaspr-exec", &["run", &path, "--local", "--quiet", "--input", "in=-"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kaspr-exec starts");
    let (typed, output) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
    let lines = BufReader::new(output).lines();
    let records = lines.map(|line| serde_json::from_str(&line.expect("it is text")).expect("a record is JSON"));
    (folder, child, typed, records)
}

#[test]
fn an_await_of_one_agent_holds_back_no_other() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let [waits, ends] = ["waits.jsonl", "ends"].map(|name| folder.path().join(name).display().to_string());
    std::fs::write(&waits, "1\n").expect("an input can be written");
    // One agent awaits until the other's records have all come out, however long they take.
    let python = format!(
        "import asyncio, os\nasync def step(value):\n    while not os.path.exists('{ends}'):\n        await \
         asyncio.sleep(0.01)\n    return value\n"
    );
    let spec = agent("slow", "waits", "", &python) + &agent("fast", "in", "", "def step(value):\n    return value\n");
    let (_folder, mut child, mut typed, mut records) = typing(&spec, &["--input", &format!("waits={waits}")]);
    for number in 0..300 {
        writeln!(typed, "{number}").expect("it reads");
        let record = records.next().expect("a record comes");
        assert_eq!((&record["topic"], &record["value"]), (&"in-out".into(), &number.into()));
    }
    std::fs::write(&ends, "").expect("a file can be written");
    assert_eq!(records.next().expect("the other record comes")["topic"], "waits-out");
    drop(typed);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn isolated_partitions_await_side_by_side_and_keep_their_order() {
    // Each await ends when one of every partition is awaiting: one after the other, none would.
    let python = "import asyncio\ndoors, came, gone = {}, 0, 0\nasync def step(value):\n    global came, gone\n    \
                  door = doors.setdefault(came // 8, asyncio.Event())\n    came += 1\n    if came % 8 == 0: \
                  door.set()\n    await door.wait()\n    gone += 1\n    return [gone, value]\n";
    let folder = tempfile::tempdir().expect("a folder is made");
    let (path, input) = (folder.path().join("agent.yaml"), folder.path().join("in.jsonl"));
    std::fs::write(&path, agent("isolated", "in", "  isolatedPartitions: true\n", python))
        .expect("a spec can be written");
    let line = |number: i32| format!("{{\"topic\":\"in\",\"partition\":{},\"value\":{number}}}\n", number % 8);
    std::fs::write(&input, (0..160).map(line).collect::<String>()).expect("an input can be written");
    let (path, input) = (path.display().to_string(), format!("in={}", input.display()));
    let arguments =
        ["run", &path, "--local", "--quiet", "--input-format", "record", "--partitions", "8", "--input", &input];
    let output = run("kaspr-exec", &arguments, "");
    let number = |value: &Value| value.as_i64().expect("a number");
    // In the order in which they ended, wherever they were printed.
    let ended: BTreeMap<i64, i64> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a record is JSON")["value"].take())
        .map(|value| (number(&value[0]), number(&value[1])))
        .collect();
    let mut values: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for number in ended.into_values() {
        values.entry(number % 8).or_default().push(number);
    }
    assert_eq!(values.values().map(Vec::len).sum::<usize>(), 160, "{}", stderr(&output));
    assert!(values.values().all(|of_partition| of_partition.is_sorted()), "each partition keeps its order");
}

#[test]
fn an_app_that_is_at_least_once_plays_its_tests_and_runs_locally() {
    let at_least_once = |arguments: &[&str]| {
        let run = command("kaspr-exec", arguments).env("KASPR_GUARANTEE", "at-least-once").output();
        run.expect("the program starts")
    };
    let tested = at_least_once(&["test", "specs/tested"]);
    assert!(tested.status.success(), "{}", stdout(&tested));
    let folder = tempfile::tempdir().expect("a folder is made");
    let [path, input] = ["agent.yaml", "in.jsonl"].map(|name| folder.path().join(name).display().to_string());
    std::fs::write(&path, agent("same", "in", "", "def step(value):\n    return value\n")).expect("it is written");
    std::fs::write(&input, "1\n2\n").expect("an input can be written");
    let ran = at_least_once(&["run", &path, "--local", "--quiet", "--input", &format!("in={input}")]);
    let records = stdout(&ran).lines().count();
    assert_eq!((ran.status.code(), records), (Some(0), 2), "{}", stderr(&ran));
}

#[test]
fn users_tests_are_played() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("it can be written");
    write("agent.yaml", &agent("adds", "in", "", "def step(value):\n    return {'n': value['n'] + 1}\n"));
    let path = folder.path().display().to_string();
    assert_eq!(run("kaspr-exec", &["test", &path], "").status.code(), Some(2), "there are no tests");
    let test = |expect: &str| {
        let text =
            format!("tests:\n  - name: adds one\n    events: [{{topic: in, value: {{n: 1}}}}]\n    expect: {expect}\n");
        write("tests.yaml", &text);
        let output = run("kaspr-exec", &["test", &path], "");
        (output.status.code(), stdout(&output) + &stderr(&output))
    };
    assert_eq!(test("{topics: {in-out: [{value: {n: 2}}]}}").0, Some(0));
    for (expect, code, part) in [
        (
            "{topics: {in-out: [{value: {n: 3}}]}}",
            1,
            "topic \"in-out\", record 1, value.n:\n       expected 3\n       came     2\n",
        ),
        ("{topics: {in-out: []}}", 1, "expected nothing more\n"),
        ("{topics: {in-out: [{key: a}]}}", 1, "record 1, key:\n       expected \"a\"\n       came     null\n"),
        (
            "{failures: [{kind: KeyError}]}",
            1,
            "failure 1:\n       expected {\"kind\":\"KeyError\"}\n       came     no failure\n",
        ),
        ("{topic: {}}", 2, "error: unknown field \"topic\""),
        (
            "{topics: {in-out: [{value: {n: 2}}, {value: null}]}}",
            1,
            "expected {\"value\":null}\n       came     nothing more\n     --> ",
        ),
    ] {
        let (status, said) = test(expect);
        assert!(status == Some(code) && said.contains(part), "{expect}: {status:?}\n{said}");
    }
}

#[test]
fn what_no_test_can_mean_is_a_fault_at_its_line() {
    let table = "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {name: sessions}\n";
    let spec = agent("adds", "readings", "", "def step(value):\n    return value\n") + table;
    let of = |rest: &str| said_of_tests(&spec, &format!("tests:\n  - name: one\n{rest}"));
    for (rest, line, words, help) in [
        (
            "    events: [{topic: readigns, value: 1}]\n    expect: {failures: []}\n",
            3,
            "no agent reads the topic \"readigns\"",
            "did you mean \"readings\"?",
        ),
        (
            "    expect:\n      topics: {reading-out: []}\n",
            4,
            "the app has no topic \"reading-out\"",
            "did you mean \"readings-out\"?",
        ),
        (
            "    expect:\n      tables: {sesions: {}}\n",
            4,
            "the app has no table \"sesions\"",
            "did you mean \"sessions\"?",
        ),
        (
            "    tables: {other-name: {}}\n    expect: {failures: []}\n",
            3,
            "the app has no table \"other-name\"",
            "there are: sessions",
        ),
        (
            "    expect:\n      failures:\n        - {agent: ads}\n",
            5,
            "the app has no agent \"ads\"",
            "did you mean \"adds\"?",
        ),
        (
            "    expect:\n      failures:\n        - {agent: adds,\n           operation: stepp}\n",
            6,
            "the agent \"adds\" has no operation \"stepp\" that can fail",
            "did you mean \"step\"?",
        ),
        ("    expect:\n      failures: [{knd: KeyError}]\n", 4, "unknown field \"knd\"", "did you mean \"kind\"?"),
        (
            "    expect:\n      topics: {readings-out: [{vaule: 1}]}\n",
            4,
            "unknown field \"vaule\"",
            "did you mean \"value\"?",
        ),
        (
            "    events: [{topic: readings, vaule: 1}]\n    expect: {failures: []}\n",
            3,
            "unknown field \"vaule\"",
            "did you mean \"value\"?",
        ),
        (
            "    events: [{topic: readings, at: 5 sec}]\n    expect: {failures: []}\n",
            3,
            "\"at\" is \"5 sec\": a duration is a number and one of ms, s, m, h, d",
            "",
        ),
        ("    events: {file: none.jsonl}\n    expect: {failures: []}\n", 3, "cannot read \"none.jsonl\"", ""),
        (
            "    events: [{topic: readings, value: 1}]\n",
            2,
            "the test expects nothing: it can never fail",
            "name what must come",
        ),
        ("    expect: {topics: {}}\n", 3, "the test expects nothing: it can never fail", "name what must come"),
        ("    expcet: {failures: []}\n", 3, "unknown field \"expcet\"", "did you mean \"expect\"?"),
    ] {
        let (status, said) = of(rest);
        assert_eq!(status, Some(2), "{rest}{said}");
        assert!(said.contains(&format!("error: {words}")) && said.contains(help), "{rest}{said}");
        assert!(said.contains(&format!("--> ./tests.yaml:{line}:")), "{rest}{said}");
    }
}

#[test]
fn a_tombstone_is_not_null() {
    let spec = agent("adds", "in", "", "def step(value):\n    return value\n")
        .replace("{name: in-out}", "{name: in-out, valueSerializer: raw}");
    assert!(spec.contains("raw"), "{spec}");
    let of = |expect: &str| {
        let events = "[{topic: in, key: k, tombstone: true}, {topic: in, value: null}, {topic: in, value: '5'}]";
        let rest = "{key: null, tombstone: true}, {value: 5}";
        said_of_tests(
            &spec,
            &format!(
                "tests:\n  - name: one\n    events: {events}\n    expect:\n      topics: {{in-out: [{expect}, {rest}]}}\n"
            ),
        )
    };
    assert_eq!(of("{key: null, tombstone: true}").0, Some(0), "{}", of("{key: null, tombstone: true}").1);
    let (status, said) = of("{value: null}");
    let words = "record 1, value:\n       expected null\n       came     a tombstone, which is \"tombstone: true\"\n     --> ./tests.yaml:5\n";
    assert!(status == Some(1) && said.contains(words), "{said}");
    let (status, said) = of("{tombstone: false}");
    assert!(status == Some(1) && said.contains("expected a value\n       came     a tombstone\n"), "{said}");
}

#[test]
fn what_does_not_decode_is_named_with_its_first_bytes_at_its_serializer() {
    let spec = agent("reads", "in", "", "def step(value):\n    return value\n").replace(
        "{topic: {name: in}}",
        "\n    topic:\n      name: in\n      keySerializer: json\n      valueSerializer: binary",
    );
    let line = |text: &str| 1 + spec.lines().position(|line| line.contains(text)).expect("it is there");
    let long = "%".repeat(40);
    let tests = format!(
        "tests:\n  - name: one\n    events:\n      - {{topic: in, key: 'k\"\u{1b}', valueText: aGFsbG8=}}\n      - {{topic: in, key: '1', \
         valueText: '{long}'}}\n      - {{topic: in, key: '1', valueBase64: /w==}}\n    expect:\n      topics: {{in-out: []}}\n      failures:\n"
    );
    let failure = |at: usize, message: &str| {
        format!("        - {{kind: Decode, at: './agent.yaml:{at}', message: {}}}\n", serde_json::json!(message))
    };
    let (key, value) = (line("keySerializer"), line("valueSerializer"));
    let of_key = r#"the key b"k\"\x1b" cannot be read as json: Expecting value: line 1 column 1 (char 0)"#;
    let of_value =
        format!("the value b\"{}…\" cannot be read as binary: not base64: Invalid symbol 37, offset 0.", &long[..32]);
    let of_byte = r#"the value b"\xff" cannot be read as binary: not base64: Invalid symbol 255, offset 0."#;
    let expected = tests.clone() + &failure(key, of_key) + &failure(value, &of_value) + &failure(value, of_byte);
    let folder = tempfile::tempdir().expect("a folder is made");
    std::fs::write(folder.path().join("agent.yaml"), &spec).expect("a spec can be written");
    std::fs::write(folder.path().join("tests.yaml"), expected).expect("tests can be written");
    let output = command("kaspr-exec", &["test", "."]).current_dir(folder.path()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}

const TESTS: &str = "\
# What the agent promises.
tests:
  - name: counts # by customer
    tables: {counts: {a: 1}}
    events:
      - {topic: in, key: k, value: {id: a}}
      - {topic: in, key: k, value: {id: b}}
      - {topic: in, value: {id: c}}
    expect:
      topics:
        in-out:
          # the first knows its key
          - {key: null, value: {id: a, count: 7}} # seven?
          - value: {id: b, count: 1}
          - value: {id: gone}
          - value: {count: 1, id: c}
          - value: {id: gone, too: true}
      tables: {counts: {a: 2, d: 5}} # not d
  - name: says nothing of its failure
    events: [{topic: in, value: 5}]
    expect:
      topics: {in-out: [{value: 5}]}
  - name: 'is right'
    events: [{topic: in, value: {id: ä}}]
    expect: {topics: {in-out: [{value: {id: \"\\u00e4\", count: 1}, partition: 0}]}}
  - name: is begun
    events: [{topic: in, value: {id: x}}]
    expect: {topics: {in-out: []}}
";

const UPDATED: &str = "\
# What the agent promises.
tests:
  - name: counts # by customer
    tables: {counts: {a: 1}}
    events:
      - {topic: in, key: k, value: {id: a}}
      - {topic: in, key: k, value: {id: b}}
      - {topic: in, value: {id: c}}
    expect:
      topics:
        in-out:
          # the first knows its key
          - {key: null, value: {id: a, count: 2}} # seven?
          - value: {id: b, count: 1}
          - value: {count: 1, id: c}
      tables: {counts: {a: 2, b: 1, c: 1}} # not d
  - name: says nothing of its failure
    events: [{topic: in, value: 5}]
    expect:
      topics: {in-out: []}
      failures: [{operation: step, kind: TypeError}]
  - name: 'is right'
    events: [{topic: in, value: {id: ä}}]
    expect: {topics: {in-out: [{value: {id: \"\\u00e4\", count: 1}, partition: 0}]}}
  - name: is begun
    events: [{topic: in, value: {id: x}}]
    expect: {topics: {in-out: [{value: {id: x, count: 1}}]}}
";

#[test]
fn users_tests_are_updated_where_they_differ() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let (path, tests) = (folder.path().display().to_string(), folder.path().join("tests.yaml"));
    let python = "def step(value, t):\n    t[value['id']] = t.get(value['id'], 0) + 1\n    return {**value, 'count': t[value['id']]}\n";
    let spec = agent("counts", "in", "", python)
        .replace("        map:", "        tables: [{name: counts, paramName: t}]\n        map:");
    let table = "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {name: counts}\n";
    std::fs::write(folder.path().join("agent.yaml"), spec + table).expect("a spec can be written");
    std::fs::write(&tests, TESTS).expect("tests can be written");
    let update = || {
        let output = run("kaspr-exec", &["test", &path, "--update"], "");
        let text = std::fs::read_to_string(&tests).expect("it stays");
        (output.status.code(), stdout(&output).replace(&path, "."), text, stderr(&output))
    };
    let (status, said, text, log) = update();
    assert_eq!(text, UPDATED, "{said}{log}");
    let words = "new  .: counts\nnew  .: says nothing of its failure\nok   .: is right\nnew  .: is begun\n1 passed, 3 updated, 0 failed\n";
    assert_eq!((status, said.as_str()), (Some(0), words), "{log}");
    let (status, said, text, _) = update();
    assert!(status == Some(0) && said.ends_with("4 passed, 0 updated, 0 failed\n"), "{said}");
    assert_eq!(text, UPDATED);

    // A value that spans cannot change is reported, and nothing is written.
    let aliased = "tests:\n  - name: aliased\n    events: [&x {topic: in, value: {id: a}}]\n    expect: {topics: {in-out: [*x]}}\n";
    std::fs::write(&tests, aliased).expect("tests can be written");
    let (status, said, text, _) = update();
    assert!(status == Some(1) && said.contains("cannot update tests.yaml: "), "{said}");
    assert_eq!(text, aliased);
}
