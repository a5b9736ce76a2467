"""Requests to stop: who asks, and the places in long work where it is good to do so.

A request is a flag, looked at between steps and batches: an exception that a signal's handler raises would be lost
wherever Python swallows it, as in finalisers and the callbacks of weak references. The command line sets it; in
programs that call prunec nobody does, and their own signals work as they always do. Imports nothing slow.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


class Stopped(KeyboardInterrupt):
    """The work ended at a place where it was good to, since a signal had asked for it.

    Args:
        number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@dataclass
class _Request:
    """The request to stop of this process, and what is to be done when one comes.

    Attributes:
        number: The signal that asked; 0 where none has.
        together: Whether processes train together, which must stop at the same step and ask each other there.
        anywhere: Whether it is good to stop at any moment.
        endable: Whether it is good to end the process at any moment; changed under ``ending``, as is the end.
        raised: Whether the request was raised where it came, so that what cleans up after it isn't disturbed.
        helpers: Functions that end what works for this process, such as a child.
        leftovers: Functions that remove what must not stay behind if the process is ended where it stands.
    """

    number: int = 0
    together: bool = False
    anywhere: bool = False
    endable: bool = False
    ending: threading.Lock = field(default_factory=threading.Lock)
    raised: bool = False
    helpers: list[Callable[[], object]] = field(default_factory=list)
    leftovers: list[Callable[[], object]] = field(default_factory=list)


_request = _Request()


def _forget() -> None:
    """A process that was forked has nothing to end and to remove: what is on disk and runs is its parent's."""
    _request.number, _request.endable, _request.helpers, _request.leftovers = 0, False, [], []


os.register_at_fork(after_in_child=_forget)


def ask_to_stop(number: int) -> None:
    """Ask this process to stop at the next good place, as a signal of this number does; helpers are ended at once.

    What asks later changes nothing. Two threads that ask at the same moment may both end the helpers.
    """
    if _request.number:
        return
    _request.number = int(number)
    for end in reversed(_request.helpers.copy()):
        end()


def asked_to_stop() -> int:
    """The number of the signal that asked this process to stop, 0 where none has."""
    return _request.number


def stop_if_asked() -> None:
    """Mark a place where it is good to stop; processes that train together ask each other at theirs.

    Raises:
        Stopped: A signal has asked for it.
    """
    if _request.number and not _request.together:
        raise Stopped(_request.number)


def stoppable(items: Iterable[Item]) -> Iterator[Item]:
    """The items, before each of which it is good to stop: see `stop_if_asked`."""
    for item in items:
        stop_if_asked()
        yield item


@contextmanager
def stoppable_anywhere() -> Iterator[None]:
    """Let a signal stop what is done within at any moment: long work without steps, such as code of the user's.

    What is raised there may be lost, as in finalisers; the flag isn't.

    Raises:
        Stopped: A signal asks for it.
    """
    stop_if_asked()
    before, _request.anywhere = _request.anywhere, True
    try:
        yield
    finally:
        _request.anywhere = before
    stop_if_asked()


@contextmanager
def endable_anywhere() -> Iterator[None]:
    """Let a signal end the process at any moment of what is done within: long foreign calls with nothing to save.

    Foreign code can die of an exception that a handler raises in a call back from it, as torch does while it traces.
    Where nobody listens for signals, as in programs that call prunec, nothing is ended.

    Raises:
        Stopped: A signal has asked for it.
    """
    before, _request.endable = _request.endable, True
    try:
        stop_if_asked()  # what asks after this finds that it may end the process
        yield
    finally:
        with _request.ending:
            _request.endable = before
    stop_if_asked()


def end_where_endable(end: Callable[[], object]) -> None:
    """Call a function that ends the process, from another thread than works, where that is good at any moment."""
    with _request.ending:
        if _request.endable and not _request.together:
            end()


def stop_where_it_came(number: int) -> None:
    """Ask to stop from a signal's handler, and do so where that is good at any moment.

    Raises:
        Stopped: It is.
    """
    ask_to_stop(number)
    if _request.anywhere and not _request.together and not _request.raised:
        _request.raised = True
        raise Stopped(_request.number)


@contextmanager
def stopping_together() -> Iterator[None]:
    """Leave it to the steps of a training to stop, where all of its processes agree."""
    before, _request.together = _request.together, True
    try:
        yield
    finally:
        _request.together = before


@contextmanager
def ended_at_request(end: Callable[[], object]) -> Iterator[None]:
    """Have a helper ended as soon as a stop is asked for, by a function that may be called from another thread."""
    with _listed(_request.helpers, end):
        if _request.number:
            end()
        yield


@contextmanager
def removed_at_the_latest(remove: Callable[[], object]) -> Iterator[None]:
    """Have leftovers removed, by a function that may be called from another thread, if the process is cut short."""
    with _listed(_request.leftovers, remove):
        yield


def remove_leftovers() -> None:
    """Remove what must not stay behind, in the reverse order: the process is about to be ended where it stands."""
    for remove in reversed(_request.leftovers.copy()):
        remove()


@contextmanager
def _listed(functions: list[Callable[[], object]], function: Callable[[], object]) -> Iterator[None]:
    functions.append(function)
    try:
        yield
    finally:
        functions.remove(function)
