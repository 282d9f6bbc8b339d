"""Gives an embedded interpreter what `python3` has: its paths, last words, and handlers of signals."""

import faulthandler
import os
import signal
import site
import sys
import threading

# The descriptor of the log.
STDERR = 2


def extend_path(folders, environment):
    """Puts folders first, and the packages of a virtual environment before those of the system."""
    if environment:
        known = set(sys.path)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site.addsitedir(f"{environment}/lib/{version}/site-packages")
        added = [path for path in sys.path if path not in known]
        others = [path for path in sys.path if path in known]
        system = {*site.getsitepackages(), site.getusersitepackages()}
        at = next((at for at, path in enumerate(others) if path in system), len(others))
        sys.path[:] = [*others[:at], *added, *others[at:]]
    sys.path[:0] = folders


def write_last_words(stack_signal):
    """Writes Python's stack when a signal ends the process, and on the signal that the watchdog sends."""
    faulthandler.enable(STDERR)
    faulthandler.register(stack_signal, STDERR)


def change_variables(changes):
    """Changes variables of the environment; gives all as they were. None takes one away."""
    before = dict(os.environ)
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return before


def restore_variables(before):
    """Makes the variables what they were."""
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


# ---- Signals that the worker answers itself: by coming to its end ----

_OURS = {signal.SIGTERM, signal.SIGINT}
_handlers = {}
_signal, _getsignal = signal.signal, signal.getsignal


def _set_handler(number, handler):
    """As `signal.signal`. The user's handler for a signal that ends the worker is called beside that end."""
    if number not in _OURS:
        return _signal(number, handler)
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("signal only works in main thread of the main interpreter")
    if not callable(handler) and handler not in (signal.SIG_DFL, signal.SIG_IGN):
        raise TypeError("signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object")
    before = _get_handler(number)
    _handlers[number] = handler
    return before


def _get_handler(number):
    return _handlers.get(number, signal.SIG_DFL) if number in _OURS else _getsignal(number)


def keep_signals():
    """Keeps handlers of user code from taking the place of the worker's, from now on."""
    signal.signal, signal.getsignal = _set_handler, _get_handler


def signalled(number):
    """Calls the user's handler, if there is one: the worker comes to its end in any case."""
    handler = _handlers.get(number)
    if callable(handler):
        handler(number, None)
