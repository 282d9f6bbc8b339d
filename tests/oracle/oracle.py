"""What a spec means, by the most direct code that says it: no optimisation, no dataflow, one event
after the other. Beside it, random specs and events, and a comparison with what kaspr-exec makes of them.

    python3 tests/oracle/oracle.py --exec target/debug/kaspr-exec --seeds 0:300

prints nothing but a count where both agree, and for each seed that differs the smallest spec and
events that still do.
"""

import argparse
import asyncio
import base64
import collections
import copy
import datetime
import decimal
import enum
import inspect
import json
import os
import random
import subprocess
import sys
import tempfile
import types
import uuid

loop = asyncio.new_event_loop()
sleep = asyncio.sleep


async def sleep_not(_delay, result=None):
    """What is awaited here ends at once: only the order of things counts."""
    return await sleep(0, result)


asyncio.sleep = sleep_not
sys.setrecursionlimit(1000)


# ---------------------------------------------------------------- values and bytes


class Refused(Exception):
    """A failure that no user code raised."""

    def __init__(self, kind, message=""):
        super().__init__(message)
        self.kind = kind


def plain(value):
    """Objects that JSON does not know, as section 6 writes them."""
    if hasattr(value, "__json__"):
        return value.__json__()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset, collections.deque)):
        return list(value)
    raise TypeError(type(value).__name__)


def encode(codec, value):
    if codec == "json":
        if isinstance(value, bytes):
            return value
        try:
            return json.dumps(value, default=plain).encode()
        except (TypeError, ValueError, RecursionError, UnicodeEncodeError):
            raise Refused("Encode")
    if value is None:
        return None
    if codec == "raw":
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            return as_utf8(value)
        raise Refused("Encode")
    if codec == "binary":
        if isinstance(value, (bytes, str)):
            return base64.b64encode(as_utf8(value) if isinstance(value, str) else value)
        raise Refused("Encode")
    raise AssertionError(codec)


def as_utf8(text):
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Refused("Encode")


def decode(codec, data):
    if data is None:
        return None
    if codec == "raw":
        return data
    try:
        if codec == "binary":
            return base64.b64decode(data, validate=True)
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused("Decode")


# ---------------------------------------------------------------- tables


class Table:
    """A mapping whose keys and values are encoded on write and decoded on read."""

    def __init__(self, default):
        self.committed, self.staged, self.default = {}, {}, default

    def all(self):
        rows = {**self.committed, **self.staged}
        return {key: value for key, value in rows.items() if value is not None}

    @staticmethod
    def bytes_of(value):
        try:
            return json.dumps(value, default=plain).encode()
        except (TypeError, ValueError) as error:
            raise TypeError(str(error))

    @staticmethod
    def key_of(data):
        def tuples(value):
            return tuple(map(tuples, value)) if isinstance(value, list) else value

        return tuples(json.loads(data))

    def __contains__(self, key):
        return self.bytes_of(key) in self.all()

    def __getitem__(self, key):
        found = self.all().get(self.bytes_of(key))
        if found is not None:
            return json.loads(found)
        if self.default is None:
            raise KeyError(key)
        return self.default()

    def get(self, key, *default):
        found = self.all().get(self.bytes_of(key))
        if found is not None:
            return json.loads(found)
        return default[0] if default else self.default() if self.default else None

    def __setitem__(self, key, value):
        self.staged[self.bytes_of(key)] = self.bytes_of(value)

    def __delitem__(self, key):
        if key not in self:
            raise KeyError(key)
        self.staged[self.bytes_of(key)] = None

    def pop(self, key, *default):
        if key in self:
            value = self.get(key)
            del self[key]
            return value
        if default:
            return default[0]
        raise KeyError(key)

    def setdefault(self, key, default=None):
        if key not in self:
            self[key] = default
        return self.get(key)

    def update(self, other):
        for key, value in other.items():
            self[key] = value

    def keys(self):
        return [self.key_of(key) for key in self.all()]

    def values(self):
        return [json.loads(value) for value in self.all().values()]

    def items(self):
        return [(self.key_of(key), json.loads(value)) for key, value in self.all().items()]

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self.all())


# ---------------------------------------------------------------- the meaning of a spec


class Failure(Exception):
    """An event fails at an operation."""

    def __init__(self, agent, operation, error):
        super().__init__(operation)
        self.agent, self.operation = agent, operation
        self.kind = error.kind if isinstance(error, Refused) else type(error).__name__
        self.message = str(error)


