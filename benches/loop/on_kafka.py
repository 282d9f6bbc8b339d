"""What one writes by hand for Kafka: batches of 1000, orjson, at least once.

`on_kafka.py SERVERS GROUP INPUT OUTPUT EVENTS` reads EVENTS events, prints what it took and ends.
"""

import json
import sys
import time

import orjson
from confluent_kafka import Consumer, Producer

BATCH = 1000


def is_active(reading):
    return reading["active"]


def mark(reading):
    reading["hot"] = reading["celsius"] > 30.0
    return reading


def main():
    servers, group, source, target, events = sys.argv[1:]
    events = int(events)
    consumer = Consumer({
        "bootstrap.servers": servers,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 10,
    })
    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
    consumer.subscribe([source])
    seen = records = 0
    started = None
    while seen < events:
        messages = consumer.consume(BATCH, timeout=0.1)
        if not messages:
            continue
        if started is None:
            started = time.perf_counter(), time.process_time()
        for message in messages:
            if message.error():
                raise SystemExit(str(message.error()))
            value = orjson.loads(message.value())
            seen += 1
            if not is_active(value):
                continue
            while True:
                try:
                    producer.produce(target, orjson.dumps(mark(value)))
                    break
                except BufferError:
                    producer.poll(0.01)
            records += 1
        producer.flush()
        consumer.commit(asynchronous=False)
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    consumer.close()
    print(json.dumps({"cpu": cpu, "wall": wall, "events": seen, "records": records}))


main()
