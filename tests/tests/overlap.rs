//! Awaits that overlap (`concurrency`): as many as allowed, with the result of one after the other.

use std::path::Path;

use kaspr_tests::program::{run, stderr, stdout};
use serde_json::Value;

/// An agent from `in` to `out` with one map over the table `t`, and whatever else its spec says.
fn agent(more: &str, python: &str) -> String {
    let python: String = python.lines().map(|line| format!("            {line}\n")).collect();
    format!(
        "apiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {{name: t}}\n---\napiVersion: kaspr.io/v1alpha1\n\
         kind: KasprAgent\nmetadata: {{name: a}}\nspec:\n{more}  output: {{topics: [{{name: out}}]}}\n  processors:\n    \
         pipeline: [step]\n    operations:\n      - name: step\n        tables: [{{name: t, paramName: t}}]\n        \
         map:\n          entrypoint: step\n          python: |\n{python}"
    )
}

const INPUT: &str = "  input: {topic: {name: in}}\n";

struct Ran {
    status: Option<i32>,
    values: Vec<Value>,
    failures: Vec<(i64, String)>,
    words: String,
}

/// Runs a spec in a folder on the lines of `in`.
fn play_in(folder: &Path, spec: &str, lines: &str, more: &[&str]) -> Ran {
    let at = |name: &str| folder.join(name).display().to_string();
    std::fs::write(folder.join("agent.yaml"), spec).expect("a spec can be written");
    let (path, failures) = (at("agent.yaml"), at("failures.jsonl"));
    let arguments = ["run", &path, "--local", "--quiet", "--input", "in=-", "--failures", &failures];
    let output = run("kaspr-exec", &[&arguments[..], more].concat(), lines);
    let json = |line: &str| serde_json::from_str::<Value>(line).expect("a line is JSON");
    let failed = std::fs::read_to_string(&failures).unwrap_or_default();
    let failed = failed.lines().map(|line| json(line)["failure"].clone());
    let failure = |failed: Value| {
        (failed["offset"].as_i64().expect("a number"), failed["kind"].as_str().expect("a kind").to_owned())
    };
    Ran {
        status: output.status.code(),
        values: stdout(&output).lines().map(|line| json(line)["value"].clone()).collect(),
        failures: failed.map(failure).collect(),
        words: stderr(&output),
    }
}

fn play(spec: &str, lines: &str, more: &[&str]) -> Ran {
    play_in(tempfile::tempdir().expect("a folder is made").path(), spec, lines, more)
}

fn numbers(count: usize) -> String {
    (0..count).map(|number| format!("{number}\n")).collect()
}

/// Each await ends when as many as are allowed await at once: with one fewer, none would.
fn doors(units: usize) -> String {
    format!(
        "import asyncio\ndoors, now, most = {{}}, 0, 0\nasync def step(value, t):\n    global now, most\n    now += 1\n    \
         most = max(most, now)\n    number = value if isinstance(value, int) else value[0] // 2\n    \
         came, door = doors.setdefault(number // {units}, [[], asyncio.Event()])\n    came.append(value)\n    \
         if len(came) == {units}:\n        door.set()\n    await door.wait()\n    now -= 1\n    return [value, most]\n"
    )
}

#[test]
fn as_many_events_await_at_once_as_allowed_and_leave_in_order() {
    for (more, arguments) in [("  concurrency: 5\n", &[][..]), ("", &["--concurrency", "5"])] {
        let spec = agent(&format!("{more}  timeout: 20s\n{INPUT}"), &doors(5));
        let ran = play(&spec, &numbers(20), arguments);
        assert_eq!((ran.status, ran.failures.len()), (Some(0), 0), "{}", ran.words);
        let expected: Vec<Value> = (0..20).map(|number| serde_json::json!([number, 5])).collect();
        assert_eq!(ran.values, expected);
    }
}

#[test]
fn batches_overlap_as_events_do() {
    let input = "  concurrency: 3\n  timeout: 20s\n  input: {topic: {name: in}, take: {max: 2, within: 10m}}\n";
    let ran = play(&agent(input, &doors(3)), &numbers(12), &[]);
    let expected: Vec<Value> = (0..6).map(|number| serde_json::json!([[2 * number, 2 * number + 1], 3])).collect();
    assert_eq!((ran.values, ran.failures.len()), (expected, 0), "{}", ran.words);
}

