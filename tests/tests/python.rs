//! Everything that works in a Python program with a running event loop works in an agent; what cannot work
//! raises an exception that user code can catch.
#![allow(clippy::disallowed_methods, reason = "these tests feed in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use kaspr_tests::program::{command, stderr, stdout};
use serde_json::{Value, json};

/// Time for which a worker idles between two parts of its input.
const PAUSE: Duration = Duration::from_millis(500);

/// An agent from `in` to `out`, and a table `t` that its functions get.
#[derive(Default)]
struct Spec<'a> {
    /// The block of `init`.
    init: &'a str,
    /// The block of the first operation, whose function is `f`.
    map: &'a str,
    /// The block of a second operation, whose function is `g`.
    then: &'a str,
    /// Fields of the output.
    output: &'a str,
    /// Documents behind the agent.
    more: &'a str,
    /// The operation gets the table.
    has_table: bool,
}

fn indented(text: &str, spaces: usize) -> String {
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{:spaces$}{line}\n", "") };
    text.trim_start_matches('\n').lines().map(line).collect()
}

impl Spec<'_> {
    fn text(&self) -> String {
        let mut text = format!(
            "apiVersion: kaspr.io/v1alpha1\nkind: KasprAgent\nmetadata: {{name: one}}\nspec:\n  input: {{topic: {{name: \
             in}}}}\n  output:\n    topics:\n      - name: out\n{}  processors:\n    pipeline: [f{}]\n",
            indented(self.output, 8),
            if self.then.is_empty() { "" } else { ", g" },
        );
        if !self.init.is_empty() {
            text += &format!("    init:\n      python: |\n{}", indented(self.init, 8));
        }
        text += "    operations:\n";
        for (name, block) in [("f", self.map), ("g", self.then)].into_iter().filter(|(_, block)| !block.is_empty()) {
            text += &format!("      - name: {name}\n");
            if self.has_table && name == "f" {
                text += "        tables: [{name: t, paramName: t}]\n";
            }
            text +=
                &format!("        map:\n          entrypoint: {name}\n          python: |\n{}", indented(block, 12));
        }
        if self.has_table {
            text += "---\napiVersion: kaspr.io/v1alpha1\nkind: KasprTable\nmetadata: {name: t}\nspec:\n  name: t\n";
        }
        text + self.more
    }

    fn run(&self, lines: &str) -> Ran {
        self.play(&[lines], &[])
    }

    /// Feeds the parts, each when something of the one before has come and a pause behind that; gives what came. An empty value unsets a variable.
    fn play(&self, parts: &[&str], variables: &[(&str, &str)]) -> Ran {
        let folder = tempfile::tempdir().expect("a folder is made");
        std::fs::write(folder.path().join("agent.yaml"), self.text()).expect("a spec can be written");
        let arguments = ["run", "agent.yaml", "--local", "--quiet", "--input", "in=-", "--failures", "failures.jsonl"];
        let mut command = command("kaspr-exec", &arguments);
        command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, value) in variables {
            match value.is_empty() {
                true => command.env_remove(name),
                false => command.env(name, value),
            };
        }
        let mut child = command.spawn().expect("kaspr-exec starts");
        let mut input = child.stdin.take().expect("it is piped");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut printed = String::new();
        for (number, part) in parts.iter().enumerate() {
            // A program that has failed reads no more.
            let _ = input.write_all(part.as_bytes());
            if number + 1 < parts.len() {
                output.read_line(&mut printed).expect("its output can be read");
                std::thread::sleep(PAUSE);
            }
        }
        drop(input);
        output.read_to_string(&mut printed).expect("its output can be read");
        let output = child.wait_with_output().expect("it ends");
        let log = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        let records: Vec<Value> = printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no record")))
            .collect();
        let failures = std::fs::read_to_string(folder.path().join("failures.jsonl")).expect("failures are written");
        Ran { values: records.iter().map(|record| record["value"].clone()).collect(), records, failures, log }
    }
}

struct Ran {
    values: Vec<Value>,
    records: Vec<Value>,
    failures: String,
    log: String,
}

impl Ran {
    /// The words of the agent's lines in the log, in order.
    fn said(&self) -> Vec<&str> {
        self.log.lines().filter_map(|line| line.split_once("agent \"one\": ").map(|(_, said)| said)).collect()
    }
}

// ---- Threads ----

