"""The loop that one writes by hand: bytes in, filter, map, bytes out. `by_hand.py stdlib|orjson EVENTS`."""

import gc
import json
import sys
import time


def is_active(reading):
    return reading["active"]


def mark(reading):
    reading["hot"] = reading["celsius"] > 30.0
    return reading


def run(lines, loads, dumps):
    # Results are counted and dropped: kept ones would cost the loop page faults that are not its own.
    records = 0
    for line in lines:
        value = loads(line)
        if not is_active(value):
            continue
        dumps(mark(value))
        records += 1
    return records


def main():
    library, path = sys.argv[1:]
    if library == "orjson":
        import orjson

        loads, dumps = orjson.loads, orjson.dumps
    else:
        loads = json.loads

        def dumps(value):
            return json.dumps(value).encode()

    with open(path, "rb") as file:
        lines = file.read().splitlines()
    run(lines[:1000], loads, dumps)
    gc.collect()
    gc.freeze()
    wall, cpu = time.perf_counter(), time.process_time()
    records = run(lines, loads, dumps)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"cpu": cpu, "wall": wall, "events": len(lines), "records": records}))


main()
