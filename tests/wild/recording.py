"""Runs the stages of one network, and notes what comes of each in its file before the next one begins."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tests.wild.rows import Outcome, Row, Verdict

Value = TypeVar("Value")
_LINES, _CHARACTERS = 3, 900


class Said(Exception):
    """What was asked for can't be had, and prunec has said so rightly."""


@dataclass
class Recording:
    """A row that is written as it grows, so that a killed process leaves what it has found.

    Attributes:
        row: the row.
        folder: folder of its file.
        hidden: what takes the place of paths of this machine in reasons, by path.
    """

    row: Row
    folder: Path
    hidden: Mapping[str, str]

    def attempt(self, stage: str, step: Callable[[], Value]) -> Value | None:
        """Run a stage; its value, or None where it fails or says that it can't be."""
        self.row.running = stage
        self.row.write(self.folder)
        start = time.perf_counter()
        try:
            value = step()
        except Said as said:
            self._end(stage, "said", str(said), start)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this network's failure
            print(f"--- {stage}", file=sys.stderr)
            traceback.print_exc()
            self._end(stage, "failed", f"{type(error).__name__}: {error}", start)
        else:
            self._end(stage, "ok", "", start)
            return value
        return None

    def note(self, figure: str, value: float) -> float:
        """Keep a figure of the stage that runs."""
        self.row.figures[figure] = value
        return value

    def repeat(self, stage: str, as_stage: str) -> None:
        """Note for a stage that would do the same what came of another."""
        self.row.outcomes[as_stage] = replace(self.row.outcomes[stage], seconds=0.0)
        self.row.write(self.folder)

    def _end(self, stage: str, verdict: Verdict, reason: str, start: float) -> None:
        seconds = round(time.perf_counter() - start, 1)
        self.row.outcomes[stage] = Outcome(verdict, self._beginning(reason), seconds)
        self.row.running = ""
        self.row.write(self.folder)

    def _beginning(self, reason: str) -> str:
        """The first lines of a reason, without the paths of this machine."""
        for path, word in self.hidden.items():
            reason = reason.replace(path, word)
        lines = [line.strip() for line in reason.splitlines() if line.strip()]
        return " ".join(lines[:_LINES])[:_CHARACTERS]
