"""How far apart the accuracies of two runs are, and how much of that may be chance."""

import math
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.fairness.run_card import Accuracy

CONFIDENCE = 0.95
#: Runs that a deviation needs at least: where a card gives one and not their number, it is taken of so many.
_FEWEST_RUNS = 2
_NODES, _STEPS = 128, 12


@dataclass(frozen=True)
class Difference:
    """The difference of two mean accuracies.

    Attributes:
        value: First less second, in fractions.
        margin: Half the width of its confidence interval; None where a deviation over seeds isn't known.
        kind: "paired" where both runs have the same seeds and their differences count, "Welch" by Welch's t-test, ""
            where there is no interval.
    """

    value: float
    margin: float | None
    kind: Literal["paired", "Welch", ""]

    @property
    def winner(self) -> int | None:
        """The run that is ahead by more than chance explains, 0 or 1; None for a tie, and where that isn't known."""
        if self.margin is None or abs(self.value) <= self.margin:
            return None
        return 0 if self.value > 0 else 1


def difference(a: Accuracy, b: Accuracy) -> Difference | None:
    """The difference between two accuracies; None where one isn't known."""
    if a.mean is None or b.mean is None:
        return None
    seeds = a.by_seed.keys()
    if len(seeds) >= _FEWEST_RUNS and seeds == b.by_seed.keys():
        pairs = [a.by_seed[seed] - b.by_seed[seed] for seed in seeds]
        margin = student_quantile(len(pairs) - 1) * stdev(pairs) / math.sqrt(len(pairs))
        return Difference(fmean(pairs), margin, "paired")
    if a.standard_deviation is None or b.standard_deviation is None:
        return Difference(a.mean - b.mean, None, "")
    runs = [max(_FEWEST_RUNS, accuracy.runs or 0) for accuracy in (a, b)]
    parts = [s**2 / n for s, n in zip((a.standard_deviation, b.standard_deviation), runs, strict=True)]
    total = sum(parts)
    if total == 0:
        return Difference(a.mean - b.mean, 0.0, "Welch")
    freedom = 1 / sum((part / total) ** 2 / (n - 1) for part, n in zip(parts, runs, strict=True))
    return Difference(a.mean - b.mean, student_quantile(freedom) * math.sqrt(total), "Welch")


def student_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The t below which Student's distribution has this share of its absolute values.

    By t = sqrt(freedom) tan(angle) the density becomes a power of the cosine, which quadrature integrates exactly
    enough: below 1e-4 of the value.

    Args:
        freedom: Degrees of freedom, at least 1; fractions are allowed, as in Welch's test.
        confidence: The share, above 0 and below 1.
    """
    nodes, weights = _quadrature()

    def below(angle: float) -> float:
        """The integral of the density, not normalised, up to an angle."""
        angles = angle * (nodes + 1) / 2
        return float(angle / 2 * (weights * np.cos(angles) ** (freedom - 1)).sum())

    share, angle = confidence * below(math.pi / 2), 0.0
    for _ in range(_STEPS):  # of Newton's method: the integral bends down, so that it comes from below without a jump
        angle += (share - below(angle)) / math.cos(angle) ** (freedom - 1)
    return math.sqrt(freedom) * math.tan(angle)


@cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes between -1 and 1, and their weights."""
    return np.polynomial.legendre.leggauss(_NODES)