#[test]
fn threads_of_every_kind_print_and_log_under_the_agents_name() {
    let map = r#"
import asyncio, logging, threading
from concurrent.futures import ThreadPoolExecutor

def g(x):
    print("pool", x)
    return x

async def f(v):
    values = list(ThreadPoolExecutor(1).map(g, [v, v]))
    await asyncio.to_thread(logging.warning, "slow")
    await asyncio.get_running_loop().run_in_executor(None, print, "executor")
    thread = threading.Thread(target=print, args=("thread",))
    thread.start()
    thread.join()
    timer = threading.Timer(0, context["app"].log.info, ("timer",))
    timer.start()
    timer.join()
    return values
"#;
    let ran = Spec { map, ..Spec::default() }.run("1\n");
    assert_eq!(ran.values, [json!([1, 1])], "{}", ran.log);
    assert_eq!(ran.said(), ["pool 1", "pool 1", "root: slow", "executor", "thread", "kaspr: timer"]);
    assert!(ran.log.contains("WARN agent \"one\": root: slow"));
}

const ELSEWHERE: &str = r#"
from threading import Thread

def f(v, t):
    event = context["event"]
    t["k"] = 1
    said = []

    def tries():
        for what in (
            lambda: [context["app"].conf.app, len(context["app"].tables), event.value, event.message.topic],
            lambda: context["event"],
            lambda: "event" in context,
            lambda: sorted(context),
            lambda: t["k"],
            lambda: t.get("k"),
            lambda: t.update(k=2),
            lambda: list(t.items()),
            lambda: context["app"].send("out", value=1),
        ):
            try:
                said.append(what())
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")

    thread = Thread(target=tries)
    thread.start()
    thread.join()
    return said
"#;

#[test]
fn what_only_the_workers_thread_may_do_raises_elsewhere() {
    let ran = Spec { map: ELSEWHERE, has_table: true, ..Spec::default() }.run("7\n");
    let said = ran.values[0].as_array().expect("a list");
    assert_eq!(said[0], json!(["one", 1, 7, "in"]), "what was taken before may be read");
    assert_eq!(said.len(), 9);
    for (said, what) in said[1..].iter().zip(["context[\"event\"]"; 3].iter().chain(&["the table \"t\""; 4])) {
        let words = format!("RuntimeError: {what} can be used only in the worker's thread");
        assert!(said.as_str().is_some_and(|said| said.starts_with(&words)), "{said} {words}");
    }
    assert!(said[8].as_str().is_some_and(|said| said.starts_with("RuntimeError: send() can be used only")));
}

#[test]
fn objects_of_the_worker_may_end_on_another_thread() {
    let map = r#"
import gc, threading

def f(v, t):
    kept = [context["event"], context["event"].message, context["app"].send("out", value=v), t.items()]
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    gc.collect()
    return v
"#;
    let lines: String = (0..50).map(|number| format!("{number}\n")).collect();
    let ran = Spec { map, has_table: true, ..Spec::default() }.run(&lines);
    assert_eq!((ran.values.len(), ran.failures.as_str()), (100, ""), "{}", ran.log);
}

// ---- Modules ----

#[test]
fn blocks_are_modules() {
    let init = r#"
from __future__ import annotations
from dataclasses import dataclass, field

@dataclass
class Order:
    lines: list[int] = field(default_factory=list)

def of_init():
    return __name__
"#;
    let map = r#"
from __future__ import annotations
import inspect, pickle, sys, typing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

@dataclass
class A:
    x: int

def double(x):
    return 2 * x

def f(v):
    hints = typing.get_type_hints(A)
    again = pickle.loads(pickle.dumps([A(v), Order([v]), of_init]))
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        doubled = list(pool.map(double, [1, 2]))
    module = sys.modules[__name__]
    return [repr(again[:2]), hints == {"x": int}, doubled, again[2](), __name__, __file__, module.f is f,
            inspect.getsource(double)]
"#;
    let ran = Spec { init, map, ..Spec::default() }.run("1\n");
    let source = "            def double(x):\n                return 2 * x\n";
    let expected = json!([
        "[A(x=1), Order(lines=[1])]",
        true,
        [2, 4],
        "kaspr:one/init",
        "kaspr:one/f",
        "agent.yaml",
        true,
        source.replace("            ", "")
    ]);
    assert_eq!(ran.values, [expected], "{}", ran.log);
}

// ---- Small shapes ----

#[test]
fn header_pairs_may_be_lists_and_context_is_a_mapping() {
    let init = r#"
from collections.abc import Mapping
print(sorted(context), "event" in context, context.get("event"), len(context), isinstance(context, Mapping))
"#;
    let output = "headersSelector:\n  python: |\n    def h(v): return [[\"a\", \"x\"], (\"b\", None)]\n";
    let map = "def f(v): return [*context, [type(x).__name__ for x in context.values()], dict(context) == dict(context.items())]\n";
    let ran = Spec { init, map, output, ..Spec::default() }.run("1\n");
    assert_eq!(ran.said(), ["['app'] False None 1 True"]);
    assert_eq!(ran.values, [json!(["app", "event", ["App", "Event"], false])], "{}", ran.log);
    assert_eq!(ran.records[0]["headers"], json!([["a", "x"], ["b", null]]));
    let output = "headersSelector:\n  python: |\n    def h(v): return [[\"a\", \"x\", 1]]\n";
    let ran = Spec { map: "def f(v): return v\n", output, ..Spec::default() }.run("1\n");
    assert!(ran.failures.contains("headers are pairs of a name and a value, not list"), "{}", ran.failures);
}