class App:
    def __init__(self, spec):
        self.agents = {document["metadata"]["name"]: document["spec"] for document in spec if document["kind"] == "KasprAgent"}
        self.tables, self.topics, self.failures = {}, {}, []
        for document in spec:
            if document["kind"] == "KasprTable":
                default = document.get("spec", {}).get("defaultSelector")
                self.tables[document["metadata"]["name"]] = Table(default and self.function(default, {}))
        self.context = {"app": None}
        self.functions = {}
        self.globals = {}
        for name, agent in self.agents.items():
            scope = {"context": self.context}
            init = agent.get("processors", {}).get("init")
            if init:
                exec(init["python"], scope)
            self.globals[name] = scope

    def function(self, block, scope):
        """The first function that the block defines itself."""
        names = dict(scope)
        before = set(names)
        exec(block["python"], names)
        if "entrypoint" in block:
            return names[block["entrypoint"]]
        return next(names[name] for name in names if name not in before and inspect.isfunction(names[name]))

    def of(self, agent, block):
        key = id(block)
        if key not in self.functions:
            self.functions[key] = self.function(block, self.globals[agent])
        return self.functions[key]

    def call(self, agent, operation, block, value, **tables):
        try:
            return self.awaited(self.of(agent, block)(value, **tables))
        except BaseException as error:
            raise Failure(agent, operation, error)

    @staticmethod
    def awaited(result):
        async def inner():
            # An exception is a result: SystemExit would end the loop otherwise.
            try:
                return True, await result
            except BaseException as error:
                return False, error

        if inspect.isawaitable(result):
            fine, outcome = loop.run_until_complete(inner())
            if not fine:
                raise outcome
            return outcome
        return result

    def each(self, agent, operation, result):
        """A generator's values one by one, anything else by itself."""
        if isinstance(result, types.GeneratorType):
            step = lambda: next(result)
        elif isinstance(result, types.AsyncGeneratorType):
            step = lambda: self.awaited(result.__anext__())
        else:
            yield result
            return
        while True:
            try:
                value = step()
            except (StopIteration, StopAsyncIteration):
                return
            except BaseException as error:
                raise Failure(agent, operation, error)
            yield value

    def truth(self, agent, operation, value):
        try:
            return bool(value)
        except BaseException as error:
            raise Failure(agent, operation, error)

    # One event.

    def process(self, reader, events):
        """One event, or one batch of them, under the failure policy."""
        tries = 0
        while True:
            tries += 1
            self.staged, self.deferred = [], []
            good, refused = [], []
            try:
                for event in events:
                    try:
                        good.append(decode(self.codec(reader), event["value"]))
                    except Refused as error:
                        refused.append((event, Failure(reader, "decode", error)))
                decoded = [event for event in events if all(event is not other for other, _ in refused)]
                batch = "take" in self.agents[reader]["input"]
                if refused and not batch:
                    raise refused[0][1]
                self.context["event"] = [view(event) for event in decoded] if batch else view(events[0])
                if decoded:
                    self.steps(reader, 0, good if batch else good[0])
                    while self.deferred:
                        self.sinks(*self.deferred.pop(0))
            except Failure as failure:
                for table in self.tables.values():
                    table.staged = {}
                policy = self.policy(failure)
                if policy["action"] == "retry" and tries < policy.get("attempts", 3):
                    continue
                # An event that does not decode fails alone, whatever becomes of its batch.
                own = {id(event): alone for event, alone in refused}
                for event in events:
                    self.give_up(event, own.get(id(event), failure), tries)
                return
            for record in self.staged:
                self.topics.setdefault(record[0], []).append(record[1:])
            for table in self.tables.values():
                table.committed.update(table.staged)
                table.staged = {}
            for event, failure in refused:
                self.give_up(event, failure, tries)
            return

    def codec(self, reader):
        return self.agents[reader]["input"]["topic"].get("valueSerializer", "json")

    def policy(self, failure):
        agent = self.agents[failure.agent]
        for operation in agent.get("processors", {}).get("operations", []):
            if operation["name"] == failure.operation and "onError" in operation:
                return operation["onError"]
        return agent.get("onError", {"action": "skip"})

    def give_up(self, event, failure, tries):
        policy = self.policy(failure)
        action = policy.get("then", "skip") if policy["action"] == "retry" else policy["action"]
        if action == "deadLetter":
            headers = list(event["headers"])
            for name, value in (
                ("topic", event["topic"]),
                ("partition", 0),
                ("offset", event["offset"]),
                ("agent", failure.agent),
                ("operation", failure.operation),
                ("kind", failure.kind),
                ("attempt", tries),
            ):
                headers.append(("kaspr.dlq." + name, str(value).encode()))
            self.topics.setdefault(policy["topic"], []).append((event["key"], event["value"], headers))
        self.failures.append((failure.agent, failure.operation, event["offset"], failure.kind))

    def steps(self, agent, index, value):
        processors = self.agents[agent].get("processors", {})
        pipeline = processors.get("pipeline", [])
        if index == len(pipeline):
            return self.outputs(agent, value)
        operation = next(each for each in processors["operations"] if each["name"] == pipeline[index])
        name = operation["name"]
        tables = {table["paramName"]: self.tables[table["name"]] for table in operation.get("tables", [])}
        if "map" in operation:
            result = self.call(agent, name, operation["map"], value, **tables)
            for each in self.each(agent, name, result):
                self.steps(agent, index + 1, each)
        elif "filter" in operation:
            if self.truth(agent, name, self.call(agent, name, operation["filter"], value, **tables)):
                self.steps(agent, index + 1, value)
        else:
            send = operation["topicSend"]
            sent = self.send(agent, name, send, value)
            if send.get("passThrough"):
                going_on = value
            elif send.get("ack") and sent:
                going_on = {"topic": sent, "partition": 0, "offset": -1, "timestamp": "any"}
            else:
                going_on = None
            self.steps(agent, index + 1, going_on)

    def outputs(self, agent, value):
        output = self.agents[agent].get("output", {})
        for topic in output.get("topics", []):
            name = topic.get("name") or self.of(agent, topic["nameSelector"]).__name__ + "()"
            self.send(agent, "output:" + name, topic, value)
        for channel in output.get("channels", []):
            operation = "channel:" + channel["name"]
            if "predicate" in channel and not self.ask(agent, operation, channel, "predicate", value):
                continue
            passed = self.ask(agent, operation, channel, "valueSelector", value) if "valueSelector" in channel else value
            for reader in sorted(self.agents):
                if self.agents[reader]["input"].get("channel", {}).get("name") == channel["name"]:
                    self.steps(reader, 0, passed)
        if output.get("sinks"):
            self.deferred.append((agent, value))

    def sinks(self, agent, value):
        for sink in self.agents[agent]["output"]["sinks"]:
            operation = "sink:" + sink["name"]
            if "predicate" in sink and not self.ask(agent, operation, sink, "predicate", value):
                continue
            given = self.ask(agent, operation, sink, "valueSelector", value) if "valueSelector" in sink else value
            self.call(agent, operation, sink, given)

    def ask(self, agent, operation, of, selector, value):
        result = self.call(agent, operation, of[selector], value)
        return self.truth(agent, operation, result) if selector == "predicate" else result

    def send(self, agent, operation, output, value):
        if "predicate" in output and not self.ask(agent, operation, output, "predicate", value):
            return None
        topic = output.get("name")
        if topic is None:
            topic = self.ask(agent, operation, output, "nameSelector", value)
            if not isinstance(topic, str) or not topic:
                raise Failure(agent, operation, Refused("Topic"))
        given = {}
        for selector in ("keySelector", "valueSelector", "partitionSelector", "headersSelector"):
            if selector in output:
                given[selector] = self.ask(agent, operation, output, selector, value)
            if selector == "partitionSelector" and selector in output:
                partition = given[selector]
                if partition is not None and (isinstance(partition, bool) or not isinstance(partition, int)):
                    raise Failure(agent, operation, Refused("Partition"))
            if selector == "headersSelector" and selector in output:
                given[selector] = self.headers(agent, operation, given[selector])
        try:
            key = encode(output.get("keySerializer", "raw"), given["keySelector"]) if given.get("keySelector") is not None else None
            data = encode(output.get("valueSerializer", "json"), given.get("valueSelector", value))
            if given.get("partitionSelector") not in (None, 0):
                raise Refused("Partition")
        except Refused as error:
            raise Failure(agent, operation, error)
        except BaseException as error:
            raise Failure(agent, operation, error)
        self.staged.append((topic, key, data, given.get("headersSelector", [])))
        return topic

    def headers(self, agent, operation, headers):
        pairs = headers.items() if isinstance(headers, dict) else headers
        encoded = []
        try:
            for name, value in pairs if pairs is not None else []:
                if not isinstance(name, str) or not isinstance(value, (bytes, str, type(None))):
                    raise Refused("Header")
                encoded.append((name, value.encode() if isinstance(value, str) else value))
        except (TypeError, ValueError):
            raise Failure(agent, operation, Refused("Header"))
        except Refused as error:
            raise Failure(agent, operation, error)
        return encoded

    def run(self, events):
        for reader in sorted(self.agents):
            source = self.agents[reader]["input"]
            if "topic" not in source:
                continue
            mine = [event for event in events if event["topic"] == source["topic"]["name"]]
            for unit in self.units(reader, mine, source["take"]["max"] if "take" in source else 1):
                self.process(reader, unit)

    def units(self, reader, events, size):
        """Events as batches of so many values. One that does not decode goes with those before it."""
        unit, values = [], 0
        for event in events:
            unit.append(event)
            try:
                decode(self.codec(reader), event["value"])
                values += 1
            except Refused:
                pass
            if values in (0, size):
                yield unit
                unit, values = [], 0
        if unit:
            yield unit


