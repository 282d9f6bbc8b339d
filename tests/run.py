"""Builds all test programs, runs two of them at a time, and sums up what failed. Ends with 1 if anything did.

    python3 tests/run.py [--lanes 2]

Tests of delivery mostly wait: for a session to time out, for a broker to come back. Those of the compiler and
the oracle compute. Side by side they need little longer than the longer ones alone.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from concurrent import futures

import summary

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Programs that take longest, in this order: begun first, so that none of them runs alone at the end.
LONGEST = ["delivery", "simulator", "kafka", "oracle", "quiet", "cluster", "restarts", "tables", "guard"]

# How cargo is asked for one program of a kind.
FLAGS = {"lib": "--lib", "bin": "--bin {}", "test": "--test {}", "example": "--example {}", "bench": "--bench {}"}


class Job:
    """A test program: its command, the folder that cargo would run it in, and how to run it again."""

    def __init__(self, name, command, folder, again):
        self.name, self.command, self.folder, self.again = name, command, folder, again

    def run(self):
        """Runs it to its end; what it says, in the form of `cargo test`."""
        done = subprocess.run(self.command, cwd=self.folder, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        lines = done.stdout.splitlines(keepends=True)
        if self.again is None:
            return lines
        lines.insert(0, f"     Running {self.name} (target/debug/deps/{self.name}-0)\n")
        return lines + ([f"error: test failed, to rerun pass `{self.again}`\n"] if done.returncode else [])


def built():
    """All test programs, those that take longest first. Ends the process where one does not build."""
    command = ["cargo", "test", "--quiet", "--no-run", "--workspace", "--message-format=json-render-diagnostics"]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if made.returncode:
        sys.exit(made.returncode)
    messages = [json.loads(line) for line in made.stdout.splitlines()]
    jobs = [job(message) for message in messages if message.get("executable") and message["profile"]["test"]]
    jobs.append(Job("examples", ["cargo", "test", "--no-fail-fast", "--doc", "--workspace"], ROOT, None))
    place = {name: number for number, name in enumerate(LONGEST)}
    return sorted(jobs, key=lambda job: (place.get(job.name, len(place)), job.name))


def job(message):
    target, folder = message["target"], pathlib.Path(message["manifest_path"]).parent
    package = message["package_id"].rpartition("#")[2].partition("@")[0]
    flag = FLAGS[target["kind"][0]].format(target["name"])
    return Job(target["name"], [message["executable"]], folder, f"-p {package} {flag}")


def side_by_side(jobs, lanes):
    """Runs the jobs, so many at a time, and prints each as it ends."""
    programs, broken = [], False
    with futures.ThreadPoolExecutor(lanes) as pool:
        for done in futures.as_completed([pool.submit(job.run) for job in jobs]):
            read, is_broken = summary.read(done.result())
            programs += read
            broken |= is_broken or not read
    return programs, broken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=min(2, os.cpu_count() or 1), help="programs at a time")
    arguments = parser.parse_args()
    sys.exit(summary.sum_up(*side_by_side(built(), arguments.lanes)))


if __name__ == "__main__":
    main()