#[test]
fn default_selectors_give_classes_factories_and_values() {
    for (selector, expected) in [
        ("def default(): return int", "[0, 0, 1]"),
        ("def factory(): return row\n\ndef row(): return {'n': 0}", "[{'n': 0}, {'n': 0}, 1]"),
        ("def default(): return []", "[[], [], 1]"),
        ("async def default(): return 5", "[5, 5, 1]"),
        ("default = lambda: dict", "[{}, {}, 1]"),
    ] {
        let more = format!("  defaultSelector:\n    python: |\n{}", indented(selector, 6));
        let map = r#"
def f(v, t):
    first = t["k"]
    if isinstance(first, (list, dict)):
        first.append(1) if isinstance(first, list) else first.update(n=7)
    second = t["k"]
    t["k"] = 1
    return repr([t["other"], second, t["k"]])
"#;
        let ran = Spec { map, has_table: true, more: &more, ..Spec::default() }.run("1\n");
        assert_eq!(ran.values, [json!(expected)], "{selector}: {}", ran.log);
    }
}

const MAPPING: &str = r#"
from collections.abc import Mapping, MutableMapping

def f(v, t):
    seen = [isinstance(t, MutableMapping), isinstance(t, Mapping)]
    t |= {"a": 1, "b": 2}
    t |= [("c", 3)]
    seen += [sorted(t.copy().items()), sorted(t.keys() & {"a", "z"}), sorted(t.keys() | {"z"}), t.keys() == {"a", "b", "c"}]
    seen += [("a", 1) in t.items(), 3 in t.values(), len(t.items()), sorted(t.items() - {("a", 1)})]
    seen += [t == {"a": 1, "b": 2, "c": 3}, {"a": 1} == t, sorted((t | {"d": 4}).items()), sorted(({"d": 4} | t).items())]
    seen += [t.get("z", default=9), t.get("z", None), t.pop("z", default=8), t.pop("a")]
    for key in t:
        if key == "b":
            del t[key]
    seen += [t.popitem(), len(t)]
    t["x"] = 1
    t.clear()
    seen += [len(t), list(t), bool(t)]
    for wrong in (lambda: t.popitem(), lambda: t.get("a", 1, 2), lambda: t.get("a", other=1), lambda: t | 5):
        try:
            seen.append(wrong())
        except (KeyError, TypeError) as error:
            seen.append(type(error).__name__)
    match {"t": t}:
        case {"t": {}}:
            seen.append("matched")
    return seen
"#;

#[test]
fn tables_are_whole_mutable_mappings() {
    let ran = Spec { map: MAPPING, has_table: true, ..Spec::default() }.run("1\n");
    let pairs = json!([["a", 1], ["b", 2], ["c", 3]]);
    let more = json!([["a", 1], ["b", 2], ["c", 3], ["d", 4]]);
    let expected = json!([
        true,
        true,
        pairs,
        ["a"],
        ["a", "b", "c", "z"],
        true,
        true,
        true,
        3,
        [["b", 2], ["c", 3]],
        true,
        false,
        more,
        more,
        9,
        null,
        8,
        1,
        ["c", 3],
        0,
        0,
        [],
        false,
        "KeyError",
        "TypeError",
        "TypeError",
        "TypeError",
        "matched"
    ]);
    assert_eq!(ran.values, [expected], "{}", ran.log);
}

#[test]
fn lines_are_right_where_blocks_begin_with_empty_lines() {
    for lead in ["\n", "\n\n", "\n   \n"] {
        let output = format!("keySelector:\n  python: |\n{lead}    def key(v): return str(1 // v)\n");
        let spec = Spec { map: "\n\ndef f(v): return v\n", output: "OUTPUT", ..Spec::default() };
        let text = spec.text().replace("        OUTPUT\n", &indented(&output, 8));
        let line = 1 + text.lines().position(|line| line.contains("def key")).expect("it is there");
        let folder = tempfile::tempdir().expect("a folder is made");
        let path = folder.path().join("agent.yaml").display().to_string();
        std::fs::write(&path, text).expect("a spec can be written");
        let ran = kaspr_tests::program::run("kaspr-exec", &["run", &path, "--local", "--input", "in=-"], "0\n");
        assert!(stderr(&ran).contains(&format!("--> {path}:{line}")), "{lead:?} {}", stderr(&ran));
    }
}

