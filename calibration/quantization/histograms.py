"""Histograms of tensors, in memory that doesn't grow with the number of values."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.errors import NumericMismatchError
from prunec.passes.permutation_kernels import compiled

#: Bins of a histogram, a power of two.
BINS = 8192
#: Bins on each side of 0, which is also the position of the first one above it.
HALF = BINS // 2
#: Exponent of the narrowest histograms, which hold zeros and what float32 hardly tells from them.
_LEAST_EXPONENT = -126

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many values lie in each of equal bins over -A to A; A is the least power of two above all magnitudes.

    Bins are a power of two wide, and 0 is an edge of two. A value on an edge counts to the bin farther from 0, 0 itself
    to the positive one. Where A grows, pairs of bins become one, so that the sum of two histograms is the histogram of
    all their values: neither the order nor the split of the values changes it.

    Attributes:
        counts: Number of values in each bin, int64 (BINS,).
        exponent: The power of two that A is.
        least: Smallest value, exactly; infinity where there is none.
        most: Largest value, exactly; minus infinity where there is none.
    """

    counts: Counts
    exponent: int
    least: float
    most: float

    @classmethod
    def of(cls, values: Tensor) -> "Histogram":
        """The histogram of a tensor of floating-point numbers of any shape, which may hold none.

        Raises:
            NumericMismatchError: A value is not finite.
        """
        counts, values = np.zeros(BINS, dtype=np.int64), values.detach()
        if not values.numel():
            return cls(counts, _LEAST_EXPONENT, math.inf, -math.inf)
        # Adding 0 makes 0 of -0.
        least, most = (bound.item() + 0.0 for bound in torch.aminmax(values))
        largest = max(-least, most)
        if not math.isfinite(largest):
            raise NumericMismatchError(f"A histogram takes finite values only, got {least} to {most}.")
        exponent = math.frexp(max(largest, math.ldexp(0.5, _LEAST_EXPONENT)))[1]
        wide = values.cpu().to(torch.promote_types(values.dtype, torch.float32))
        _count(wide.numpy().ravel(order="K"), math.ldexp(HALF, -exponent), counts)
        return cls(counts, exponent, least, most)

    def __add__(self, other: "Histogram") -> "Histogram":
        """The histogram of the values of both."""
        exponent = max(self.exponent, other.exponent)
        counts = self._coarser(exponent) + other._coarser(exponent)
        return Histogram(counts, exponent, min(self.least, other.least), max(self.most, other.most))

    def _coarser(self, exponent: int) -> Counts:
        """The counts in the bins of a larger exponent."""
        merged = 2 ** min(exponent - self.exponent, int(math.log2(HALF)))
        left = HALF // merged
        counts = np.zeros_like(self.counts)
        counts[HALF - left : HALF + left] = self.counts.reshape(-1, merged).sum(1)
        return counts

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1 / HALF, self.exponent)


@compiled
def _count(values: NDArray[np.floating[Any]], bins_per_unit: float, counts: Counts) -> None:
    for value in values:
        position = int(abs(value) * bins_per_unit)
        counts[HALF - 1 - position if value < 0 else HALF + position] += 1
