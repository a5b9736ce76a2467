"""The goals that widths are chosen for. Importing this module imports neither torch nor NumPy."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from prunec.passes.errors import UsageError

#: How widths are chosen; "auto" is "provable" where the criterion says how many units a group needs, "balanced" where
#: latency is asked for and units are scored, else "uniform".
Allocation = Literal["auto", "uniform", "global", "greedy", "balanced", "provable", "joint"]
ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)
#: Bytes of a parameter in float32, in which ``size_mb`` counts whatever the target's precision.
BYTES_PER_PARAMETER = 4

#: What is wrong with a goal below its least value, and an example of a right one.
_FACTOR = "is not a factor of at least 1"
_WORDS = {
    "speedup": (_FACTOR, "2.0 halves the MACs."),
    "latency_speedup": (_FACTOR, "1.5 makes two thirds of the milliseconds."),
    "latency_ms": ("is not a number of milliseconds above 0", "For example latency_ms=4.0."),
    "parameters": ("is not a number of parameters of at least 1", "For example parameters=1000000."),
    "size_mb": ("is not a number of megabytes above 0", "For example size_mb=10.0."),
}


@dataclass(frozen=True)
class Goals:
    """What pruned widths must meet; all of several goals are met.

    Attributes:
        speedup: Dense MACs over pruned MACs, at least this.
        latency_speedup: Dense milliseconds over pruned milliseconds by the cost model's word, at least this.
        latency_ms: Milliseconds of one inference by the cost model's word, at most this.
        parameters: Number of trained scalars, at most this.
        size_mb: Size of the trained scalars in float32 in megabytes of 10^6 bytes, at most this.
    """

    speedup: float | None = None
    latency_speedup: float | None = None
    latency_ms: float | None = None
    parameters: int | None = None
    size_mb: float | None = None

    def __post_init__(self) -> None:
        given: dict[str, Any] = dict(self.given)  # from Python anything may be given
        for name, value in given.items():
            wrong, example = _WORDS[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"{name} {value!r} is not a number but a {type(value).__name__}.", hint=example)
            is_large_enough = value >= 1 if name in ("speedup", "latency_speedup", "parameters") else value > 0
            if not (is_large_enough and math.isfinite(value)):  # also refuses NaN
                raise UsageError(f"{name} {value} {wrong}.", hint=example)
            if name == "parameters" and value != int(value):
                raise UsageError(f"{name} {value} is not a whole number.", hint=example)

    @property
    def given(self) -> dict[str, float]:
        """The goals that were given, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def needs_costs(self) -> bool:
        """Whether a cost model must say how long a network takes."""
        return self.latency_speedup is not None or self.latency_ms is not None


#: Names of the goals.
GOALS = tuple(field.name for field in fields(Goals))
