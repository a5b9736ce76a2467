"""Runs a module's `main` in processes that train together, as torchrun would, without importing torch in each anew."""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from torch.distributed.elastic.utils.distributed import get_free_port
from torch.multiprocessing.spawn import ProcessException, start_processes

#: What is imported once, in a process that does nothing else and that all others are copies of.
PRELOADED = ("tests.recovery.distributed", "tests.recovery.regimes.distributed_regimes", "accelerate")


def run_together(count: int, module: str, arguments: Sequence[str]) -> str:
    """Run a module's `main` in some processes, each with these arguments as its command line.

    Args:
        count: Number of processes; one alone has no rank.
        module: Name of the module.
        arguments: The arguments.

    Returns:
        How the first that failed did, by its traceback or exit code; empty where none failed. The others are ended.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    place = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": get_free_port()}
    try:
        start_processes(_run, (module, list(arguments), place), nprocs=count, start_method="forkserver")
    except ProcessException as error:
        return str(error)
    return ""


def _run(rank: int, module: str, arguments: list[str], place: dict[str, object]) -> None:
    if place["WORLD_SIZE"] != 1:
        os.environ.update({name: str(value) for name, value in {"RANK": rank, "LOCAL_RANK": rank, **place}.items()})
    sys.argv = [module, *arguments]
    import_module(module).main()
