"""The loop that one writes by hand, bytes in, bytes out: `by_hand.py stdlib|orjson map|filter|table|awaits EVENTS`."""

import asyncio
import gc
import json
import sys
import time


def is_active(reading):
    return reading["active"]


def mark(reading):
    reading["hot"] = reading["celsius"] > 30.0
    return reading


def count(reading, seen):
    sensor = reading["sensor"]
    seen[sensor] = seen.get(sensor, 0) + 1
    return {"sensor": sensor, "seen": seen[sensor]}


# Results are counted and dropped: kept ones would cost the loop page faults that are not its own.


def run_map(lines, loads, dumps):
    records = 0
    for line in lines:
        value = loads(line)
        if not is_active(value):
            continue
        dumps(mark(value))
        records += 1
    return records


def run_filter(lines, loads, dumps):
    records = 0
    for line in lines:
        if is_active(loads(line)):
            records += 1
    return records


def run_table(lines, loads, dumps):
    records = 0
    seen = {}
    for line in lines:
        dumps(count(loads(line), seen))
        records += 1
    return records


def run_awaits(lines, loads, dumps):
    async def ask(line, free):
        async with free:
            value = loads(line)
            await asyncio.sleep(0.01)
            return dumps(value)

    async def ask_all():
        free = asyncio.Semaphore(100)
        return await asyncio.gather(*(ask(line, free) for line in lines))

    return len(asyncio.run(ask_all()))


def main():
    library, case, path = sys.argv[1:]
    run = {"map": run_map, "filter": run_filter, "table": run_table, "awaits": run_awaits}[case]
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