#[test]
fn warnings_and_failures_far_below_have_their_lines() {
    let map = "def f(v):\n    if v is 1:\n        return 1\n    def inner():\n        return (\n            1 // v)\n    return inner()\n";
    let spec = Spec { map, ..Spec::default() };
    let text = "# far below\n".repeat(3000) + &spec.text();
    let line = |of: &str| 1 + text.lines().position(|line| line.contains(of)).expect("it is there");
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = folder.path().join("agent.yaml").display().to_string();
    std::fs::write(&path, &text).expect("a spec can be written");
    let ran = kaspr_tests::program::run("kaspr-exec", &["run", &path, "--local", "--input", "in=-"], "0\n");
    let log = stderr(&ran);
    assert!(log.contains(&format!("{path}:{}: SyntaxWarning", line("v is 1"))), "{log}");
    assert!(log.contains(&format!("--> {path}:{}", line("1 // v"))), "{log}");
    for at in ["return inner()", "1 // v"] {
        assert!(log.contains(&format!("File \"{path}\", line {}", line(at))), "{at}: {log}");
    }
}

#[test]
fn a_block_in_quotes_may_have_many_lines() {
    let text = Spec { map: "BLOCK", ..Spec::default() }.text();
    let (start, rest) = text.split_once("python: |\n            BLOCK\n").expect("the block is there");
    let text = format!(
        "{start}python: \"def f(v):\\n    def half(x):\\n        return (x //\\n 2)\\n    return half(v)\"\n{rest}"
    );
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = folder.path().join("agent.yaml").display().to_string();
    std::fs::write(&path, text).expect("a spec can be written");
    let ran = kaspr_tests::program::run("kaspr-exec", &["run", &path, "--local", "--quiet", "--input", "in=-"], "6\n");
    assert!(kaspr_tests::program::stdout(&ran).contains("\"value\":3"), "{}", stderr(&ran));
}

// ---- The loop ----

#[test]
fn background_tasks_run_beside_plain_functions_while_the_worker_idles() {
    let init = r#"
import asyncio
box = {"n": 0}

async def refresh():
    while True:
        box["n"] += 1
        await asyncio.sleep(0.05)

async def init():
    box["task"] = asyncio.create_task(refresh())
"#;
    let map = "def f(v): return box[\"n\"]\n";
    let ran = Spec { init, map, ..Spec::default() }.play(&["1\n", "2\n"], &[]);
    let times = ran.values[1].as_i64().expect("a number");
    assert!(ran.values[0].as_i64() <= Some(2) && (4..=14).contains(&times), "{:?} {}", ran.values, ran.log);
}

#[test]
fn timers_threads_and_executors_reach_the_loop_while_the_worker_idles() {
    let map = r#"
import asyncio, time, threading

def note(name):
    print(name, time.monotonic() - box["since"] < 0.4, asyncio.get_running_loop() is box["loop"])

def later():
    time.sleep(0.1)
    box["loop"].call_soon_threadsafe(note, "thread")

def f(v):
    if v == 1:
        loop = asyncio.get_running_loop()
        box.update(since=time.monotonic(), loop=loop)
        loop.call_later(0.05, note, "timer")
        threading.Thread(target=later).start()
        loop.run_in_executor(None, time.sleep, 0.15).add_done_callback(lambda _: note("executor"))
    return v
"#;
    let ran = Spec { init: "box = {}\n", map, ..Spec::default() }.play(&["1\n", "2\n"], &[]);
    assert_eq!(ran.values, [json!(1), json!(2)], "{}", ran.log);
    assert_eq!(ran.said(), ["timer True True", "thread True True", "executor True True"]);
}

#[test]
fn the_workers_loop_counts_as_running_in_all_user_code() {
    let init = r#"
import asyncio
loops = [asyncio.get_running_loop()]

async def notify(what):
    print("note", what)

def init():
    loops.append(asyncio.get_running_loop())
    loops.append(asyncio.create_task(notify("init")).get_loop())
"#;
    let map = r#"
import asyncio

def key(v):
    return asyncio.get_running_loop()

async def inner(v):
    return asyncio.get_running_loop()

def f(v):
    asyncio.create_task(notify(v))
    return inner(v)
"#;
    let then = r#"
import asyncio

def g(v):
    same = [loop is v for loop in [*loops, asyncio.get_running_loop(), asyncio.get_event_loop()]]
    try:
        asyncio.run(asyncio.sleep(0))
    except RuntimeError as error:
        same.append(str(error))
    return same
"#;
    let ran = Spec { init, map, then, ..Spec::default() }.run("1\n2\n");
    let expected = json!([true, true, true, true, true, "asyncio.run() cannot be called from a running event loop"]);
    assert_eq!(ran.values, [expected.clone(), expected], "{}", ran.log);
    let notes: Vec<&str> = ran.said().into_iter().filter(|said| said.starts_with("note")).collect();
    assert_eq!(notes, ["note init", "note 1", "note 2"]);
}

