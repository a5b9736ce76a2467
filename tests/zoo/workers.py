"""Networks examined side by side, each in a process of its own."""

import multiprocessing
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import torch

from tests.zoo.checks import Row, examine
from tests.zoo.corpus import BY_NAME

#: The largest network needs about so much.
_MEMORY_BYTES = 5 * 2**30


def examined(names: Sequence[str], jobs: int) -> Iterator[Row]:
    """Examine networks in the order given.

    Args:
        names: as in the corpus.
        jobs: networks at a time; fewer while memory is short.

    Yields:
        Rows as they are ready. What a network leaves behind goes with its process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.zoo.checks"])
    waiting = list(names)
    running: dict[Connection, tuple[str, ForkServerProcess]] = {}
    while waiting or running:
        while waiting and len(running) < jobs and (not running or _free_memory() > _MEMORY_BYTES):
            name = waiting.pop(0)
            connection, process = _start(context, name)
            running[connection] = (name, process)
        for ready in wait(list(running), timeout=1):
            assert isinstance(ready, Connection)
            name, process = running.pop(ready)
            yield _received(name, ready)
            process.join()


def _start(context: ForkServerContext, name: str) -> tuple[Connection, ForkServerProcess]:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, sender))
    process.start()
    sender.close()
    return receiver, process


def _work(name: str, sender: Connection) -> None:
    torch.set_num_threads(1)
    sender.send(examine(name))


def _received(name: str, receiver: Connection) -> Row:
    try:
        row: Row = receiver.recv()
    except EOFError:
        row = Row(name, BY_NAME[name].kind, failures=["the process died, perhaps for want of memory"])
    return row


def _free_memory() -> float:
    """Bytes that can be had without swapping; unlimited where the system doesn't say."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)
    return float("inf") if kilobytes is None else 1024.0 * kilobytes
