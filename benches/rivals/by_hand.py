"""What a good engineer writes by hand for Kafka: confluent-kafka, one wait for what comes, the rest taken without one.

`by_hand.py SERVERS GROUP INPUT OUTPUT EVENTS [json|orjson] [once]` reads EVENTS events and ends. At least once: what
was sent is flushed and committed every 5 s. With `once`: a transaction every 100 ms.
"""

import json
import sys
import time

import orjson
from confluent_kafka import Consumer, KafkaException, Producer
from readings import is_active, mark

BATCH = 1000
COMMIT_EVERY, TRANSACTION_EVERY = 5.0, 0.1


def main():
    servers, group, source, target, events, *more = sys.argv[1:]
    events, once = int(events), "once" in more
    loads, dumps = (json.loads, json.dumps) if "json" in more else (orjson.loads, orjson.dumps)
    consumer = Consumer({
        "bootstrap.servers": servers,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 10,
    })
    producer = Producer({
        "bootstrap.servers": servers,
        "linger.ms": 5,
        "enable.idempotence": True,
        "delivery.report.only.error": True,
        **({"transactional.id": group} if once else {}),
    })
    consumer.subscribe([source])
    if once:
        producer.init_transactions()
        producer.begin_transaction()
    every = TRANSACTION_EVERY if once else COMMIT_EVERY
    seen, committed, due = 0, 0, time.monotonic() + every

    def commit():
        nonlocal committed
        if committed < seen and once:
            positions = consumer.position(consumer.assignment())
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
            producer.commit_transaction()
            producer.begin_transaction()
        elif committed < seen:
            producer.flush()
            consumer.commit(asynchronous=False)
        committed = seen

    while seen < events:
        first = consumer.poll(every)
        if first is not None:
            for message in [first, *consumer.consume(BATCH - 1, 0)]:
                if message.error():
                    raise KafkaException(message.error())
                value = loads(message.value())
                seen += 1
                if not is_active(value):
                    continue
                record = dumps(mark(value))
                while True:
                    try:
                        producer.produce(target, record)
                        break
                    except BufferError:
                        producer.poll(0.01)
        producer.poll(0)
        if time.monotonic() >= due:
            commit()
            due = time.monotonic() + every
    commit()
    consumer.close()


main()