#[test]
fn tasks_and_timers_of_plain_functions_are_their_agents() {
    let map = r#"
import asyncio

async def slow(v):
    await asyncio.sleep(0.1)
    print("slow", v, context["event"].message.offset)

def f(v):
    asyncio.create_task(slow(v))
    asyncio.get_running_loop().call_later(0.1, lambda: print("timer", v))
    return context["event"].key
"#;
    let other = Spec { map: "def f(v): return v\n", ..Spec::default() };
    let other = format!("---\n{}", other.text().replace("one", "two").replace("name: out", "name: other"));
    let ran = Spec { map, more: &other, ..Spec::default() }.play(&["1\n", "2\n"], &[]);
    let mut said = ran.said();
    said.sort_unstable();
    assert_eq!(said[..2], ["slow 1 0", "timer 1"], "{}", ran.log);
}

#[test]
fn at_the_end_tasks_are_cancelled_and_put_things_away() {
    let init = r#"
import asyncio, threading, time

async def background():
    try:
        await asyncio.sleep(100)
    finally:
        await asyncio.sleep(0)
        print("put away")

async def values():
    try:
        while True:
            yield 1
    finally:
        await asyncio.sleep(0)
        print("values closed")

def work():
    time.sleep(0.2)
    print("work done")

kept = []

async def init():
    print("connect")
    kept.append(asyncio.create_task(background()))
    kept.append(values())
    await anext(kept[1])
    yield
    print("disconnect", [task.done() for task in kept[:1]])
"#;
    let map = r#"
import asyncio, threading

async def f(v):
    asyncio.create_task(asyncio.sleep(50))
    threading.Thread(target=work).start()
    return v
"#;
    let ran = Spec { init, map, ..Spec::default() }.run("1\n");
    assert_eq!(ran.values, [json!(1)]);
    let expected = ["connect", "disconnect [False]", "put away", "values closed", "work done"];
    assert_eq!(ran.said(), expected, "{}", ran.log);
    assert!(!ran.log.contains("WARN"), "{}", ran.log);
}

#[test]
fn init_may_be_a_generator_that_runs_on_at_the_end() {
    let init = "def init():\n    print(\"connect\")\n    yield\n    print(\"disconnect\")\n";
    let map = "def f(v): return v\n";
    let more =
        Spec { init: "def init():\n    print(\"up\")\n    yield\n    print(\"down\")\n", map, ..Spec::default() };
    let more = format!("---\n{}", more.text().replace("name: one", "name: two").replace("name: out", "name: other"));
    let ran = Spec { init, map, more: &more, ..Spec::default() }.run("1\n");
    let order: Vec<&str> = ["one\": connect", "two\": up", "two\": down", "one\": disconnect"].into();
    let places: Vec<_> = order.iter().map(|words| ran.log.find(words).expect("it is said")).collect();
    assert!(places.is_sorted(), "{}", ran.log);
    let init = "def init():\n    yield\n    yield\n";
    let ran = Spec { init, map, ..Spec::default() }.run("1\n");
    assert_eq!(ran.said(), ["the end of init failed: RuntimeError: init yields more than once"], "{}", ran.log);
}

#[test]
fn generators_left_half_way_are_closed_within_their_event() {
    let map = r#"
from contextlib import asynccontextmanager
import asyncio

@asynccontextmanager
async def conn(v):
    print("open", v)
    try:
        yield
    finally:
        await asyncio.sleep(0.01)
        print("closed", v, context["event"].message.offset)

def plain(v):
    try:
        yield v
        yield v
    finally:
        print("plain closed", v, context["event"].message.offset)

async def of(v):
    async with conn(v):
        yield v
        yield v

def f(v):
    return plain(v) if v > 1 else of(v)
"#;
    let then = "def g(v):\n    if v < 3:\n        raise ValueError(v)\n    return v\n";
    let ran = Spec { map, then, ..Spec::default() }.run("1\n2\n3\n0\n");
    let said: Vec<&str> = ran.said().into_iter().filter(|said| !said.starts_with("operation")).collect();
    let expected = ["open 1", "closed 1 0", "plain closed 2 1", "plain closed 3 2", "open 0", "closed 0 3"];
    assert_eq!(said, expected, "{}", ran.log);
    assert_eq!((ran.values.len(), ran.failures.lines().count()), (2, 3), "{}", ran.failures);
}

