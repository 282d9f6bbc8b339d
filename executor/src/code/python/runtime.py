"""The few lines of Python between the worker and the user's code: loop, log, linecache."""

import asyncio
import contextvars
import linecache
import logging
import selectors
import sys
import traceback

FILE = "<kaspr>"

entry = contextvars.ContextVar("kaspr_entry", default=None)



class _Selector(selectors.DefaultSelector):
    """Says when it waits: nothing runs meanwhile that anyone would have to watch."""

    def select(self, timeout=None):
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        rest()
        try:
            return super().select(timeout)
        finally:
            stir()


def rest():
    """The worker's thread waits: the worker puts its own in the place of this one."""


def stir():
    """It goes on: as above."""


loop = asyncio.SelectorEventLoop(_Selector())
asyncio.set_event_loop(loop)
_woken_by = None


class Timeout(BaseException):
    """Interrupts a call that takes too long; no handler for Exception swallows it."""


async def _run(awaitable, of):
    # An exception is a result: SystemExit and KeyboardInterrupt must not pass through the loop.
    entry.set(of)
    try:
        return True, await awaitable
    except BaseException as error:
        return False, error


def _stop(_task):
    loop.stop()


def start(awaitable, of):
    """Runs an awaitable until it first waits; its task, which may be done."""
    task = loop.create_task(_run(awaitable, of))
    loop.call_soon(loop.stop)
    loop.run_forever()
    if not task.done():
        task.add_done_callback(_stop)
    return task


def turn(wait, wake):
    """Lets tasks go on until one is finished, `wake` is readable or `wait` seconds are over."""
    global _woken_by
    if wake != _woken_by:
        if _woken_by is not None:
            loop.remove_reader(_woken_by)
        if wake is not None:
            loop.add_reader(wake, loop.stop)
        _woken_by = wake
    timer = loop.call_later(wait, loop.stop) if wait > 0 else loop.call_soon(loop.stop)
    loop.run_forever()
    timer.cancel()


def finish(awaitable):
    """Awaits something to its end, before the first event."""
    return loop.run_until_complete(awaitable)


def waits():
    return bool(asyncio.all_tasks(loop))


def close():
    """Ends what still runs, so that nothing complains at exit."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def place(tree, lines):
    """Moves a syntax tree to where its lines stand in the YAML."""
    import ast

    last = len(lines) - 1
    for node in ast.walk(tree):
        for name in ("lineno", "end_lineno"):
            line = getattr(node, name, None)
            if line is not None:
                setattr(node, name, lines[min(line - 1, last)])
    return tree


def remember(file, lines):
    """Gives tracebacks the lines of the code blocks, at their places in the YAML."""
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)


def text(error):
    """A traceback as Python prints it, without the frames of this module."""
    whole = traceback.TracebackException.from_exception(error)
    seen, chain = set(), [whole]
    while chain:
        part = chain.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        part.stack = traceback.StackSummary.from_list([f for f in part.stack if f.filename != FILE])
        chain += [part.__cause__, part.__context__]
    return "".join(whole.format())


class LogStream:
    """What `print` writes to: whole lines go to the log under the agent's name."""

    encoding = "utf-8"
    errors = "replace"
    LINE_MAX = 8192

    def __init__(self, log):
        self._log = log
        self._rest = ""

    def write(self, text):
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log(line)
        while len(self._rest) > self.LINE_MAX:
            self._log(self._rest[: self.LINE_MAX])
            self._rest = self._rest[self.LINE_MAX :]
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return False

    def writable(self):
        return True

    def fileno(self):
        raise OSError("the log has no descriptor")


class LogHandler(logging.Handler):
    """Python's logging, into the log."""

    def __init__(self, log):
        super().__init__()
        self._log = log

    def emit(self, record):
        try:
            self._log(record.levelno, record.name, self.format(record))
        except Exception:
            self.handleError(record)


def take_output(log_line, log_record):
    """From now on `print` and `logging` go to the log."""
    sys.stdout = LogStream(log_line)
    root = logging.getLogger()
    root.handlers[:] = [LogHandler(log_record)]
    root.setLevel(logging.INFO)