def view(event):
    headers = {name: value for name, value in event["headers"]}
    message = types.SimpleNamespace(topic=event["topic"], partition=0, offset=event["offset"])
    return types.SimpleNamespace(key=event["key"], headers=headers, message=message)


# ---------------------------------------------------------------- random specs and events

MAPS = [
    "def same(value):\n    return value",
    "def wrap(value):\n    return {'v': value, 'ä': [1, 2.5, None, True]}",
    "def change(value):\n    if isinstance(value, dict):\n        value['seen'] = True\n    return value",
    "def grow(value):\n    if isinstance(value, list):\n        value.append(len(value))\n    return value",
    "def nothing(value):\n    pass",
    "def pair(value):\n    return value, 'é\\ud83d' if value == 'lone' else '\\u00e9'",
    "def twice(value):\n    yield value\n    yield [value]",
    "def none_of_it(value):\n    return\n    yield",
    "def half(value):\n    yield 1\n    raise ValueError('half-way')",
    "import asyncio\nasync def waits(value):\n    await asyncio.sleep(0)\n    return [value]",
    "async def each(value):\n    for part in (value if isinstance(value, list) else [value]):\n        yield part",
    "async def half_async(value):\n    yield 'one'\n    raise KeyError('half-way')",
    "async def inner(value):\n    return {'inner': value}\ndef gives_coroutine(value):\n    return inner(value)",
    "def parts(value):\n    for part in value:\n        yield part\ndef gives_generator(value):\n    return parts(value)",
    "def fails_on_dict(value):\n    return value['missing']",
    "def exits(value):\n    if isinstance(value, str):\n        raise SystemExit(3)\n    return value",
    "def interrupts(value):\n    if value is None:\n        raise KeyboardInterrupt()\n    return value",
    "def deep(value):\n    return deep(value) if value == [] else value",
    "import datetime, decimal, uuid, enum\nclass Colour(enum.Enum):\n    RED = 'red'\n"
    "def objects(value):\n    return [datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.date(2020, 1, 2), decimal.Decimal('1.50'),"
    " uuid.UUID(int=7), Colour.RED, {1}, frozenset([2])]",
    "import collections\ndef queue(value):\n    return collections.deque([value, datetime_of(value)])\n"
    "def datetime_of(value):\n    import datetime\n    return datetime.time(1, 2) if value else None",
    "def bytes_within(value):\n    return [value, b'bytes'] if isinstance(value, dict) else value",
    "class Items:\n    def __iter__(self):\n        return iter([1, 2])\n    def __json__(self):\n        return 'not its items'\n"
    "def iterable(value):\n    return Items()",
    "class Money:\n    def __json__(self):\n        return {'amount': 5}\ndef money(value):\n    return {'m': Money()}",
    "def unknown(value):\n    return object()",
    "def as_bytes(value):\n    return b'\\x00\\xff{}'",
    "def keys(value):\n    return {1: 'a', None: 'b', True: 'c', 2.5: 'd', 'x': value}",
    "class Odd:\n    def __eq__(self, other):\n        raise RuntimeError('compared')\n    def __json__(self):\n        return 'odd'\n"
    "def odd(value):\n    return [Odd(), value]",
    "def numbers(value):\n    return [1e308 * 10, -0.0, 1e-7, 123456789012345678901234567890, float('nan'), 1.0]",
    "def where(value):\n    event = context['event']\n    return [e.message.offset for e in event] if isinstance(event, list) else [event.message.offset, len(event.headers)]",
]
FILTERS = [
    "def all_of_it(value):\n    return True",
    "def truthy(value):\n    return value",
    "def not_text(value):\n    return not isinstance(value, str)",
    "def long(value):\n    return len(value) > 1",
    "async def later(value):\n    return value is not None",
    "def generator(value):\n    yield False",
    "class Broken:\n    def __bool__(self):\n        raise RuntimeError('no truth')\ndef broken(value):\n    return Broken() if value == {} else value",
]
TABLED = [
    "def count(value, t):\n    key = value if isinstance(value, (str, int)) else 'other'\n    t[key] = t.get(key, 0) + 1\n    return [key, t[key]]",
    "def write_then_fail(value, t):\n    t['written'] = value\n    if isinstance(value, list):\n        raise ValueError('after the write')\n    return len(t)",
    "def forget(value, t):\n    t.setdefault('a', [1])\n    t.update({'b': value, (1, 'x'): 2})\n    del t['a']\n    return [sorted(map(str, t)), 'a' in t, t.pop('zz', 9)]",
    "def distinct(value, t):\n    for key in (1, True, 1.0, '1'):\n        t[key] = t.get(key, 0) + 1\n    return len(t)",
    "def missing(value, t):\n    return t['never']",
    "def absent(value, t):\n    try:\n        del t['never']\n    except KeyError as error:\n        return str(error)\n    return 'deleted'",
    "def given(value, t):\n    return [t.get('never', None), t.get('never', 7), t.get('never')]",
    "def unencodable(value, t):\n    t['x'] = object()\n    return value",
    # What is long is cut: lists that hold each other's copies would triple with every event.
    "def copies(value, t):\n    got = t.get('list', [])\n    got.append(value if len(str(value)) < 200 else 'long')\n    before = t.get('list')\n    t['list'] = got[-3:]\n    return [before, t['list']]",
    "def nothing_is_a_value(value, t):\n    before = [t.get('none', 1), 'none' in t]\n    t['none'] = None\n    return before + [t.get('none', 1), 'none' in t, t.setdefault('none', 5)]",
    "def takes_back(value, t):\n    t['gone'] = value\n    t.pop('gone')\n    del_or_key = t.get('gone', 'never was')\n    return [del_or_key, len(t)]",
    "async def across_an_await(value, t):\n    import asyncio\n    t['n'] = (t.get('n', None) or 0) + 1\n    await asyncio.sleep(0)\n    yield t['n']\n    if value == []:\n        raise ValueError(t['n'])",
    "def writes_twice(value, t):\n    t['k'] = 1\n    yield t['k']\n    t['k'] = 2\n    yield t['k']",
]
KEYS = [
    "def key(value):\n    return str(type(value).__name__)",
    "def key(value):\n    return None",
    "def key(value):\n    return b'raw'",
    "def key(value):\n    return context['event'].key if not isinstance(context['event'], list) else b'batch'",
    "def key(value):\n    return 5",
    "async def key(value):\n    return value['id']",
]
VALUES = ["def pick(value):\n    return [value]", "def pick(value):\n    return None", "async def pick(value):\n    return {'of': value}"]
PARTITIONS = ["def p(value):\n    return 0", "def p(value):\n    return None", "def p(value):\n    return 7", "def p(value):\n    return True"]
HEADERS = [
    "def h(value):\n    return {'a': 'x', 'b': b'\\xff', 'c': None}",
    "def h(value):\n    return [('a', '1'), ('a', '2')]",
    "def h(value):\n    return None",
    "def h(value):\n    return {'a': 1}",
]
NAMES = ["def name(value):\n    return 'dyn-' + type(value).__name__", "def name(value):\n    return '' if value is None else 'dyn'", "def name(value):\n    return 5"]
PREDICATES = FILTERS[:5] + ["def never(value):\n    return None if value else 0"]
SINKS = ["def sink(value):\n    pass", "async def sink(value):\n    if isinstance(value, list):\n        raise OSError('no disk')", "def sink(value):\n    if value is None:\n        raise SystemExit()"]

