"""What makes two runs compressed alike: as many operations are left, or they take as long on one target."""

from dataclasses import dataclass
from typing import Literal

from prunec.compiler.fairness.predicates import Predicate, all_of, equal, judged
from prunec.compiler.fairness.run_card import FILTERS, RunCard
from prunec.passes.errors import UsageError

#: What is equal of two runs that are compressed alike.
Equal = Literal["macs", "latency"]
#: Share by which it may differ, and what it is in words.
_TOLERANCES: dict[Equal, tuple[float, str]] = {
    "macs": (0.01, "equal speed-up in MACs"),
    "latency": (0.03, "equal measured time on one target"),
}
#: What two measured times must share to be comparable.
_CONDITIONS = ("target", "hardware", "batch", "threads")


@dataclass(frozen=True)
class Alike:
    """The measure by which runs count as compressed alike.

    Attributes:
        equal: What is equal of them.
        tolerance: Share of the larger by which it may differ; None for the measure's own.
    """

    equal: Equal = "macs"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` where the measure isn't known or the tolerance is no share."""
        if self.equal not in _TOLERANCES:
            raise UsageError(f"Runs are compared at equal {' or '.join(_TOLERANCES)}, got {self.equal!r}.")
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise UsageError(f"A tolerance is a share, at least 0 and below 1, got {self.tolerance:g}.")

    @property
    def share(self) -> float:
        """The share by which it may differ."""
        return _TOLERANCES[self.equal][0] if self.tolerance is None else self.tolerance

    @property
    def words(self) -> str:
        """The measure in words."""
        return f"{_TOLERANCES[self.equal][1]}, to {100 * self.share:g} %"

    def __call__(self, a: RunCard, b: RunCard) -> Predicate:
        """A part of p0: whether two runs are compressed alike."""
        return _same_time(a, b, self.share) if self.equal == "latency" else _same_operations(a, b, self.share)


def _same_operations(a: RunCard, b: RunCard, tolerance: float) -> Predicate:
    return all_of(
        _close("speedup", a.speedup, b.speedup, tolerance) if a.speedup and b.speedup else equal(a, b, "speedup"),
        _no_other_zeros(a, b, tolerance),
    )


def _same_time(a: RunCard, b: RunCard, tolerance: float) -> Predicate:
    """Whether the finished networks take as long; times under other conditions say nothing of each other."""
    if a.latency is None or b.latency is None:
        return Predicate(None, missing=tuple(f"{card.name}: latency" for card in (a, b) if card.latency is None))
    conditions = all_of(*(equal(a, b, f"latency.{name}") for name in _CONDITIONS))
    if conditions.differs:
        told = tuple(f"{words} (times of two {words.split(':')[0]}s can't be compared)" for words in conditions.differs)
        return Predicate(False, told, conditions.missing)
    return all_of(conditions, _close("latency in ms", a.latency.median_ms, b.latency.median_ms, tolerance))


def _no_other_zeros(a: RunCard, b: RunCard, tolerance: float) -> Predicate:
    """Whether as many weights are left; where only filters went, few cards tell of zeros, and there are none."""
    if a.zero_fraction is None or b.zero_fraction is None:
        return equal(a, b, "zero_fraction") if {a.structure, b.structure} - {FILTERS, "none"} else Predicate(True)
    return _close("share of weights that aren't zero", 1 - a.zero_fraction, 1 - b.zero_fraction, tolerance)


def _close(what: str, first: float, second: float, tolerance: float) -> Predicate:
    close = abs(first - second) <= tolerance * max(first, second) + 1e-12
    return judged(close, f"{what}: {first:.4g} against {second:.4g}")