/// Each event writes 3 MB before it awaits, for longer than three such writes take.
const LARGE: &str = "
import asyncio
now, most = 0, 0
async def step(value, t):
    global now, most
    t[str(value)] = 'x' * 3_000_000
    now += 1
    most = max(most, now)
    await asyncio.sleep(0.5)
    now -= 1
    return most
";

#[test]
fn no_event_begins_behind_others_that_hold_many_bytes() {
    let ran = play(&agent(&format!("  concurrency: 100\n{INPUT}"), LARGE), &numbers(10), &[]);
    assert_eq!((ran.status, ran.failures.len(), ran.values.len()), (Some(0), 0, 10), "{}", ran.words);
    // With the third, the lane holds more than its 8 MiB.
    assert_eq!(ran.values.iter().filter_map(Value::as_i64).max(), Some(3), "{:?}", ran.values);
}

/// Counts its runs per event; the sum of them stands in each value.
const HOT: &str = "
import asyncio, random
runs = {}
async def step(value, t):
    runs[value] = runs.get(value, 0) + 1
    n = t.get('n', 0)
    await asyncio.sleep(random.random() * 0.01)
    t['n'] = n + 1
    return [value, n, runs[value]]
";

#[test]
fn events_that_read_what_others_write_run_again_a_few_times_at_most() {
    let ran = play(&agent(&format!("  concurrency: 50\n{INPUT}"), HOT), &numbers(100), &[]);
    let counted: Vec<_> = ran.values.iter().map(|value| (value[0].clone(), value[1].clone())).collect();
    let expected: Vec<_> = (0..100).map(|number| (Value::from(number), Value::from(number))).collect();
    assert_eq!(counted, expected, "{}", ran.words);
    let runs: Vec<i64> = ran.values.iter().filter_map(|value| value[2].as_i64()).collect();
    assert!(runs.iter().all(|runs| *runs <= 11), "{runs:?}");
    assert!(runs.iter().any(|runs| *runs > 1), "they did run ahead: {runs:?}");
}

/// Counts the keys of all events before it, and adds its own.
const ALL: &str = "
import asyncio, random
async def step(value, t):
    n = len(list(t.keys()))
    await asyncio.sleep(random.random() * 0.01)
    t[str(value)] = n
    return [value, n]
";

#[test]
fn events_that_read_all_keys_see_what_all_before_them_wrote() {
    let ran = play(&agent(&format!("  concurrency: 50\n{INPUT}"), ALL), &numbers(100), &[]);
    let expected: Vec<Value> = (0..100).map(|number| serde_json::json!([number, number])).collect();
    assert_eq!(ran.values, expected, "{}", ran.words);
}

/// Reads a key before it waits and behind.
const TWICE: &str = "
import asyncio, random
async def step(value, t):
    n = t.get('n', 0)
    await asyncio.sleep(random.random() * 0.01)
    again = t.get('n', 0)
    t['n'] = n + 1
    return [value, n, again]
";

#[test]
fn events_that_read_a_key_twice_read_the_same() {
    let ran = play(&agent(&format!("  concurrency: 50\n{INPUT}"), TWICE), &numbers(100), &[]);
    let expected: Vec<Value> = (0..100).map(|number| serde_json::json!([number, number, number])).collect();
    assert_eq!(ran.values, expected, "{}", ran.words);
}

/// Fails unless all before it have counted.
const EXACT: &str = "
import asyncio, random
async def step(value, t):
    n = t.get('n', 0)
    await asyncio.sleep(random.random() * 0.01)
    if n != value:
        raise ValueError(n)
    t['n'] = n + 1
    return value
";

#[test]
fn events_that_fail_for_what_they_read_too_early_run_again() {
    let ran = play(&agent(&format!("  concurrency: 50\n{INPUT}"), EXACT), &numbers(100), &[]);
    assert_eq!(ran.failures, [], "{}", ran.words);
    assert_eq!(ran.values, (0..100).map(Value::from).collect::<Vec<_>>());
}

const SLOW: &str = "
import asyncio
async def step(value, t):
    t['last'] = value
    await asyncio.sleep(30 if value == 3 else 0.01)
    if value == 6:
        raise KeyError('six')
    return value
";