ANY = {
    "maps": MAPS, "filters": FILTERS, "tabled": TABLED, "keys": KEYS, "values": VALUES, "partitions": PARTITIONS,
    "headers": HEADERS, "names": NAMES, "predicates": PREDICATES, "sinks": SINKS,
}
# Functions that use a few fields of their value: the others need not be decoded.
FIELDS = {
    "maps": [
        "def same(v):\n    return v",
        "def sets(v):\n    v['a'] = v.get('b', 0)\n    return v",
        "def adds(v):\n    v['new'] = [v.get('a'), 'b' in v]\n    v['ä'] = 1\n    return v",
        "def counts(v):\n    v['n'] += 1\n    return v",
        "def within(v):\n    v['p']['q'] = v['a']\n    return v",
        "def holds(v):\n    v['a'] = v['p'] = v.get('p')\n    return v",
        "def takes(v):\n    return {'a': v['a'], 'rest': v.get('p', {})}",
        "async def later(v):\n    import asyncio\n    await asyncio.sleep(0)\n    v['later'] = 'b' not in v\n    return v",
        "def other(v):\n    return v if v is None else other_of(v['a'])\ndef other_of(a):\n    return {'a': a}\n",
        "def each(v):\n    for part in v['p']:\n        yield {'part': part, 'a': v.get('a')}",
        "def unless(v):\n    if v['a']:\n        return v\n    return {'no': v.get('n')}",
        "def fails(v):\n    v['a'] = 2\n    if v['n'] == 5:\n        raise ValueError(v['n'])\n    return v",
        "def odd_values(v):\n    v['b'] = float('nan')\n    v['e'] = {1: '\u00e9', None: b'x' if 'n' in v else 1}\n    return v",
        "def whole(v):\n    return [v, v]",
        "def drops(v):\n    v.pop('a', None)\n    v['a'] = 'again'\n    return v",
    ],
    "filters": [
        "def has(v):\n    return 'a' in v", "def set_(v):\n    return v.get('b')", "def reads(v):\n    return v['n'] != 7",
        "def writes(v):\n    v['seen'] = True\n    return 1", "def all_of_it(v):\n    return True", "async def later(v):\n    return v.get('a', True)",
    ],
    "tabled": [
        "def count(v, t):\n    t[str(v.get('a'))] = t.get(str(v.get('a')), 0) + 1\n    v['count'] = t[str(v.get('a'))]\n    return v",
        "def keeps(v, t):\n    t['p'] = v.get('p', 0)\n    return {'was': t['p']}",
    ],
    "keys": ["def key(v):\n    return str(v.get('id'))", "def key(v):\n    return v['a']", "def key(v):\n    return None"],
    "values": ["def pick(v):\n    return v", "def pick(v):\n    return {'a': v['a']}", "def pick(v):\n    v['picked'] = 1\n    return v", "def pick(v):\n    return [v]"],
    "partitions": ["def p(v):\n    return 0 if 'a' in v else None"],
    "headers": ["def h(v):\n    return {'a': str(v.get('a'))}"],
    "names": ["def name(v):\n    return 'dyn-' + type(v['a']).__name__"],
    "predicates": ["def p(v):\n    return v.get('a') != 1", "def p(v):\n    return 'b' in v", "def p(v):\n    return v"],
    "sinks": ["def sink(v):\n    v['sunk'] = v['a']", "async def sink(v):\n    pass"],
}

