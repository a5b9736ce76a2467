"""Gates: a limit, a figure of the report that is held against it, and the exit code of a failure."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown


@dataclass(frozen=True)
class Asked:
    """What is known of a compile before any work.

    Attributes:
        pipeline: The steps.
        has_data: Whether there are labelled data.
        no_engine: Why no engine is built, as a sentence; empty where one may be.
        untimed: Why no latency is measured on the target, as a sentence; empty where it may be.
        outside_support: Sentence that the engine's vendor doesn't support the target; empty where that isn't so, or not
            known yet.
    """

    pipeline: Pipeline
    has_data: bool
    no_engine: str = ""
    untimed: str = ""
    outside_support: str = ""


@dataclass(frozen=True)
class Foreseen:
    """Why a gate's figure can't be known, or can't pass, before any work.

    Attributes:
        reason: The reason, as a sentence.
        hint: Advice on what to do instead.
        fails: Whether the gate fails in any case, also where unknown figures pass.
    """

    reason: str
    hint: str
    fails: bool = False


class Gate(Protocol):
    """A gate. Implementations are frozen dataclasses with a finite ``limit`` and their further options.

    One that can tell from what was asked for that it will fail has a method ``foreseen`` besides, which gets an `Asked`
    and returns a `Foreseen`, or None: such a compile is refused before any work. One whose figure is measured with an
    error has a method ``margin``, which gets the report and returns half the width of the figure's 95 % interval, or
    None where nothing tells it: it stands beside the value.

    Attributes:
        name: Name in reports and in ``--gate``; it begins with ``max_`` where the limit is an upper one.
        exit_code: Exit code of a compile that fails by it, 2 to 125.
        label: Name of the figure in words.
        unit: Unit behind the figure, with a blank before it where there shall be one.
        limit: The largest value that passes, or else the smallest.
    """

    name: ClassVar[str]
    exit_code: ClassVar[int]
    label: ClassVar[str]
    unit: ClassVar[str]

    @property
    def limit(self) -> float:
        """The largest value that passes, or else the smallest."""

    def value(self, report: Report) -> float | Unknown:
        """The figure, or why it isn't known."""


def untimed(asked: Asked) -> Foreseen | None:
    """What gates of latency on the target foresee."""
    hint = "Compile where the engine runs, or let the gate pass by --allow-unknown: `prunec build` judges anew there."
    return Foreseen(asked.untimed, hint) if asked.untimed else None
