"""Differences between rows, and how much of them the seeds may explain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import correlation, fmean, stdev

from outcomes import Outcome  # type: ignore[import-not-found]

from prunec.compiler.fairness.accuracy_difference import student_quantile


@dataclass(frozen=True)
class Difference:
    """A difference in top-1, paired by seed.

    Attributes:
        points: First less second, in percentage points, in the mean over the seeds.
        margin: Half the width of its 95 % confidence interval, in points.
    """

    points: float
    margin: float

    @property
    def standing(self) -> str:
        """Where the first stands: "above" or "below" by more than the seeds explain, or "within noise"."""
        if abs(self.points) <= self.margin:
            return "within noise"
        return "above" if self.points > 0 else "below"

    def __str__(self) -> str:
        return f"{self.points:+.2f} ± {self.margin:.2f}"


def difference(first: Sequence[Outcome], second: Sequence[Outcome]) -> Difference:
    """The difference of two rows that have the same seeds in the same order."""
    return student([100 * (a.top1 - b.top1) for a, b in zip(first, second, strict=True)])


def student(differences: Sequence[float]) -> Difference:
    """The mean of two differences or more, with its interval by Student's t-test."""
    margin = student_quantile(len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    return Difference(fmean(differences), margin)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's; equal values share the mean of their ranks."""
    return correlation(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[int]:
    """Twice the mean of the ranks that each value has from 0 on and from 1 on."""
    return [sum(other < value for other in values) + sum(other <= value for other in values) for value in values]
