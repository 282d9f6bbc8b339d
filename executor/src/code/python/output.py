"""Text files and a logging handler over the log, for what user code prints and logs."""

import codecs
import io
import logging
import sys
import threading

# The descriptor of the log, for code and programs that need a real one.
STDERR = 2


class LogStream(io.TextIOBase):
    """A text file whose lines go to the log under the agent's name, from any thread.

    Every thread and agent has a line of its own, so that none ends what another began.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True
    mode = "w"
    LINE_MAX = 8192

    def __init__(self, log, name):
        super().__init__()
        self._log = log
        self._rests = {}
        self.name = name
        self.buffer = LogBuffer(self)

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        agent = self._log.agent()
        begun = (threading.get_ident(), agent)
        *lines, rest = (self._rests.pop(begun, "") + text).split("\n")
        for line in lines:
            self._log.line(agent, line)
        while len(rest) > self.LINE_MAX:
            self._log.line(agent, rest[: self.LINE_MAX])
            rest = rest[self.LINE_MAX :]
        if rest:
            self._rests[begun] = rest
        return len(text)

    def end_lines(self):
        """Writes the rests of lines that have no end yet."""
        while self._rests:
            (_thread, agent), rest = self._rests.popitem()
            self._log.line(agent, rest)

    def flush(self):
        """Does nothing: a line is written when it ends."""

    def close(self):
        """Does nothing: the log stays open, since the worker writes to it too."""

    def reconfigure(self, **_settings):
        """Does nothing, though text files have it: the log is UTF-8 by lines."""

    def isatty(self):
        return False

    def writable(self):
        return True

    def fileno(self):
        return STDERR


class LogBuffer(io.BufferedIOBase):
    """The bytes below a `LogStream`."""

    mode = "wb"

    def __init__(self, stream):
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self.name = stream.name
        self.raw = self

    def write(self, data):
        data = memoryview(data).tobytes()
        self._stream.write(self._decoder.decode(data))
        return len(data)

    def flush(self):
        self._stream.flush()

    def close(self):
        """As the stream's."""

    def writable(self):
        return True

    def fileno(self):
        return self._stream.fileno()


class LogHandler(logging.Handler):
    """Python's logging, into the log."""

    def __init__(self, log):
        super().__init__()
        self._log = log

    def emit(self, record):
        try:
            self._log.record(record.levelno, record.name, self.format(record))
        except Exception:
            self.handleError(record)


def take_output(log):
    """From now on `print` and `logging` go to the log; what is returned ends lines that are begun."""
    streams = [LogStream(log, "<stdout>"), LogStream(log, "<stderr>")]
    sys.stdout, sys.stderr = streams
    root = logging.getLogger()
    root.handlers[:] = [LogHandler(log)]
    root.setLevel(logging.INFO)

    def end_lines():
        for stream in streams:
            stream.end_lines()
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None and not stream.closed:
                stream.flush()

    return end_lines
