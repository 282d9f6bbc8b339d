"""The few lines of Python between the worker and the user's code: loop, modules, tracebacks."""

import asyncio
import collections
import collections.abc
import contextvars
import functools
import inspect
import linecache
import re
import selectors
import signal
import sys
import threading
import time
import traceback
import types
import warnings

FILE = "<kaspr>"
# How long tasks, generators and threads may take to end when the worker does.
END_MAX = 5.0

entry = contextvars.ContextVar("kaspr_entry", default=None)


def rest():
    """Notes that the worker's thread waits. The worker puts its own function in the place of this one."""


def stir():
    """Notes that it goes on. The worker puts its own function here, too."""


def ring():
    """Wakes the worker's thread. The worker puts its own function here, too."""


around = None  # Gives what runs now. The worker puts its own object here, too.
clock = None  # Gives the simulated time in seconds. Only a user's test puts its own function here.


class _Selector(selectors.DefaultSelector):
    """Says when it waits: nothing runs meanwhile that the watchdog would have to see."""

    def select(self, timeout=None):
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        if clock is None or timeout is None:
            return self.wait(timeout)
        # Only init and the end wait for timers here. Their time is not the test's: it passes at once, unless
        # the world outside must answer.
        began = time.monotonic()
        found = self.wait(timeout if loop.calls or loop.has_files() else 0)
        loop.skipped += time.monotonic() - began if found else timeout
        return found

    def wait(self, timeout):
        rest()
        try:
            return super().select(timeout)
        finally:
            stir()


class _Loop(asyncio.SelectorEventLoop):
    """The worker's loop. It counts as running in all user code, though it runs only now and then."""

    skipped = 0.0  # Seconds that have passed beside those of the simulated clock.
    calls = 0  # Calls on other threads that a test waits for.

    def time(self):
        return super().time() if clock is None else clock() + self.skipped

    def run_in_executor(self, executor, function, *args):
        future = super().run_in_executor(executor, function, *args)
        if clock is not None:
            self.calls += 1
            future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _future):
        self.calls -= 1

    def has_files(self):
        # Its own descriptor is always watched, the worker's where it slept in the loop before.
        return len(self._selector.get_map()) > (1 if _woken_by is None else 2)

    def _write_to_self(self):
        # Another thread has something for the loop: the worker may sleep elsewhere.
        super()._write_to_self()
        ring()

    def call_at(self, when, callback, *args, context=None):
        if context is None and entry.get() is None:
            context = _context()
        return super().call_at(when, callback, *args, context=context)

    def add_signal_handler(self, number, callback, *args):
        if number not in (signal.SIGTERM, signal.SIGINT):
            return super().add_signal_handler(number, callback, *args)
        signal.signal(number, lambda _number, _frame: self.call_soon(callback, *args))

    def remove_signal_handler(self, number):
        if number not in (signal.SIGTERM, signal.SIGINT):
            return super().remove_signal_handler(number)
        return signal.signal(number, signal.SIG_DFL) is not signal.SIG_DFL


def _context():
    """The context of something that a plain function starts: it carries event and agent along."""
    context = contextvars.copy_context()
    context.run(entry.set, around.entry())
    return context


def _task(loop, coroutine, context=None, **more):
    if context is None and entry.get() is None:
        context = _context()
    elif context is None:
        return asyncio.Task(coroutine, loop=loop, **more)
    # A task takes a copy of the context that it is made in.
    return context.run(functools.partial(asyncio.Task, coroutine, loop=loop, **more))


loop = _Loop(_Selector())
loop.set_task_factory(_task)
# What the loop runs next, and the descriptors that it watches: the worker looks at their lengths.
ready = loop._ready
files = loop._selector.get_map()
asyncio.set_event_loop(loop)
asyncio._set_running_loop(loop)
sys.set_asyncgen_hooks(loop._asyncgen_firstiter_hook, loop._asyncgen_finalizer_hook)
_woken_by = None


def _run(run):
    """Runs the loop, which does not begin where one counts as running."""
    asyncio._set_running_loop(None)
    try:
        return run()
    finally:
        asyncio._set_running_loop(loop)


class Timeout(BaseException):
    """Interrupts a call that takes too long; no handler for Exception swallows it."""


async def _result(awaitable, of):
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
    task = asyncio.Task(_result(awaitable, of), loop=loop)
    loop.call_soon(loop.stop)
    _run(loop.run_forever)
    if not task.done():
        task.add_done_callback(_stop)
    return task


def turn(wait, wake):
    """Lets tasks go on until one of an event is finished, `wake` is readable or `wait` seconds are over."""
    global _woken_by
    if wake != _woken_by:
        if _woken_by is not None:
            loop.remove_reader(_woken_by)
        if wake is not None:
            loop.add_reader(wake, loop.stop)
        _woken_by = wake
    if clock is not None and wait > 0:
        # The loop's own time stands still meanwhile.
        if not loop._ready:
            loop._selector.wait(wait)
        wait = 0
    timer = loop.call_later(wait, loop.stop) if wait > 0 else loop.call_soon(loop.stop)
    _run(loop.run_forever)
    timer.cancel()