#[test]
fn a_generator_that_does_not_close_is_given_up() {
    let map = r#"
import asyncio

async def f(v):
    try:
        yield v
        yield v
    finally:
        await asyncio.sleep(60 if v == 1 else 0)
        if v == 2:
            raise KeyError("no")
"#;
    let then = "def g(v):\n    if v < 3:\n        raise ValueError(v)\n    return v\n";
    let text = Spec { map, then, ..Spec::default() };
    let output = "predicate:\n  python: |\n    def p(v): return True\n";
    let spec = Spec { output, ..text };
    let ran = spec.play(&["1\n2\n3\n"], &[("KASPR_TIMEOUT", "300ms")]);
    assert_eq!(ran.values, [json!(3), json!(3)], "{}", ran.log);
    assert_eq!(ran.failures.matches("ValueError").count(), 2, "{}", ran.failures);
    let words = "operation \"f\": a generator failed while it was closed: KeyError: 'no'";
    assert!(ran.log.contains(words), "{}", ran.log);
}

// ---- Text ----

#[test]
fn surrogates_are_escaped_wherever_they_are_shown() {
    let map = r#"
import logging, sys

def f(v):
    print(v)
    logging.info(v)
    sys.stderr.write(v + "\n")
    raise ValueError(v)
"#;
    let ran = Spec { map, ..Spec::default() }.run("\"\\ud83d\"\n");
    let said = ran.said();
    assert_eq!(said[..3], ["\\ud83d", "root: \\ud83d", "\\ud83d"]);
    assert!(said[3].contains("ValueError: \\ud83d"), "{}", ran.log);
    assert!(ran.log.contains("Traceback (most recent call last)"), "{}", ran.log);
    assert!(ran.failures.contains("\"message\":\"\\\\ud83d\""), "{}", ran.failures);
}

#[test]
fn standard_output_and_error_are_text_files() {
    let map = r#"
import contextlib, io, sys, traceback, threading

def f(v):
    sys.stdout.writelines(["a\n", "b\n"])
    sys.stdout.buffer.write("grö".encode())
    sys.stdout.buffer.write(b"\xc3")
    sys.stdout.buffer.write(b"\x9fe\n")
    print("part", end=" ", flush=True)
    print("of a line")
    sys.stderr.write("an error\n")
    with contextlib.redirect_stdout(io.StringIO()) as caught:
        print("caught")
    print("no end", end="")
    thread = threading.Thread(target=lambda: print("thread's own line"))
    thread.start()
    thread.join()
    try:
        sys.stdout.write(b"bytes")
    except TypeError as error:
        traceback.print_exc(limit=0)
    sys.stdout.close()
    seen = [isinstance(sys.stdout, io.TextIOBase), caught.getvalue()]
    for out in (sys.stdout, sys.stderr):
        seen += [out.closed, out.name, out.encoding, out.errors, out.writable(), out.readable(), out.isatty(), out.fileno()]
    return seen
"#;
    let ran = Spec { map, ..Spec::default() }.run("1\n");
    let of = |name: &str| vec![json!(false), json!(name), json!("utf-8"), json!("backslashreplace")];
    let rest = || vec![json!(true), json!(false), json!(false), json!(2)];
    let expected = [vec![json!(true), json!("caught\n")], of("<stdout>"), rest(), of("<stderr>"), rest()].concat();
    assert_eq!(ran.values, [Value::Array(expected)], "{}", ran.log);
    let expected = [
        "a",
        "b",
        "größe",
        "part of a line",
        "an error",
        "thread's own line",
        "TypeError: write() argument must be str, not bytes",
        "no end",
    ];
    assert_eq!(ran.said(), expected);
}

#[test]
fn a_very_long_traceback_is_shortened() {
    let map = r#"
import sys
sys.setrecursionlimit(20_000)

def f(v):
    return f(v)
"#;
    let ran = Spec { map, ..Spec::default() }.run("1\n");
    assert!(ran.failures.contains("RecursionError"), "{}", ran.failures);
    assert!(ran.log.contains(" more frames]") && ran.log.lines().count() < 40, "{}", ran.log);
    let chained = r#"
import sys
sys.setrecursionlimit(20_000)

def deep(v):
    return deep(v)

def f(v):
    try:
        deep(v)
    except RecursionError as error:
        raise ValueError("outer") from error
"#;
    let ran = Spec { map: chained, ..Spec::default() }.run("1\n");
    assert!(ran.log.contains(" more frames]"), "{}", ran.log);
    assert!(ran.log.contains("The above exception was the direct cause"), "{}", ran.log);
}

