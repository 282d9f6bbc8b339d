"""Breaks one rule of delivery after the other and shows that some seed of the simulator sees it, or the
test that SEEN_BY names.

    python3 tests/oracle/sim_mutants.py [--only TEXT] [--seeds 2000]

Works on a copy in target/mutants, never on the tree itself. Each mutant is a rule and the places where
it is broken: a text that stands exactly once in the executor's sources, and what takes its place. `--check`
only looks whether every text is still there once.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

import mutants

ABANDONS = "let is_clear = committed || self.delivery.abandon(self.shared.clock.as_ref());\n        self.give_up(names)?;"
STALE = "self.stale |= around.clock.now() - before >= self.bounds.slow_call;\n        committed"
LEAST = "assigned.readers.iter().map(|reading| reading.ledger.committing()).min()"
AHEAD = "let ahead = assigned.readers.iter().filter(|reading| reading.ledger.committing() > offset);"
HOW_FAR = "(self.readers[reading.reader].hash, reading.ledger.committing() - offset)"
TAKES_TURNS = "while self.halted.is_none() && self.shared.units_left() > 0 && !self.track_is_busy(id) {"
NAMELESS = "if !closing.offsets.is_empty() && !group.is_member() {"

MUTANTS = [
    ("offsets belong to the transaction", [
        ("let committed = self.end_transaction(&group);",
         "drop(around.consumer.commit(&closing.offsets));\n        let committed = self.end_transaction(&group);"),
        ("self.producer.send_offsets(&closing.offsets, group)?;", "let _ = (closing, group);"),
    ]),
    ("an abort takes readers back", [("reading.ledger.go_back();\n", "")]),
    ("an abort drops the overlay", [("self.shared.tables.borrow_mut().abort();\n        let back", "let back")]),
    ("tables are restored to the high watermark", [
        ("let ends = self.read()?.ends(&names)?;",
         "let mut ends = self.read()?.ends(&names)?;\n"
         "        for (name, ends) in names.iter().zip(&mut ends) {\n"
         "            let high = self.read()?.stable_end(name)?;\n"
         "            *ends = ends.map(|ends| Watermarks { high, ..ends });\n"
         "        }"),
    ]),
    ("a call with an unknown outcome costs the producer", [
        ("self.producer.init_transactions()?;\n            (self.stale, self.question)", "(self.stale, self.question)"),
    ]),
    ("a slow call costs the producer", [(STALE, "let _ = before;\n        committed")]),
    ("a slow call that fails costs the producer", [(STALE, STALE.replace("self.stale |=", "self.stale |= committed.is_ok() &&"))]),
    ("what was revoked is not committed later", [
        (ABANDONS, "let is_clear = committed;\n        self.give_up(names)?;"),
        ("closing.offsets.retain(|offset| !names.contains(&offset.partition));", "let _ = (closing, names);"),
    ]),
    ("who has no member id commits nothing", [
        ("self.generation >= 1 && !self.member.is_empty()", "self.generation >= -1"),
    ]),
    ("the member id is asked for when offsets are sent", [(NAMELESS, "if false {")]),
    ("committed offsets are asked for when they are stable", [
        ("group.is_some_and(|group| !group.is_stable(partition))", "group.is_some_and(|_| partition.partition < 0)"),
    ]),
    ("readers' positions travel in the metadata", [(AHEAD, AHEAD.replace("> offset", "> i64::MAX - 1"))]),
    ("the least position of the readers is committed", [(LEAST, LEAST.replace("min()", "max()"))]),
    ("offsets are fixed when a commit begins", [
        (LEAST, LEAST.replace("committing()", "done()")),
        (AHEAD, AHEAD.replace("committing()", "done()")),
        (HOW_FAR, HOW_FAR.replace("committing()", "done()")),
        ("let (closing, _) = self.closing.as_ref().expect(\"a commit is under way\");\n        let group",
         "let (closing, _) = self.closing.as_mut().expect(\"a commit is under way\");\n"
         "        closing.offsets = around.assignment.offsets()?;\n        let group"),
    ]),
    ("a commit stores its own writes, not later ones", [
        ("        let passes = |table, partition| {",
         "        let newest: Vec<TableWrite> = writes.iter().copied().flatten().map(|write| TableWrite { value: self.overlay"
         ".get(write.table, write.partition, &write.key).cloned().flatten(), ..write.clone() }).collect();\n"
         "        let writes: &[&[TableWrite]] = &[&newest];\n        let passes = |table, partition| {"),
    ]),
    ("the metadata, too, tells whether a transaction was committed", [
        ("found.first().and_then(Option::as_ref) == Some(&sent.committed)",
         "found.first().and_then(Option::as_ref).map(|found| found.offset) == Some(sent.committed.offset)"),
    ]),
    ("a window gives way where it fills its partition's queue", [("if held * 2 >= queued {", "if held * 2 > queued * 2 {")]),
    ("windows lose what is revoked", [("window.borrow_mut().drop_partitions(&gone);", "let _ = window;")]),
    ("markers are passed where the consumer is", [
        ("in self.partitions.values_mut().filter(|assigned| assigned.started) {\n            let Some(position)",
         "in self.partitions.values_mut() {\n            let Some(position)"),
    ]),
    ("what was polled before a start is not taken after it", [
        ("            self.give();\n            all += polled;", "            all += polled;"),
        ("            None => self.take_over()?,\n        }\n        if polled", "            None => self.take_over()?,\n        }\n        self.give();\n        if polled"),
    ]),
    ("no worker starts over while an outcome is unknown", [
        ("self.abandoned = true;\n            return false;", "return true;"),
    ]),
    ("slow code runs while no transaction is open", [
        ("if now.saturating_sub(began) >= self.slow_code {", "if now.saturating_sub(began) == Duration::MAX {"),
    ]),
    ("retention that passes one reader takes nothing from another", [
        ("let position = offset.max(stood + ahead(reader));", "let _ = stood;\n            let position = offset + ahead(reader);"),
    ]),
    ("an await that ends is a unit of its own", [
        ("                if self.shared.units_left() == 0 {\n                    return;\n                }\n", ""),
        (TAKES_TURNS, TAKES_TURNS.replace("self.shared.units_left() > 0 && ", "")),
    ]),
    ("an event that read what was written meanwhile runs again", [
        ("seen > self.forgotten && last.is_none_or(|last| last <= seen)", "seen > self.forgotten"),
    ]),
    ("what ran ahead of its turn is given up with the rest", [
        ("stage.cancel_awaits();", "let _ = &stage;"),
    ]),
    ("a dead letter waits for the word on its topic", [
        ("known.err().filter(|fault| fault.passes)", "known.err().filter(|_| false)"),
    ]),
]

# Where committed offsets are asked for when they are stable, nobody can see that tables are not restored
# beyond them: so a test of its own says it. So it does of retention and of topics that nobody tells of, which the
# simulator does not have.
SEEN_BY = {
    "tables are restored to the high watermark": "restore",
    "retention that passes one reader takes nothing from another": "worker",
    "a dead letter waits for the word on its topic": "worker",
    "a window gives way where it fills its partition's queue": "worker",
}

# Seeds that are run before the next look whether one has failed.
SEEDS_AT_ONCE = 200


def test_program(name):
    """A test program of the copy, built; dependencies are shared with the tree. None: it does not build."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(mutants.ROOT / "target"), "RUST_BACKTRACE": "0"}
    command = ["cargo", "test", "--no-run", "-p", "kaspr-tests", "--test", name]
    built = subprocess.run(command, cwd=mutants.COPY, env=environment, capture_output=True, text=True)
    found = re.search(r"Executable .*\((.*)\)", built.stderr)
    if built.returncode != 0 or not found:
        print(built.stderr[-3000:])
        return None
    return found[1]


