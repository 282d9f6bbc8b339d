"""Breaks one rule of the executor after the other and shows that a test sees it.

    python3 tests/oracle/mutants.py [--only TEXT]

Works on a copy in target/mutants, never on the tree itself. Each line names the rule, the file, what
stands there, what takes its place, and the check that must fail.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COPY = ROOT / "target" / "mutants"

MUTANTS = [
    ("a filter keeps what is true", "walk.rs", "Then::Keep if !machine.code.truth(&result)", "Then::Keep if machine.code.truth(&result)", "oracle"),
    ("a predicate that says no sends nothing", "walk.rs", "Then::Unless(past) if !machine.code.truth(&result)", "Then::Unless(past) if machine.code.truth(&result)", "oracle"),
    ("channels feed their readers in the order of names", "walk.rs", "for &entry in entries.iter().rev() {", "for &entry in entries.iter() {", "oracle"),
    ("topicSend without passThrough hands on nothing", "walk.rs", "Instruction::Nothing => value = machine.code.none(),", "Instruction::Nothing => {}", "oracle"),
    ("a key that is None is a null key", "walk.rs", "draft.key.as_ref().filter(|key| !machine.code.is_none(key))", "draft.key.as_ref()", "oracle"),
    ("a generator goes on behind its first value", "walk.rs", "self.stack.push(Point::Values(steps));\n                self.stack.push(Point::Value { at, value, via });", "self.stack.push(Point::Value { at, value, via });", "oracle"),
    ("sinks run last of all", "walk.rs", "self.deferred.push_back((at + 1, value, via));", "self.stack.push(Point::Value { at: at + 1, value, via });", "executor"),
    ("what a channel's selectors say is seen behind it", "walk.rs", "via: behind.clone() });", "via: None });", "golden"),
    ("a failed event leaves no effects", "stage/mod.rs", "let frame = walk.frame.clone();\n                self.spare", "let frame = walk.frame.clone();\n                self.effects.keep(&mut frame.scratch.borrow_mut());\n                self.spare", "oracle"),
    ("an event that does not decode fails with Decode", "stage/mod.rs", 'Fault { kind: "Decode".to_owned(), ..fault }', "fault", "oracle"),
    ("an await that takes too long fails", "stage/mod.rs", "lane.await_ends = limit.map(|limit| self.shared.clock.now() + limit);", "lane.await_ends = None;", "executor"),
    ("isolated partitions are tracks of their own", "stage/mod.rs", "if self.track.per_partition { partition } else { None }", "None::<i32>.and(partition)", "executor"),
    ("attempts count all tries", "stage/failing.rs", "if lane.tries + 1 < *attempts {", "if lane.tries < *attempts {", "oracle"),
    ("a back-off waits", "stage/failing.rs", "lane.held_until = Some(self.shared.clock.now() + wait);", "lane.held_until = Some(self.shared.clock.now());", "tested"),
    ("retry ends with what then says", "stage/failing.rs", "OnError::Retry { then, .. } => then,", "OnError::Retry { .. } => &OnError::Skip,", "oracle"),
    ("a dead letter keeps the event's headers", "stage/failing.rs", "let mut headers = event.headers.clone();", "let mut headers = Vec::new();", "oracle"),
    ("refused events of a batch fail alone", "stage/failing.rs", "Some((_, own)) => self.give_up(id, event, self.program.decoding, own),", "Some(_) => self.give_up(id, event, site, fault),", "oracle"),
    ("halt stops before the event", "stage/failing.rs", "if matches!(last_resort(&self.site(site).on_error), OnError::Halt) {", "if false {", "programs"),
    ("an operation's policy goes before its agent's", "program.rs", "let policy = own.or(of.on_error.as_ref())", "let policy = of.on_error.as_ref().or(own)", "oracle"),
    ("an operation's timeout counts", "program.rs", "own_timeout.or(of.timeout_ms).map(Duration::from_millis)", "own_timeout.and(of.timeout_ms).map(Duration::from_millis)", "executor"),
    ("values are picked before they are sent", "walk.rs", "let value = draft.value.as_ref().unwrap_or(value);\n            machine.code.encode(&target.value_codec, value,", "machine.code.encode(&target.value_codec, value,", "oracle"),
    ("a batch holds max values", "window.rs", "if open.count >= self.max || early", "if open.count > self.max || early", "oracle"),
    ("only values that decode count towards max", "window.rs", "open.count += u32::from(decodes);", "open.count += 1;", "oracle"),
    ("a window is measured from its first event", "window.rs", "open.bytes += event.size();", "open.due = due;\n        open.bytes += event.size();", "tested"),
    ("a call into a loop is interrupted", "guard/watch.rs", "_ if age >= limit => Rang::Call,", "_ if age >= limit * 1000 => Rang::Call,", "executor"),
    ("what is awaitable is awaited", "python/mod.rs", "Kind::Awaitable => self.begin(py, &result, with, false),", "Kind::Awaitable => Called::Value(result.unbind()),", "oracle"),
    ("bytes pass by JSON in outputs", "python/codec.rs", "Ok(bytes) => out.extend_from_slice(bytes.as_bytes()),", "Ok(_) => return Err(Fault::new(\"Encode\", \"bytes\")),", "oracle"),
    ("the last of a repeated header wins", "python/entry.rs", "for (name, value) in given.unwrap_or(&self.event.headers) {", "for (name, value) in given.unwrap_or(&self.event.headers).iter().rev() {", "golden"),
    ("t.get gives what is given", "python/table.rs", "None if !default.is_empty() => Ok(default.get_item(0)?.unbind()),", "None if default.len() > 1 => Ok(default.get_item(0)?.unbind()),", "oracle"),
    ("deleting a missing key is a KeyError", "python/table.rs", "if self.find_bytes(py, key)?.is_none() {\n            return Err(PyKeyError::new_err(key.clone().unbind()));\n        }\n        self.delete(py, key)", "self.delete(py, key)", "oracle"),
    ("an event that ended the process three times is not run", "stage/mod.rs", "if condemned.is_empty() {", "if true {", "guard"),
    ("what blocks ends the process", "guard/watchdog.rs", "age >= limit + grace(limit)", "age >= limit * 1000", "guard"),
    ("a step of a coroutine is timed", "python/step.rs", "let outer = alarm.watch.enter(doing);", "let outer = alarm.watch.enter(&Doing { row: u32::MAX, ..*doing });", "guard"),
    ("a process that is told to end blames no event", "cli/stop.rs", "        watch.spare();", "        let _ = watch;", "guard"),
    ("a stall is told once", "stall.rs", "if !seen.told && held >= self.after {", "if held >= self.after {", "guard"),
    ("a block's namespace is its own", "python/load.rs", "return globals.copy();", "return Ok(globals.clone());", "golden"),
    ("an event sees the writes of events before it", "tables.rs", "Some(staged) => staged.value.clone(),", "Some(_) => self.store.get(table, partition, key),", "oracle"),
]

# A mutant that waits for ever is caught by its check taking so long.
CHECK_SECONDS_MAX = 90

# The check that must fail: a command in the copy.
CHECKS = {
    "oracle": [sys.executable, "tests/oracle/oracle.py", "--exec", "target/debug/kaspr-exec", "--seeds", "0:400", "--quick"],
    "tested": ["target/debug/kaspr-exec", "test", "specs/tested"],
    "golden": ["golden"],
    "executor": ["executor"],
    "programs": ["programs"],
    "guard": ["guard"],
}


def run(command, **more):
    return subprocess.run(command, cwd=COPY, capture_output=True, text=True, **more)


def prepare():
    """The copy as it is, built, with the test programs that the checks run."""
    COPY.mkdir(parents=True, exist_ok=True)
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        source, copy = ROOT / name, COPY / name
        if source.is_file() and (not copy.exists() or source.read_bytes() != copy.read_bytes()):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            shutil.copymode(source, copy)
    build(["--workspace", "--bins"])
    built = run(["cargo", "test", "--no-run", "-p", "kaspr-tests", "--test", "golden", "--test", "executor", "--test", "programs", "--test", "guard"], env=environment())
    assert built.returncode == 0, built.stderr
    for line in built.stderr.splitlines():
        if "Executable" in line:
            path = line[line.index("(") + 1 : line.rindex(")")]
            CHECKS[pathlib.Path(path).name.rsplit("-", 1)[0]] = [path, "--skip", "on_kafka"]


def environment():
    return {**{name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}, "RUST_BACKTRACE": "0"}


def build(what):
    built = run(["cargo", "build", "--quiet", *what], env=environment())
    return built.returncode == 0 or print(built.stderr)


def passes(check):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(CHECKS[check], cwd=COPY, env=environment(), start_new_session=True, **quiet)
    try:
        return running.wait(CHECK_SECONDS_MAX) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        # What the check has started ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose rule contains this")
    parser.add_argument("--skip", type=int, default=0, help="the first so many")
    arguments = parser.parse_args()
    prepare()
    for check in CHECKS:
        assert passes(check), f"{check} fails without a mutant"
    missed = 0
    chosen = [mutant for mutant in MUTANTS[arguments.skip :] if arguments.only in mutant[0]]
    for rule, name, old, new, check in chosen:
        path = COPY / "executor/src" / name
        text = path.read_text()
        assert text.count(old) == 1, f"{rule}: the line stands {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new))
        caught = build(["-p", "kaspr-exec"]) and not passes(check)
        path.write_text(text)
        missed += not caught
        print(f"{'caught' if caught else 'MISSED'}  by {check:8}  {rule}", flush=True)
    print(f"{len(chosen)} mutants, {missed} missed")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
