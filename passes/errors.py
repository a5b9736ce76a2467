"""The error tree: every error that a user can meet is a `PrunecError` with an exit code of its own.

The exit codes are a contract with CI pipelines; they also stand in report.json. This module loads fast.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class PrunecError(Exception):
    """An error that the user can act on: what happened, where, got against expected, what to try next.

    Args:
        message: One sentence or short paragraph that names the layer, operator, file or option.
        hint: Advice on what to try next, shown on its own line.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n{hint}")
        self.message = message
        self.hint = hint


class UsageError(PrunecError):
    """A wrong option, configuration, target or recipe, or a speed-up that can't be reached."""

    exit_code = 2


class OutOfReachError(UsageError):
    """Goals that no widths meet.

    Attributes:
        possible: Share of the goals that can be met, below 1, where a cost model's milliseconds alone stand in the way;
            None where counts do, which no measurement changes.
    """

    def __init__(self, message: str, *, hint: str | None = None, possible: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.possible = possible


class UnsupportedModelError(PrunecError):
    """A model that cannot be captured, or in which nothing can be pruned."""

    exit_code = 3


class MissingDependencyError(PrunecError):
    """A library or device is missing that the engine needs; the hint is the line that mends it."""

    exit_code = 4


class NativeCrashError(MissingDependencyError):
    """A library's native code died in the process that it was run in."""


class AccuracyGateError(PrunecError):
    """Accuracy below the limit that was asked for."""

    exit_code = 5


class LatencyGateError(PrunecError):
    """Latency or speed-up short of the limit that was asked for."""

    exit_code = 6


class SparsityGateError(PrunecError):
    """Fewer layers with valid 2:4 sparsity than were asked for, or a mask that is not 2:4."""

    exit_code = 7


class NumericMismatchError(PrunecError):
    """Two forms of one network that must agree numerically don't."""

    exit_code = 8


class NothingComparedError(NumericMismatchError):
    """Outputs that hide every error, since they are zero or not finite."""


class InputError(PrunecError):
    """Unusable input: a checkpoint, data, or a run that cannot be resumed."""

    exit_code = 9


class EnvironmentFailure(PrunecError):  # noqa: N818 - "EnvironmentError" is a builtin
    """A failure of disk, permissions, locks or memory."""

    exit_code = 10


class TrainingDivergedError(PrunecError):
    """The recovery finetune met a loss that is not finite."""

    exit_code = 11


#: Characters of a name that are compared with known ones.
_COMPARED = 100


def first_line(error: BaseException | None) -> str:
    """First line of a foreign error's message, the name of its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Hint that names the closest known names, or lists all of them where none is close."""
    known, name = list(known), name[:_COMPARED]  # which takes time by the square of the length
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Known: {', '.join(known)}."