# Functions that await for different times, and what they read is written meanwhile: with `concurrency` events run
# ahead of their turn, and the result must be the same.
WAIT = "await asyncio.sleep(random.random() * 0.003)"
HEAD = "import asyncio, random\n"
AWAITS = {
    **ANY,
    "maps": [
        HEAD + f"async def later(value):\n    {WAIT}\n    return [value]",
        HEAD + f"async def sometimes(value):\n    if value:\n        {WAIT}\n    return value",
        HEAD + f"async def twice(value):\n    {WAIT}\n    yield value\n    {WAIT}\n    yield [value]",
        HEAD + f"async def fails(value):\n    {WAIT}\n    if isinstance(value, list):\n        raise ValueError('a list')\n    return value",
        HEAD + f"async def where(value):\n    before = context['event']\n    {WAIT}\n    after = context['event']\n"
        "    same = [[e.message.offset for e in (each if isinstance(each, list) else [each])] for each in (before, after)]\n    return [same, value]",
        *MAPS[:9],
    ],
    "filters": [HEAD + f"async def later(value):\n    {WAIT}\n    return value", *FILTERS[:4]],
    "tabled": [
        HEAD + f"async def count(value, t):\n    n = t.get('n', 0) or 0\n    {WAIT}\n    t['n'] = n + 1\n    return n",
        HEAD + f"async def count_each(value, t):\n    key = str(value)[:4]\n    {WAIT}\n    n = t.get(key, 0)\n    {WAIT}\n    t[key] = n + 1 if isinstance(n, int) else 1\n    {WAIT}\n    return [key, t[key]]",
        # Cut: where another step writes these values, text within text would double with every event.
        HEAD + f"async def sees(value, t):\n    before = sorted(map(str, t))\n    {WAIT}\n    return [before, len(t), sorted(str(each)[:99] for each in t.values())]",
        HEAD + f"async def blind(value, t):\n    {WAIT}\n    t['last'] = value\n    return 'written'",
        HEAD + f"async def last(value, t):\n    {WAIT}\n    return ['last' in t, t.get('last', 'none')]",
        HEAD + f"async def steady(value, t):\n    before = t.get('n', 0)\n    {WAIT}\n    assert t.get('n', 0) == before\n    return before",
        HEAD + f"async def every_third(value, t):\n    n = t.get('n', 0) or 0\n    {WAIT}\n    t['n'] = n + 1\n    if n % 3 == 2:\n        raise ValueError(n)\n    return n",
        HEAD + f"async def refuses(value, t):\n    n = t.get('refused', 0)\n    t['refused'] = n + 1\n    {WAIT}\n    if t.get('n', 0):\n        raise KeyError('n is there')\n    return n",
        HEAD + f"async def forgets(value, t):\n    gone = t.pop('n', 'none')\n    {WAIT}\n    t.setdefault('seen', [gone])\n    return gone",
        HEAD + f"async def steps(value, t):\n    for number in range(3):\n        t['steps'] = (t.get('steps', 0) or 0) + 1\n        {WAIT}\n        yield t['steps']",
        HEAD + f"async def looks(value, t):\n    found = [t.get(key, 0) for key in ('n', 'last', 'steps')]\n    {WAIT}\n    return found",
        HEAD + f"async def clears(value, t):\n    n = len(t)\n    {WAIT}\n    if n > 3:\n        for key in list(t):\n            del t[key]\n    return n",
        TABLED[0],
        TABLED[1],
        TABLED[8],
    ],
    "keys": [*KEYS[:2], HEAD + f"async def key(value):\n    {WAIT}\n    return str(type(value).__name__)"],
    "values": [VALUES[0], HEAD + f"async def pick(value):\n    {WAIT}\n    return {{'of': value}}"],
    "predicates": [PREDICATES[1], HEAD + f"async def wanted(value):\n    {WAIT}\n    return value is not None"],
    "sinks": [SINKS[0], HEAD + f"async def sink(value):\n    {WAIT}\n    if isinstance(value, dict):\n        raise OSError('no disk')"],
}

