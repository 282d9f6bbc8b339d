"""The same with Quix Streams, as its guide writes it: `quix.py SERVERS GROUP INPUT OUTPUT EVENTS [once]`. Its own JSON
is orjson; at least once it commits every 5 s."""

import sys

from quixstreams import Application
from readings import is_active, mark


def main():
    servers, group, source, target, events, *more = sys.argv[1:]
    app = Application(
        broker_address=servers,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once" if "once" in more else "at-least-once",
        loglevel="ERROR",
    )
    readings = app.dataframe(app.topic(source, value_deserializer="json"))
    readings.filter(is_active).apply(mark).to_topic(app.topic(target, value_serializer="json"))
    # It counts records out: nine of ten readings are active.
    app.run(count=int(events) // 10 * 9, collect=False)


main()