#[test]
fn what_fails_ahead_of_its_turn_fails_at_its_turn() {
    let policy = "  onError: {action: deadLetter, topic: out}\n";
    let spec = agent(&format!("  concurrency: 100\n  timeout: 2s\n{policy}{INPUT}"), SLOW);
    let ran = play(&spec, &numbers(10), &[]);
    assert_eq!(ran.failures, [(3, "Timeout".to_owned()), (6, "KeyError".to_owned())], "{}", ran.words);
    assert_eq!(ran.values, (0..10).map(Value::from).collect::<Vec<_>>(), "dead letters leave in their order");
}

#[test]
fn halt_keeps_what_was_before_it_and_nothing_behind() {
    let spec = agent(&format!("  concurrency: 100\n  onError: {{action: halt}}\n  timeout: 2s\n{INPUT}"), SLOW);
    let ran = play(&spec, &numbers(10), &[]);
    assert_eq!((ran.status, ran.values), (Some(1), vec![0.into(), 1.into(), 2.into()]), "{}", ran.words);
    assert!(ran.words.contains("in/0@3"), "{}", ran.words);
}

/// Each event fails its first try; the tries of one come before the next event takes effect.
const PATIENT: &str = "
import asyncio
tries = {}
async def step(value, t):
    tries[value] = tries.get(value, 0) + 1
    before = t.get('n', 0)
    await asyncio.sleep(0.005)
    if tries[value] == 1 and value % 3 == 0:
        raise ValueError('the first try')
    t['n'] = before + 1
    return [value, before]
";

#[test]
fn an_event_that_is_tried_again_keeps_its_place() {
    let retry = "  onError: {action: retry, attempts: 4, backoff: {initial: 20ms}}\n";
    let ran = play(&agent(&format!("  concurrency: 10\n{retry}{INPUT}"), PATIENT), &numbers(30), &[]);
    let expected: Vec<Value> = (0..30).map(|number| serde_json::json!([number, number])).collect();
    assert_eq!((ran.values, ran.failures.len()), (expected, 0), "{}", ran.words);
}

/// A thread ends the process while no event runs: only what is in flight can have asked for that.
const FATAL: &str = "
import asyncio, os, time
def end():
    time.sleep(0.2)
    os._exit(9)
async def step(value, t):
    if value == 4:
        await asyncio.to_thread(end)
    await asyncio.sleep(1)
    return value
";

#[test]
fn of_events_in_flight_only_the_one_that_ends_the_process_fails_alone() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let state = folder.path().join("state").display().to_string();
    let spec = agent(&format!("  concurrency: 10\n{INPUT}"), FATAL);
    let mut seen = Vec::new();
    // The first crash makes all of them suspects, which then run alone.
    for _ in 0..3 {
        let ran = play_in(folder.path(), &spec, &numbers(8), &["--state-dir", &state]);
        assert_eq!((ran.status, ran.failures.len()), (Some(9), 0), "{}", ran.words);
        seen.push(ran.words);
    }
    assert!(seen[1].contains("the last process ended while 8 events were in flight"), "{}", seen[1]);
    let ran = play_in(folder.path(), &spec, &numbers(8), &["--state-dir", &state]);
    assert_eq!((ran.status, ran.failures), (Some(0), vec![(4, "ProcessCrash".to_owned())]), "{}", ran.words);
    let expected: Vec<Value> = [0, 1, 2, 3, 5, 6, 7].map(Value::from).into();
    assert_eq!(ran.values, expected);
}

/// Ends the process at once, or from another thread while others are in flight.
const ENDS: &str = "
import asyncio, os, time
def end():
    time.sleep(0.2)
    os._exit(9)
async def step(value, t):
    if value == 'now':
        os._exit(9)
    if value == 'soon':
        await asyncio.to_thread(end)
    await asyncio.sleep(1)
    return value
";

#[test]
fn an_event_that_may_have_ended_the_process_is_not_blamed_for_another() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let state = folder.path().join("state").display().to_string();
    let spec = agent(&format!("  concurrency: 10\n{INPUT}"), ENDS);
    let ran = |lines: &str| play_in(folder.path(), &spec, lines, &["--state-dir", &state]);
    assert_eq!(ran("0\n\"now\"\n").status, Some(9));
    let second = ran("\"soon\"\n1\n");
    assert!(
        second.status == Some(9) && second.words.contains("in/0@1: the last process ended here"),
        "{}",
        second.words
    );
    // The suspect waited for what was in flight before it.
    let third = ran("0\n1\n");
    assert!(third.status == Some(0) && third.words.contains("in/0@0: the last process ended here"), "{}", third.words);
}