def _complete(coroutine):
    """Runs the loop until the coroutine is done, even if user code stops the loop meanwhile."""
    task = asyncio.Task(coroutine, loop=loop)
    task.add_done_callback(_stop)
    while not task.done():
        _run(loop.run_forever)
    return task.result()


def finish(awaitable):
    """Awaits something to its end, before the first event or behind the last."""
    done, result = _complete(_result(awaitable, around.entry()))
    if done:
        return result
    raise result


def waits(is_busy):
    """True if the loop has something to do: now, if the worker is busy, else at some time."""
    if loop._ready or loop.has_files():
        return True
    timers = loop._scheduled
    if is_busy:
        return bool(timers) and timers[0]._when <= loop.time()
    # The loop's own count of cancelled timers also counts some that it holds no more.
    return any(not timer._cancelled for timer in timers)


def simulate(seconds):
    """Has the loop go by a simulated time, which this function gives."""
    global clock
    clock = seconds


def pending():
    """What the loop waits for: has it something to do now, do threads or files of its have to answer, and in how
    many seconds is its next timer due?"""
    due = min((timer._when for timer in loop._scheduled if not timer._cancelled), default=None)
    due = None if due is None else max(0.0, due - loop.time())
    is_ready = bool(loop._ready) or due is not None and due <= loop._clock_resolution
    # asyncio waits for child processes in threads of this name.
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    has_children = any(name.startswith("asyncio-waitpid") for name in threads)
    # Threads of pools and those that Python has not started may be idle: calls to pools are counted.
    may_call = any(not name.startswith(("asyncio", "ThreadPoolExecutor", "Dummy")) for name in threads)
    return is_ready, loop.calls > 0 or has_children, loop.has_files() or may_call, due


# ---- The end ----


def close():
    """Ends what user code has started, within its bounds, and the loop."""
    until = loop.time() + END_MAX
    try:
        _complete(_end(until))
    finally:
        _end_threads(until)
        sys.set_asyncgen_hooks(None, None)
        asyncio._set_running_loop(None)
        loop.close()
        asyncio.set_event_loop(None)


async def _end(until):
    """Does what `asyncio.run` does at its end: cancels tasks and awaits their clean-up, then generators."""
    own = asyncio.current_task()
    # Tasks that have just begun take their first step.
    await asyncio.sleep(0)
    while tasks := asyncio.all_tasks() - {own}:
        for task in tasks:
            task.cancel()
        done, pending = await asyncio.wait(tasks, timeout=max(0, until - loop.time()))
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                _tell_of(task)
        if pending:
            break
    try:
        await asyncio.wait_for(loop.shutdown_asyncgens(), max(0.1, until - loop.time()))
    except asyncio.TimeoutError:
        pass


def _tell_of(task):
    context = {"message": "a task failed at the end", "exception": task.exception(), "task": task}
    loop.call_exception_handler(context)


def _end_threads(until):
    """Waits for threads that are no daemons, as Python does at its end."""
    ends = threading.Thread(target=_end_pools, daemon=True)
    ends.start()
    ends.join(max(0.1, until - loop.time()))
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0, until - loop.time()))


def _end_pools():
    """Ends the threads of pools when their work is done."""
    for name, flag in (("thread", "_shutdown"), ("process", "_global_shutdown")):
        pools = sys.modules.get(f"concurrent.futures.{name}")
        if pools is not None:
            pools._python_exit()
            # Another app may run in this process.
            setattr(pools, flag, False)


def enter(result):
    """Starts what an init function returned, if it is a generator: what runs the rest, or None."""
    if inspect.isasyncgen(result):
        finish(anext(result))
        return functools.partial(_leave, result, True)
    if inspect.isgenerator(result):
        next(result)
        return functools.partial(_leave, result, False)
    if inspect.isawaitable(result):
        finish(result)
    return None


def _leave(generator, is_async):
    """Runs the part of an init function behind its `yield`."""
    try:
        if is_async:
            finish(asyncio.wait_for(anext(generator), END_MAX))
        else:
            next(generator)
    except (StopIteration, StopAsyncIteration):
        return
    raise RuntimeError("init yields more than once")


# ---- Threads ----


def thread_agent():
    """The agent whose code has started this thread."""
    return getattr(threading.current_thread(), "_kaspr_agent", None)


def _started(start):
    @functools.wraps(start)
    def started(thread):
        thread._kaspr_agent = around.agent()
        return start(thread)

    started._kaspr_start = start
    return started


threading.Thread.start = _started(getattr(threading.Thread.start, "_kaspr_start", threading.Thread.start))


# ---- Modules, lines and tracebacks ----


