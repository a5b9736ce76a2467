"""Ctrl-C and SIGTERM on the command line: the first asks the work to stop, the second of its kind ends it at once.

A thread hears of the signals, so that they are answered while the main thread is within a foreign call. Python's own
handlers would run after it, and what they raise is lost where Python happens to be in a finaliser.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

from prunec.passes.interruption import Stopped, ask_to_stop, end_where_endable, remove_leftovers, stop_where_it_came

INTERRUPTED = "Interrupted: no result was written. A training that was under way goes on with --resume."
_SHOW_CURSOR = "\x1b[?25h"
#: What a shell adds to the number of the signal that ended a program.
_ENDED_BY = 128
_TITLES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def exit_code(number: int) -> int:
    """The exit code of a program that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return _ENDED_BY + number


def listen(last_words: Callable[[int], str]) -> None:
    """Answer Ctrl-C and SIGTERM from here to the end of this process, whose main thread calls this.

    Args:
        last_words: The last line on standard output for an exit code, where a second signal ends the process.
    """
    heard, tell = os.pipe()
    results = sys.stdout
    os.set_blocking(tell, False)
    for number in _TITLES:
        signal.signal(number, _note)
    atexit.register(_ignore)  # as the first, so that it is called as the last
    sys.unraisablehook = _keep_quiet
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_leave)
    threading.Thread(target=_answer, args=(heard, last_words, results), name="signals", daemon=True).start()


def _hold_back() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _TITLES)


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TITLES)


def _leave() -> None:
    """Take the handlers from a forked process, such as a worker of the user's: it would tell its parent of its own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_through()


def _ignore() -> None:
    """Let no signal change the exit code of a process that is done: Python is about to take its handlers away."""
    for number in _TITLES:
        signal.signal(number, signal.SIG_IGN)


def _note(number: int, _frame: FrameType | None) -> None:
    """Ask to stop, also where code of the user's has another descriptor told of signals."""
    stop_where_it_came(number)


def _keep_quiet(lost: "sys.UnraisableHookArgs") -> None:
    """Say nothing of a request that was raised in a finaliser and lost there: the flag holds it."""
    if not isinstance(lost.exc_value, Stopped):
        sys.__unraisablehook__(lost)


def _answer(heard: int, last_words: Callable[[int], str], results: object) -> None:
    before: set[int] = set()
    while told := os.read(heard, 1):
        number = told[0]
        if number not in _TITLES:
            continue
        if number in before:
            _end("Stopped at once: no result was written.", number, last_words, results)
        before.add(number)
        again = "Press Ctrl-C again" if number == signal.SIGINT else "Send it again"
        _say(sys.__stderr__, f"{_TITLES[signal.Signals(number)]}: stopping at the next step. {again} to stop at once.")
        ask_to_stop(number)
        end_where_endable(partial(_end, INTERRUPTED, number, last_words, results))


def _end(words: str, number: int, last_words: Callable[[int], str], results: object) -> None:
    with contextlib.suppress(OSError):  # the next run removes what is left
        remove_leftovers()
    cursor = _SHOW_CURSOR if sys.__stderr__ is not None and sys.__stderr__.isatty() else ""  # bars hide it
    _say(sys.__stderr__, f"{cursor}{words}")
    if line := last_words(exit_code(number)):
        _say(results, line)
    os._exit(exit_code(number))


def _say(stream: object, text: str) -> None:
    """Print a line past Python's buffers, whose lock the main thread may hold."""
    with contextlib.suppress(OSError, AttributeError, ValueError):  # nobody reads it, or the stream is closed
        os.write(stream.fileno(), f"{text}\n".encode(errors="backslashreplace"))  # type: ignore[attr-defined]