/// Seconds of CPU that a process uses until its end.
fn cpu_seconds(command: &mut std::process::Command) -> f64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let id = i32::try_from(child.id()).expect("a process number");
    // SAFETY: the child has not been waited for, and the usage is zeroed memory of its size.
    let (waited, usage) =
        unsafe { (libc::wait4(id, std::ptr::null_mut(), 0, usage.as_mut_ptr()), usage.assume_init()) };
    assert_eq!(waited, id, "it ends");
    // It has been waited for.
    drop(child.try_wait());
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Both raise and write as many tracebacks in the same moments, so that a busy machine slows both.
#[test]
fn a_very_long_traceback_costs_no_more_than_in_python() {
    let dives = "import sys\nsys.setrecursionlimit(20_000)\ndef dive(n):\n    return dive(n + 1)\n";
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let map = format!("{dives}def f(v):\n    return dive(0) if v else v\n");
    std::fs::write(path("one.yaml"), Spec { map: &map, ..Spec::default() }.text()).expect("written");
    std::fs::write(path("deep"), "1\n".repeat(5)).expect("written");
    std::fs::write(path("flat"), "0\n".repeat(5)).expect("written");
    // Dead letters have the traceback of each event; the log has the first.
    let run = |input: &str| {
        let input = format!("in={}", path(input));
        let arguments = ["run", &path("one.yaml"), "--local", "--quiet", "--input", &input];
        let letters = ["--on-error", "deadLetter", "--dead-letter-topic", "dead"];
        cpu_seconds(&mut command("kaspr-exec", &[&arguments[..], &letters].concat()))
    };
    let script = format!(
        "{dives}import traceback\nfor _ in range(5):\n    try:\n        dive(0)\n    except RecursionError:\n        traceback.format_exc()\n"
    );
    let (flat, deep) = (run("flat"), run("deep"));
    let python = cpu_seconds(std::process::Command::new("python3").args(["-c", &script]));
    assert!(deep - flat <= 1.5 * python, "{deep} s, {flat} s without failures, {python} s in Python");
}

// ---- The interpreter and the process ----

#[test]
fn text_is_utf8_without_a_locale() {
    let map = r#"
import os, subprocess, sys

def f(v):
    with open("x", "w") as out:
        out.write("größe")
    with open("x") as written:
        text = written.read()
    child = subprocess.run([sys.executable or "python3", "-c", "print('ü')"], capture_output=True, text=True).stdout
    return [text, os.environ["UMLAUT"], sys.getfilesystemencoding(), sys.flags.utf8_mode, open("größe/y").read()]
"#;
    let init = "import os\nos.mkdir(\"größe\")\nwith open(\"größe/y\", \"w\") as out:\n    out.write(\"é\")\n";
    let variables = [("LANG", ""), ("LC_ALL", ""), ("LC_CTYPE", ""), ("UMLAUT", "größe")];
    let ran = Spec { init, map, ..Spec::default() }.play(&["1\n"], &variables);
    assert_eq!(ran.values, [json!(["größe", "größe", "utf-8", 1, "é"])], "{}", ran.log);
}

#[test]
fn a_virtual_environment_comes_before_the_systems_packages() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let version = command("kaspr-exec", &["--version"]).output().expect("it starts");
    let text = stdout(&version);
    let version: Vec<&str> = text.split_once("CPython ").expect("it is told").1.trim().split('.').collect();
    let packages = folder.path().join(format!("größe/lib/python{}.{}/site-packages", version[0], version[1]));
    std::fs::create_dir_all(&packages).expect("a folder is made");
    // Every installation has a package of this name.
    std::fs::write(packages.join("pip.py"), "version = 2").expect("it can be written");
    let map = r#"
import json, sys

def f(v):
    import pip
    places = [number for number, path in enumerate(sys.path) if path.startswith(sys.argv[0] if False else PLACE)]
    system = [number for number, path in enumerate(sys.path) if path.endswith("-packages") and number not in places]
    return [getattr(pip, "version", 1), len(places), all(places[0] < number for number in system), json.__name__]
"#;
    let environment = folder.path().join("größe").display().to_string();
    let init = format!("PLACE = {environment:?}\n");
    let ran = Spec { init: &init, map, ..Spec::default() }.play(&["1\n"], &[("VIRTUAL_ENV", &environment)]);
    assert_eq!(ran.values, [json!([2, 1, true, "json"])], "{}", ran.log);
}

#[test]
fn nothing_but_records_stands_on_standard_output() {
    let map = r#"
import os, subprocess, sys

def f(v):
    os.system("echo of a shell")
    subprocess.run(["echo", "of a program"], stdout=sys.stdout)
    os.write(1, b"of a library\\n")
    print("by Python itself", file=sys.__stdout__)
    sys.__stdout__.write("no line end")
    return v
"#;
    let ran = Spec { map: &map.replace("\\\\", "\\"), ..Spec::default() }.run("1\n");
    assert_eq!(ran.values, [json!(1)]);
    for words in ["of a shell", "of a program", "of a library", "by Python itself", "no line end"] {
        assert!(ran.log.contains(words), "{words}: {}", ran.log);
    }
}

