"""Progress on standard error: bars with the time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prunec.compiler.cli.output import echo, note
from prunec.compiler.facts.progress import Silent
from prunec.compiler.machine.ranks import is_main
from prunec.passes.boundary import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from prunec.compiler.facts.progress import Progress


@contextmanager
def showing_progress() -> "Iterator[Progress]":
    """A `Progress` for the length of a command."""
    if not is_main():
        yield Silent()
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(finished_text="+"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        shown = _Bars(bars)
        yield shown
        shown.finish()


class _Lines:
    """One line per stage and per step, with the time since the start."""

    def __init__(self) -> None:
        self._start = self._stage_start = time.monotonic()

    def stage(self, title: str) -> None:
        self._stage_start = time.monotonic()
        self._print(title)

    def step(self, done: int, total: int, note: str) -> None:
        seconds = time.monotonic() - self._stage_start
        left = seconds / done * (total - done)
        self._print(f"  {done}/{total}, {note}, about {left:.0f} s left")

    def text(self, title: str, lines: str) -> None:
        echo(f"--- {title}\n{lines}", err=True)

    def note(self, text: str) -> None:
        note(text)

    def _print(self, text: str) -> None:
        echo(f"[{time.monotonic() - self._start:6.1f} s] {text}", err=True)


class _Bars:
    """One bar per stage."""

    def __init__(self, bars: "RichProgress") -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, title: str) -> None:
        self.finish()
        self._task = self._bars.add_task(title, total=None, note="")

    def step(self, done: int, total: int, note: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, note=f"{done}/{total}, {note}")

    def text(self, title: str, lines: str) -> None:
        from rich.text import Text

        self._bars.console.print(Text(printable(f"--- {title}\n{lines}")), soft_wrap=True)

    def note(self, text: str) -> None:
        from rich.text import Text

        self._bars.console.print(Text(printable(f"Note: {text}")), soft_wrap=True)

    def finish(self) -> None:
        """The current stage is over."""
        if self._task is not None:
            self._bars.update(self._task, completed=1, total=1)
