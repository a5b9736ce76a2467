"""Gates: a limit, a figure of the report that is held against it, and the exit code of a failure."""

from typing import ClassVar, Protocol

from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown


class Gate(Protocol):
    """A gate. Implementations are frozen dataclasses with a finite ``limit`` and their further options.

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
