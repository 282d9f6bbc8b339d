"""The same with Bytewax, as its guide writes it: `python -m bytewax.run "bytewax_flow:flow('SERVERS', 'INPUT', 'OUTPUT')"`
reads the topic to its end. One worker; without a recovery store it commits nothing."""

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from readings import is_active, mark


def flow(servers, source, target):
    flow = Dataflow("bench")
    read = kop.input("read", flow, brokers=[servers], topics=[source], tail=False)
    values = op.map("decode", read.oks, lambda message: orjson.loads(message.value))
    active = op.filter("is_active", values, is_active)
    marked = op.map("mark", active, mark)
    records = op.map("encode", marked, lambda value: KafkaSinkMessage(None, orjson.dumps(value)))
    kop.output("write", records, brokers=[servers], topic=target)
    return flow
