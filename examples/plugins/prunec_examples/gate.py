"""A gate: at most so many parameters."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from prunec.compiler.report import Report
    from prunec.passes.unknown import Unknown


@dataclass(frozen=True)
class MaxParameters:
    """The compiled network has at most so many parameters.

    Attributes:
        limit: The largest number that passes.
        without_zeros: Whether only those that are not zero count.
    """

    limit: float
    without_zeros: bool = False

    name: ClassVar[str] = "max_parameters"
    exit_code: ClassVar[int] = 12
    label: ClassVar[str] = "parameters"
    unit: ClassVar[str] = ""

    def value(self, report: "Report") -> "float | Unknown":
        """The number of parameters, or why it isn't known."""
        from prunec.passes.unknown import Unknown

        count, zero_fraction = report.parameters.compiled, report.parameters.zero_fraction
        if not self.without_zeros:
            return count
        return zero_fraction if isinstance(zero_fraction, Unknown) else round(count * (1 - zero_fraction))