#[test]
fn user_code_may_change_the_folder() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let init = format!("import os\nos.chdir({:?})\nimport helper\n", elsewhere.path().display().to_string());
    let spec = Spec {
        init: &init,
        map: "def f(v, t):\n    t[\"k\"] = helper.value\n    return 1 // v\n",
        has_table: true,
        ..Spec::default()
    };
    std::fs::write(folder.path().join("agent.yaml"), spec.text()).expect("a spec can be written");
    std::fs::create_dir(folder.path().join("lib")).expect("a folder is made");
    std::fs::write(folder.path().join("lib/helper.py"), "value = 7\n").expect("it can be written");
    std::fs::write(folder.path().join("in.jsonl"), "1\n0\n").expect("it can be written");
    let arguments = [
        "run",
        "agent.yaml",
        "--local",
        "--input",
        "in=in.jsonl",
        "--failures",
        "f.jsonl",
        "--output-dir",
        "o",
        "--state-dir",
        "s",
        "--python-path",
        "lib",
    ];
    let ran = command("kaspr-exec", &arguments).current_dir(folder.path()).output().expect("it starts");
    assert_eq!(ran.status.code(), Some(0), "{}", stderr(&ran));
    for file in ["f.jsonl", "o/out.jsonl", "o/tables/t.jsonl", "s"] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
    assert_eq!(std::fs::read_dir(elsewhere.path()).expect("it is there").count(), 0);
    let tests = "tests:\n  - name: one\n    events: {file: e.jsonl}\n    expect: {topics: {out: [{value: 1}]}}\n";
    let tests = format!("{tests}{}", tests.replace("tests:\n", "").replace("one", "two"));
    std::fs::write(folder.path().join("tests.yaml"), tests).expect("it can be written");
    std::fs::write(folder.path().join("e.jsonl"), "{\"topic\": \"in\", \"value\": 1}\n").expect("it can be written");
    let ran = command("kaspr-exec", &["test", ".", "--python-path", "lib"]).current_dir(folder.path()).output();
    let ran = ran.expect("it starts");
    assert_eq!(ran.status.code(), Some(0), "{}{}", stdout(&ran), stderr(&ran));
}

#[test]
fn handlers_of_signals_do_not_take_the_drains_place() {
    let init = r#"
import asyncio, signal

def mine(number, frame):
    print("handler", number, frame)

print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.signal(signal.SIGTERM, mine) == signal.SIG_DFL)
print(signal.getsignal(signal.SIGTERM) is mine, signal.signal(signal.SIGUSR2, lambda *_: print("USR2")))
asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print, "never")
try:
    signal.signal(signal.SIGTERM, 5.5)
except TypeError:
    print("refused")
"#;
    let map = r#"
import os, signal, time

def f(v):
    if v == 1:
        signal.raise_signal(signal.SIGUSR2)
    if v == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return v
"#;
    let spec = Spec { init, map, ..Spec::default() };
    let folder = tempfile::tempdir().expect("a folder is made");
    std::fs::write(folder.path().join("agent.yaml"), spec.text()).expect("a spec can be written");
    let mut child = command("kaspr-exec", &["run", "agent.yaml", "--local", "--quiet", "--input", "in=-"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kaspr-exec starts");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(b"1\n2\n").expect("it reads");
    // The input stays open: the signal alone ends the process.
    let output = child.wait_with_output().expect("it ends");
    drop(input);
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(143), "{log}");
    let said: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("agent \"one\": ").map(|(_, said)| said)).collect();
    assert_eq!(said, ["True True", "True 0", "refused", "USR2", "handler 15 None"], "{log}");
}

#[test]
fn the_last_words_of_a_process_name_its_event_and_line() {
    let map = r#"
import ctypes, time

def f(v):
    if v == "dies":
        ctypes.string_at(0)
    if v == "blocks":
        ctypes.PyDLL(None).sleep(60)
    return v
"#;
    for (value, call, code, words) in [
        (
            "dies",
            "string_at(0)",
            None,
            "error: the process ends with signal 11 in agent \"one\", operation \"f\" on in/0@1: ",
        ),
        ("blocks", "sleep(60)", Some(75), "error: watchdog: agent \"one\", operation \"f\" on in/0@1 has blocked for "),
    ] {
        let folder = tempfile::tempdir().expect("a folder is made");
        let path = folder.path().join("agent.yaml").display().to_string();
        let text = Spec { map, ..Spec::default() }.text();
        std::fs::write(&path, &text).expect("a spec can be written");
        let arguments = ["run", &path, "--local", "--quiet", "--input", "in=-", "--timeout", "100ms"];
        let ran = kaspr_tests::program::run("kaspr-exec", &arguments, &format!("\"fine\"\n{value:?}\n"));
        let log = stderr(&ran);
        assert_eq!(ran.status.code(), code, "{log}");
        assert!(log.lines().last().is_some_and(|last| last.starts_with(words)), "{log}");
        let line = 1 + text.lines().position(|line| line.contains(call)).expect("it is there");
        assert!(log.contains(&format!("File \"{path}\", line {line} in f")), "{log}");
    }
}