def module(name, file, names):
    """The namespace of a block, as a module that Python finds by its name."""
    made = types.ModuleType(name)
    made.__dict__.update(names)
    made.__name__ = name
    made.__file__ = file
    sys.modules[name] = made
    return made.__dict__


def place(tree, lines):
    """Moves a syntax tree to where its lines stand in the YAML."""
    import ast

    last = len(lines) - 1
    for node in ast.walk(tree):
        for name in ("lineno", "end_lineno"):
            line = getattr(node, name, None)
            if line is not None:
                setattr(node, name, lines[min(line - 1, last)])
        # Lines of a text in quotes may all stand in one line of the YAML, where columns go on counting from
        # each line's own start: an end before its start is refused by the compiler.
        if getattr(node, "end_lineno", None) is not None and node.lineno == node.end_lineno:
            node.end_col_offset = max(node.col_offset, node.end_col_offset)
    return tree


def compile_below(source, file, lines):
    """Compiles a block that stands below so many lines of its file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Moved afterwards: empty lines before each block would cost the square of the file's length.
            return shift(compile(source, file, "exec", dont_inherit=True), lines)
    except Exception:
        # What the compiler says against the block, in an error or a warning, names its line in the file.
        return compile("\n" * lines + source, file, "exec", dont_inherit=True)


def shift(code, by):
    """Moves compiled code down by so many lines. Its table counts lines from its first one."""
    consts = tuple(shift(const, by) if isinstance(const, types.CodeType) else const for const in code.co_consts)
    return code.replace(co_firstlineno=code.co_firstlineno + by, co_consts=consts)


def remember(file, lines):
    """Gives tracebacks the lines of the code blocks, at their places in the YAML."""
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)


# A traceback with more frames than this is shortened to its first and its last ones.
FRAMES_MAX = 1000
FRAMES_FIRST = 50
FRAMES_LAST = 50
# The file of the frame that stands for those between them.
CUT = "<kaspr cut>"


def text(error):
    """A traceback as Python prints it, without the frames of this module; a very long one is shortened."""
    cut = []
    for part in _parts(error):
        if short := _shortened(part.__traceback__):
            cut.append((part, part.__traceback__, short[1]))
            part.__traceback__ = short[0]
    try:
        whole = traceback.TracebackException.from_exception(error)
    finally:
        for part, traceback_of_part, _count in cut:
            part.__traceback__ = traceback_of_part
    counts = [count for *_part, count in cut]
    for part in _parts(whole):
        if counts and len(part.stack) == FRAMES_FIRST + FRAMES_LAST:
            left_out = traceback.FrameSummary(CUT, counts.pop(0), "", lookup_line=False, line="")
            part.stack.insert(FRAMES_FIRST, left_out)
        part.stack[:] = [frame for frame in part.stack if frame.filename != FILE]
    return re.sub(rf'  File "{CUT}", line (\d+), in .*\n', r"  [\1 more frames]\n", "".join(whole.format()))


def _parts(whole):
    """The exceptions that a traceback shows, each once."""
    seen, left = {}, [whole]
    while left:
        part = left.pop()
        if part is not None and id(part) not in seen:
            seen[id(part)] = part
            left += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
    return list(seen.values())


def _shortened(entry):
    """A traceback with its first and last frames, and how many it lacks; None where it is not too long."""
    first, last, count = [], collections.deque(maxlen=FRAMES_LAST), 0
    while entry is not None:
        (first if count < FRAMES_FIRST else last).append(entry)
        count += 1
        entry = entry.tb_next
    if count <= FRAMES_MAX:
        return None
    short = None
    for entry in reversed([*first, *last]):
        short = types.TracebackType(short, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return short, count - FRAMES_FIRST - FRAMES_LAST


# ---- Context and tables ----


class _Keys(collections.abc.KeysView):
    """A table's keys as they are now: the table may change while they are gone through."""

    def __repr__(self):
        return f"{type(self).__name__[1:].lower()}({list(self)})"

    def __json__(self):
        return list(self)

    @classmethod
    def _from_iterable(cls, iterable):
        return set(iterable)


class _Values(collections.abc.ValuesView):
    """A table's values, as above."""

    def __iter__(self):
        return (value for _key, value in self._mapping._pairs())

    def __contains__(self, value):
        return any(found is value or found == value for found in self)

    __repr__ = _Keys.__repr__
    __json__ = _Keys.__json__


class _Items(collections.abc.ItemsView):
    """A table's pairs, as above."""

    def __iter__(self):
        return iter(self._mapping._pairs())

    @classmethod
    def _from_iterable(cls, iterable):
        return set(iterable)

    __repr__ = _Keys.__repr__
    __json__ = _Keys.__json__


def complete(context, table):
    """Registers the classes of context and tables as the mappings that they are."""
    collections.abc.Mapping.register(context)
    collections.abc.MutableMapping.register(table)
    return _Keys, _Values, _Items
