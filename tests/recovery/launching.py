"""Runs a function in processes that train together, as torchrun would, without each of them importing torch anew."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

#: What is imported once, in a process that does nothing else and that all others are copies of.
PRELOADED = ("tests.recovery.distributed", "tests.recovery.regimes.distributed_regimes", "accelerate")


def run_together(count: int, module: str, arguments: Sequence[str], folder: Path) -> str:
    """Run a module's `main` in some processes, each with these arguments as its command line.

    Args:
        count: Number of processes; one alone has no rank.
        module: Name of the module.
        arguments: The arguments.
        folder: Folder for what the processes write to stderr.

    Returns:
        The exit codes of those that failed and what they wrote to stderr; empty where none failed. Where one fails the
        others are ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    port = _free_port()
    started: list[tuple[ForkServerProcess, Path]] = []
    for rank in range(count):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in (ranks | place).items()} if count > 1 else {}
        file = folder / f"stderr-{rank}"
        process = context.Process(target=_run, args=(module, list(arguments), environment, file))
        process.start()
        started.append((process, file))
    failed = _first_to_fail([process for process, _ in started])
    for process, _ in started:
        if failed:
            process.kill()
        process.join()
    return "".join(f"exit {each.exitcode}: {file.read_text()}" for each, file in started if each in failed)


def _first_to_fail(processes: Sequence[ForkServerProcess]) -> list[ForkServerProcess]:
    """Wait until all have ended, or one has failed."""
    running = {process.sentinel: process for process in processes}
    while running:
        ended = [running.pop(sentinel) for sentinel in wait(list(running)) if isinstance(sentinel, int)]
        for process in ended:
            process.join()
        if failed := [process for process in ended if process.exitcode]:
            return failed
    return []


def _run(module: str, arguments: list[str], environment: dict[str, str], stderr: Path) -> None:
    os.environ.update(environment)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = [module, *arguments]
    import_module(module).main()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