def first_failure(program, seeds):
    """The first seed that fails and why, or None."""
    for first in range(0, seeds, SEEDS_AT_ONCE):
        environment = {**os.environ, "SEEDS": f"{first}..{min(first + SEEDS_AT_ONCE, seeds)}", "RUST_BACKTRACE": "0"}
        environment.pop("SEED", None)
        ran = subprocess.run([program, "--nocapture"], cwd=mutants.COPY / "tests", env=environment, capture_output=True, text=True)
        failed = re.search(r"^seed (\d+): (.*)$", ran.stdout, re.MULTILINE)
        if failed:
            return f"seed {failed[1]}: {failed[2][:100]}"
        if ran.returncode != 0:
            return "the simulator ends"
    return None


def failed_test(program):
    """The first test of a program that fails, or None."""
    ran = subprocess.run([program], cwd=mutants.COPY / "tests", capture_output=True, text=True)
    failed = re.search(r"^test (\S+) ... FAILED$", ran.stdout, re.MULTILINE)
    return failed and failed[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose rule contains this")
    parser.add_argument("--check", action="store_true", help="only look whether every text has its place")
    parser.add_argument("--seeds", type=int, default=2000, help="seeds that a mutant may survive")
    arguments = parser.parse_args()
    if arguments.check:
        places = [mutants.place(mutants.ROOT, rule, old) for rule, places in MUTANTS for old, _ in places]
        return print(f"{len(MUTANTS)} mutants, each of {len(places)} texts has its place")
    mutants.copy()
    missed = 0
    chosen = [mutant for mutant in MUTANTS if arguments.only in mutant[0]]
    for rule, places in chosen:
        texts = {}
        for old, new in places:
            path = mutants.place(mutants.COPY, rule, old)
            text = path.read_text()
            texts.setdefault(path, text)
            path.write_text(text.replace(old, new))
        name = SEEN_BY.get(rule, "simulator")
        program = test_program(name)
        caught = program and (first_failure(program, arguments.seeds) if name == "simulator" else failed_test(program))
        for path, text in texts.items():
            path.write_text(text)
        missed += not caught
        print(f"{'caught' if caught else 'MISSED'}  {rule}  {caught or ''}", flush=True)
    print(f"{len(chosen)} mutants, {missed} missed")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