JSON = [
    b"{}", b"[]", b'""', b"null", b"true", b"0", b"-0", b"1.0", b"1e400", b"NaN", b"-Infinity", b'"lone"', b'"\xc3\xa4\xf0\x9f\x98\x80"',
    b'{"id": "k1", "a": [1, 2, {"b": null}]}', b'{"id": 5, "a": 1, "a": 2}', b"12345678901234567890123", b"[1, [2, [3, [4]]]]",
    b'[[[[[[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]]]]]]', b'"\\ud83d\\ude00 \\u0000"', b' {"spaces" : [ ] } ', b"0.1", b'{"id": "x", "n": 1e-7}', b'["a", "b"]',
]
BROKEN = [b"", b"{", b"nul", b"[1,]", b'{"a" 1}', b"\xff\xfe", b"01", b'"\xed\xa0\x80"', b"1 2", b"'a'"]


def block(rng, pool):
    return {"python": rng.choice(pool) + "\n"}


def topic_output(rng, name, pools):
    output = {"name": name} if rng.random() < 0.85 else {"nameSelector": block(rng, pools["names"])}
    for selector, pool, chance in (
        ("predicate", pools["predicates"], 0.3),
        ("keySelector", pools["keys"], 0.4),
        ("valueSelector", pools["values"], 0.2),
        ("partitionSelector", pools["partitions"], 0.15),
        ("headersSelector", pools["headers"], 0.25),
    ):
        if rng.random() < chance:
            output[selector] = block(rng, pool)
    if rng.random() < 0.15:
        output["valueSerializer"] = rng.choice(["json", "raw", "binary"])
    if "keySelector" in output and rng.random() < 0.4:
        output["keySerializer"] = rng.choice(["json", "json", "raw", "binary"])
    return output


def policy(rng, name):
    return rng.choice(
        [
            {"action": "skip"},
            {"action": "deadLetter", "topic": "dead-" + name},
            {"action": "retry", "attempts": 2, "backoff": {"initial": "1ms"}},
            {"action": "retry", "attempts": 3, "backoff": {"initial": "1ms", "factor": 1}, "then": "deadLetter", "topic": "dead-" + name},
        ]
    )


def agent(rng, name, source, channels, pools):
    operations = []
    for number in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 5])):
        operation = {"name": f"op{number}"}
        kind = rng.random()
        if kind < 0.5:
            operation["map"] = block(rng, pools["maps"])
        elif kind < 0.7:
            operation["filter"] = block(rng, pools["filters"])
        elif kind < (0.97 if pools is AWAITS else 0.85):
            operation["tables"] = [{"name": "t", "paramName": "t"}]
            operation["map"] = block(rng, pools["tabled"])
        else:
            operation["topicSend"] = topic_output(rng, f"{name}-sent{number}", pools)
            operation["topicSend"]["passThrough"] = rng.random() < 0.6
        if rng.random() < 0.15:
            operation["onError"] = policy(rng, name)
        # Which function a block means where it defines several is what entrypoint says.
        for kind in ("map", "filter"):
            if kind in operation:
                operation[kind]["entrypoint"] = functions_of(operation[kind]["python"])[-1]
        operations.append(operation)
    output = {}
    topics = [topic_output(rng, f"{name}-out{number}", pools) for number in range(rng.choice([0, 1, 1, 1, 2, 3]))]
    if topics:
        output["topics"] = topics
    if channels:
        output["channels"] = [{"name": channel} for channel in channels]
        for channel in output["channels"]:
            if rng.random() < 0.3:
                channel["predicate"] = block(rng, pools["predicates"])
            if rng.random() < 0.3:
                channel["valueSelector"] = block(rng, pools["values"])
    if rng.random() < 0.2:
        sink = {"name": "s", "python": rng.choice(pools["sinks"]) + "\n"}
        if rng.random() < 0.3:
            sink["predicate"] = block(rng, pools["predicates"])
        if rng.random() < 0.3:
            sink["valueSelector"] = block(rng, pools["values"])
        output["sinks"] = [sink]
    spec = {"input": source, "output": output}
    pipeline = [operation["name"] for operation in operations]
    if pipeline and rng.random() < 0.1:
        pipeline.append(rng.choice(pipeline))
    spec["processors"] = {"pipeline": pipeline, "operations": operations}
    if rng.random() < 0.4:
        spec["onError"] = policy(rng, name)
    return {"apiVersion": "kaspr.io/v1alpha1", "kind": "KasprAgent", "metadata": {"name": name}, "spec": spec}


