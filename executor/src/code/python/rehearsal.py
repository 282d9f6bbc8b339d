"""What a user's test puts in the place of functions."""

import builtins
import copy
import importlib
import inspect
import json


class _Mock:
    """What the calls of a function give, one after the other."""

    def __init__(self, key, text):
        self.key = key
        self.block, _, self.name = key.rpartition(".")
        given = json.loads(text)
        self.sequence = given.get("sequence")
        self.always = given
        self.calls = 0
        # The namespaces that have it.
        self.places = []

    def outcome(self):
        self.calls += 1
        if self.sequence is None:
            return self.always
        if self.calls > len(self.sequence):
            left = f"it has {len(self.sequence)}, and this is call {self.calls}"
            raise RuntimeError(f'the sequence of the mock "{self.key}" is used up: {left}')
        return _outcome(self.sequence[self.calls - 1])

    def check(self):
        """Finds the classes of all errors, now that all blocks have run."""
        if not self.places:
            raise NameError("no block has a function of this name")
        for outcome in [self.always] if self.sequence is None else map(_outcome, self.sequence):
            if "error" in outcome:
                _class(outcome["error"], self.places)

    def put(self, names):
        """Puts itself in the place of the function of this namespace."""
        original = names[self.name]
        if not callable(original):
            raise TypeError(f'"{self.name}" is no function: it cannot be mocked')
        self.places.append(names)
        # A block starts with the names of init, where the mock may stand already.
        if getattr(original, "_kaspr_mock", None) is not self:
            names[self.name] = _stand_in(original, self.give)
            names[self.name]._kaspr_mock = self

    def give(self):
        outcome = self.outcome()
        if "error" not in outcome:
            return copy.deepcopy(outcome["value"])
        message = outcome["error"].partition(":")[2].strip()
        raised = _class(outcome["error"], self.places)
        raise raised(message) if message else raised()


def _outcome(given):
    """An entry of a sequence: a value as it stands, or a mapping that says which it is."""
    if isinstance(given, dict) and len(given) == 1 and given.keys() <= {"value", "error"}:
        return given
    return {"value": given}


def _class(error, places):
    """The class of an exception: of the block, of Python, or of a module."""
    name = error.partition(":")[0].strip()
    module, _, last = name.rpartition(".")
    if module:
        found = getattr(importlib.import_module(module), last, None)
    else:
        found = next((names[name] for names in places if name in names), getattr(builtins, name, None))
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise NameError(f'"{name}" is no exception: one of another module is written with it, as asyncio.TimeoutError')
    return found


def _stand_in(original, give):
    """A function that is called as the original, awaited or gone through as its result, and gives outcomes."""
    try:
        signature = inspect.signature(original)
    except (TypeError, ValueError):
        signature = None

    def called(args, keywords):
        # A call that the original would refuse is refused.
        if signature is not None:
            signature.bind(*args, **keywords)
        return give()

    if inspect.isasyncgenfunction(original):

        async def stand_in(*args, **keywords):
            for value in _each(called(args, keywords)):
                yield value

    elif inspect.iscoroutinefunction(original):

        async def stand_in(*args, **keywords):
            return called(args, keywords)

    elif inspect.isgeneratorfunction(original):

        def stand_in(*args, **keywords):
            yield from _each(called(args, keywords))

    else:

        def stand_in(*args, **keywords):
            return called(args, keywords)

    stand_in.__name__ = getattr(original, "__name__", "mock")
    stand_in.__signature__ = signature
    return stand_in


def _each(value):
    return value if isinstance(value, list) else [value]


class Mocks:
    """The mocks of a test."""

    def __init__(self, texts):
        self.mocks = [_Mock(key, text) for key, text in texts.items()]

    def put(self, block, names):
        """Replaces functions of a block that has run."""
        for mock in self.mocks:
            if mock.name in names and mock.block in ("", block):
                mock.put(names)

    def faults(self):
        """Mocks that replace nothing, or raise what there is not: each with the error."""
        for mock in self.mocks:
            try:
                mock.check()
            except Exception as error:
                yield mock.key, error
