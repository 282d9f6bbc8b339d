"""Reads what `cargo test --no-fail-fast` says: a line for each test program as it ends, what failed, and
how to run that again. Ends with 1 if anything failed."""

import re
import sys

RUNNING = re.compile(r"^\s+(?:Running .*/deps/(\S+)-\w+\)|Doc-tests (\S+))$")
PASSED = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;.*finished in ([\d.]+)s")
FAILED = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. FAILED")
AGAIN = re.compile(r"to rerun pass `(.+)`")


class Program:
    """A test program: what it has said, and which of its tests failed."""

    def __init__(self, name):
        self.name, self.lines, self.failed, self.again = name, [], [], ""
        self.passed, self.seconds, self.ended = 0, 0.0, False


def read(lines):
    """Programs in the order in which they ran, and whether cargo ran at all."""
    programs, broken = [], False
    for line in lines:
        if found := RUNNING.match(line):
            programs.append(Program(found[1] or f"examples of {found[2]}"))
            continue
        if not programs or line.startswith("error: could not compile"):
            # Cargo itself, or the compiler.
            broken |= line.startswith("error")
            print(line, end="", flush=True)
            continue
        program = programs[-1]
        program.lines.append(line)
        if found := FAILED.match(line):
            program.failed.append(found[1])
        elif found := PASSED.match(line):
            program.passed, program.seconds, program.ended = int(found[1]), float(found[3]), True
            tell(program)
        elif found := AGAIN.search(line):
            program.again = found[1]
            if not program.ended:
                tell(program)
    return programs, broken


def tell(program):
    verdict = "ok" if program.ended and not program.failed else "FAILED"
    print(f"  {verdict:6} {program.name:32} {program.passed:4} passed {program.seconds:7.1f} s", flush=True)
    if verdict != "ok":
        print("".join(program.lines), flush=True)


def sum_up(programs, broken):
    """Prints all that failed, each with how to run it again; gives the exit status."""
    failed = 0
    for program in programs:
        again = program.again or program.name
        for name in program.failed:
            failed += 1
            print(f"failed: {program.name}: {name}\n  again: cargo test {again} -- --exact '{name}'")
        if not program.ended:
            failed += 1
            print(f"failed: {program.name} ended before its tests did\n  again: cargo test {again}")
    print(f"{sum(program.passed for program in programs)} passed, {failed} failed")
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(sum_up(*read(sys.stdin)))