def functions_of(python):
    import ast

    return [node.name for node in ast.parse(python).body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def generate(seed, pools=ANY):
    rng = random.Random(seed)
    source = {"topic": {"name": "in"}}
    if rng.random() < (0.05 if pools is FIELDS else 0.25):
        source["take"] = {"max": rng.choice([1, 2, 3]), "within": "100s"}
    readers = rng.choice([0, 0, 1, 2])
    channels = ["c"] if readers else []
    spec = [agent(rng, "first", source, channels, pools)]
    spec += [agent(rng, f"reader{number}", {"channel": {"name": "c"}}, [], pools) for number in range(readers)]
    table = {"apiVersion": "kaspr.io/v1alpha1", "kind": "KasprTable", "metadata": {"name": "t"}, "spec": {}}
    if rng.random() < 0.3:
        table["spec"]["defaultSelector"] = {"python": "def zero():\n    return 0\n"}
    spec.append(table)
    events = []
    if pools is AWAITS:
        # Agents of one reader have the least.
        least = rng.choice([2, 3, 5, 1000])
        for document in spec[:-1]:
            document["spec"]["concurrency"] = rng.choice([least, 1000])
    # The events of a topic mostly look alike, and what stands around their values is expected then.
    writer = Writer(rng) if pools is FIELDS and rng.random() < 0.6 else None
    for offset in range(rng.choice([6, 12, 30] if pools is AWAITS or writer else [1, 3, 6, 10])):
        value = None if rng.random() < 0.05 else rng.choice(BROKEN) if rng.random() < 0.08 else rng.choice(JSON)
        if pools is FIELDS and rng.random() < 0.9:
            value = writer.text(rng) if writer and rng.random() < 0.9 else object_text(rng)
        headers = rng.choice([[], [], [("h", b"1"), ("h", b"2")]])
        events.append({"topic": "in", "offset": offset, "key": rng.choice([None, b"k1", b"k2"]), "value": value, "headers": headers})
    return spec, events


PLAIN = [b"1", b"5", b"7", b"1.5", b'"text"', b"true", b"false", b"null", b'"2026-11-24T10:00:00Z"', b"[]", b"{}", b"-3"]
UNUSUAL = [
    b"-0", b"-0.0", b"1.50", b"0.00001", b"0.0001", b"1.0", b"123456789012345.6", b"12345678901234567", b"1e5", b"1E+2", b"10.00",
    b'"\\u00e9"', b'"\xc3\xa9"', b'"\x7f"', b'"\\n\\/"', b'"\\ud83d\\ude00"', b'"\\ud800"', b"[1,2]", b"[1, 2]", b'{"a":1}', b'{"a": 1, "b": [{}]}',
    b'{"a": 1, "a": 2}', b"[ ]", b"{ }", b'{"\xc3\xa9": 1}', b"NaN", b"[1 , 2]", b'{"q": {"r": [1.0, "x"]}}', b"1e400",
]
# Within an object none of these is JSON.
ILL = [b"01", b"tru", b'"\xff"', b"1.", b"[1,]", b'{"a"}', b"-", b'"\\x"', b'"\n"', b"", b"[1 2]"]


class Writer:
    """Writes objects with the same keys and spaces, one after the other."""

    def __init__(self, rng):
        self.comma, self.colon = rng.choice([(b", ", b": "), (b", ", b": "), (b", ", b": "), (b",", b":")])
        names = rng.sample([b"a", b"b", b"n", b"id", b"p", b"other", b"a longer name of a field", b"x"], rng.randrange(1, 8))
        self.layout = {name: self.fields(rng, 2) if rng.random() < 0.4 else None for name in names}
        self.unusual = rng.choice([0, 0.05, 0.2])
        self.ill = rng.choice([0, 0, 0.02])

    def fields(self, rng, depth):
        """The fields of an object within: names, each with the fields of another one or none."""
        names = rng.sample([b"a", b"q", b"site", b"x"], rng.randrange(1, 4))
        return {name: self.fields(rng, depth - 1) if depth and rng.random() < 0.2 else None for name in names}

    def text(self, rng):
        return self.object(rng, self.layout)

    def object(self, rng, fields):
        value = lambda inner: self.object(rng, inner) if inner and rng.random() < 0.95 else self.value(rng)
        return b"{" + self.comma.join(b'"' + name + b'"' + self.colon + value(inner) for name, inner in fields.items()) + b"}"

    def value(self, rng):
        return rng.choice(ILL if rng.random() < self.ill else UNUSUAL if rng.random() < self.unusual else PLAIN)


def object_text(rng):
    """An object as one writer or another would write it, the rare ones too."""
    comma, colon = rng.choice([(b", ", b": "), (b", ", b": "), (b",", b":"), (b" ,\n", b" :\t")])
    names = [b"a", b"b", b"n", b"id", b"p", b"other", b"a longer name of a field", b"x"]
    if rng.random() < 0.15:
        names += [rng.choice([b"\xc3\xa4", b"\\u0061", b'q\\"', b"\x7f", b""])]
    rng.shuffle(names)
    names = names[: rng.randrange(len(names) + 1)]
    if names and rng.random() < 0.1:
        names.append(rng.choice(names))
    unusual = rng.choice([0, 0.1, 0.5])
    ill = rng.choice([0, 0, 0, 0.05])
    value = lambda: rng.choice(ILL if rng.random() < ill else UNUSUAL if rng.random() < unusual else PLAIN)
    pairs = comma.join(b'"' + name + b'"' + colon + value() for name in names)
    end = rng.choice([b"", b"", b"", b" ", b"\n"])
    return end + b"{" + end + pairs + end + b"}" + end


# ---------------------------------------------------------------- the comparison


def text_or_base64(data):
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def record_line(event):
    line = {"topic": "in", "partition": 0, "key": text_or_base64(event["key"])}
    if event["value"] is not None:
        line["valueBase64"] = base64.b64encode(event["value"]).decode()
    line["headers"] = [[name, text_or_base64(value)] for name, value in event["headers"]]
    return json.dumps(line)


def fields(line):
    """The fields of a record, the value as the bytes that stand there."""
    decoder, at, found = json.JSONDecoder(), 1, {}
    while line[at] != "}":
        at += line[at] == ","
        name, at = decoder.raw_decode(line, at)
        start = at + 1
        value, at = decoder.raw_decode(line, start + len(line[start:]) - len(line[start:].lstrip()))
        at += len(line[at:]) - len(line[at:].lstrip())
        found[name] = line[start:at].encode() if name == "value" else value
    return found


def as_bytes(value):
    if value is None:
        return None
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value.encode()


def value_of(record):
    if "value" in record:
        return record["value"]
    if "valueText" in record:
        return record["valueText"].encode()
    return base64.b64decode(record["valueBase64"]) if "valueBase64" in record else None


CHECKED = {"topic", "partition", "offset", "agent", "operation", "kind", "attempt"}


def headers_of(record):
    pairs = [(name, as_bytes(value)) for name, value in record["headers"]]
    return [pair for pair in pairs if not pair[0].startswith("kaspr.dlq.") or pair[0][10:] in CHECKED]


def execute(program, spec, events, folder):
    path = os.path.join(folder, "app.yaml")
    with open(path, "w") as file:
        for document in spec:
            file.write("---\n" + json.dumps(document, indent=1) + "\n")
    with open(os.path.join(folder, "in.jsonl"), "w") as file:
        file.write("".join(record_line(event) + "\n" for event in events))
    out = tempfile.mkdtemp(dir=folder)
    arguments = [program, "run", path, "--local", "--quiet", "--input-format", "record", "--input", f"in={folder}/in.jsonl"]
    arguments += ["--output-dir", out, "--failures", f"{out}/failures", "--log-level", "error", "--on-error", "skip"]
    ran = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "0"})
    if ran.returncode != 0:
        return f"exit status {ran.returncode}\n{ran.stderr[-3000:]}", None, None
    topics, tables = {}, {}
    for name in sorted(os.listdir(out)):
        if name.endswith(".jsonl"):
            with open(os.path.join(out, name)) as file:
                records = [fields(line.rstrip("\n")) for line in file]
            topics[name[:-6]] = [(as_bytes(record["key"]), value_of(record), headers_of(record)) for record in records]
    for name in os.listdir(os.path.join(out, "tables")) if os.path.isdir(os.path.join(out, "tables")) else []:
        with open(os.path.join(out, "tables", name)) as file:
            rows = [fields(line.rstrip("\n")) for line in file]
        tables[name[:-6]] = sorted((json.dumps(row["key"]), value_of(row)) for row in rows)
    with open(f"{out}/failures") as file:
        lines = [json.loads(line)["failure"] for line in file]
    return None, (topics, tables), [(line["agent"], line["operation"], line["offset"], line["kind"]) for line in lines]


