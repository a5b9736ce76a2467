"""What stands for native code in tests; it is called in children and imports no torch."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from prunec.passes.errors import InputError


def pid_and_group() -> tuple[int, int]:
    return os.getpid(), os.getpgrp()


def modules() -> set[str]:
    return set(sys.modules)


def same(value: Any) -> Any:
    return value


def die_by(number: int, words: str = "") -> None:
    os.write(2, words.encode())
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(code: int) -> None:
    os._exit(code)


def refuse() -> None:
    raise InputError("The file is broken.", hint="Copy it again.")


class Stubborn(Exception):
    """An error that can't be pickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("stubborn")


def refuse_stubbornly() -> None:
    raise Stubborn(1, 2)


def print_something() -> str:
    print("on standard output", flush=True)
    return "done"


def wait_after(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def ignore_signals_and_wait(path: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_after(path)