def difference(program, spec, events, folder):
    problem, came, failures = execute(program, spec, events, folder)
    if problem:
        return problem
    app = App(copy.deepcopy(spec))
    app.run(events)
    tables = {name: sorted((row_key(key), value) for key, value in table.all().items()) for name, table in app.tables.items()}
    came_tables = {name: came[1].get(name, []) for name in tables}
    for what, expected, got in (
        ("failures", app.failures, failures),
        *((f"topic {name}", app.topics.get(name, []), came[0].get(name, [])) for name in sorted({*app.topics, *came[0]})),
        *((f"table {name}", tables[name], came_tables[name]) for name in tables),
    ):
        expected = [as_list(each) for each in expected]
        got = [as_list(each) for each in got]
        if what.startswith("topic"):
            got = [[key, as_encoded(value, expected[index : index + 1], events), headers] for index, (key, value, headers) in enumerate(got)]
        if expected != got:
            return f"{what}:\n  expected {expected}\n  came     {got}"
    return None


def as_encoded(value, expected, events):
    """An output may forward the event's own bytes where nothing has changed the value (section 6)."""
    if expected and any(value == event["value"] for event in events):
        try:
            if value is None and expected[0][1] == b"null":
                return b"null"
            if value is not None and json.dumps(json.loads(value)).encode() == expected[0][1]:
                return expected[0][1]
        except ValueError:
            pass
    return value


def row_key(key):
    # A table's file shows keys as text where they are text.
    return json.dumps(json.loads(key))


def as_list(each):
    return [list(map(list, part)) if isinstance(part, list) else part for part in each]


def smaller(spec, events):
    """The case with one thing less."""
    for number in range(len(events)):
        kept = [dict(event) for index, event in enumerate(events) if index != number]
        for offset, event in enumerate(kept):
            event["offset"] = offset
        yield spec, kept
    for number, document in enumerate(spec):
        if document["kind"] != "KasprAgent":
            continue
        pipeline = document["spec"]["processors"]["pipeline"]
        for index in range(len(pipeline)):
            less = copy.deepcopy(spec)
            processors = less[number]["spec"]["processors"]
            name = processors["pipeline"].pop(index)
            if name not in processors["pipeline"]:
                processors["operations"] = [each for each in processors["operations"] if each["name"] != name]
            yield less, events
        for kind, outputs in document["spec"]["output"].items():
            for index, output in enumerate(outputs):
                if kind != "channels":
                    less = copy.deepcopy(spec)
                    del less[number]["spec"]["output"][kind][index]
                    yield less, events
                for selector in [name for name in output if name.endswith("Selector") and name != "nameSelector" or name == "predicate"]:
                    less = copy.deepcopy(spec)
                    del less[number]["spec"]["output"][kind][index][selector]
                    yield less, events
        if "onError" in document["spec"]:
            less = copy.deepcopy(spec)
            del less[number]["spec"]["onError"]
            yield less, events


def smallest(program, spec, events, folder, tries=80):
    found = difference(program, spec, events, folder)
    shrunk = True
    while shrunk and tries > 0:
        shrunk = False
        for less, fewer in smaller(spec, events):
            tries -= 1
            left = difference(program, less, fewer, folder) if fewer else None
            if left:
                spec, events, found, shrunk = less, fewer, left, True
                break
            if tries <= 0:
                break
    return spec, events, found


def name_of(pools):
    return "any functions" if pools is ANY else "functions of fields" if pools is FIELDS else "functions that await"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exec", dest="program", required=True)
    parser.add_argument("--seeds", default="0:300", help="FIRST:END")
    parser.add_argument("--only", default="", help="only such seeds: any, fields or await")
    parser.add_argument("--quick", action="store_true", help="stop at the first difference, as it is")
    arguments = parser.parse_args()
    first, end = map(int, arguments.seeds.split(":"))
    cases, differ = 0, 0
    for seed in [each for number in range(first, end) for each in ((number, ANY), (number, FIELDS), (number, AWAITS))]:
        if arguments.only not in name_of(seed[1]):
            continue
        cases += 1
        spec, events = generate(*seed)
        with tempfile.TemporaryDirectory() as folder:
            if not difference(arguments.program, spec, events, folder):
                continue
            differ += 1
            if arguments.quick:
                sys.exit(1)
            spec, events, found = smallest(arguments.program, spec, events, folder)
            print(f"seed {seed[0]} of {name_of(seed[1])} differs:\n{found}\n")
            for document in spec:
                print("---\n" + json.dumps(document, indent=1))
            print("events:", *(record_line(event) for event in events), sep="\n")
            if differ == 5:
                break
    print(f"{cases} cases, {differ} differ")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
