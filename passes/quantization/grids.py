"""Grids of whole numbers that values are rounded to, and how a range of values decides them."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prunec.passes.errors import NumericMismatchError

#: How activations are put on a grid: "symmetric", signed with 0 at its middle, as NVIDIA's engines take them; "affine",
#: unsigned with a zero point, which the INT8 kernels of CPUs are fast with.
Form = Literal["symmetric", "affine"]
#: Largest number of the grid of weights, which is symmetric in both forms: zeros stay zeros.
WEIGHT_LIMIT = 127
#: A scale where there is nothing to tell one: of a tensor that is all zeros.
_SCALE_OF_ZEROS = 1 / WEIGHT_LIMIT
#: A scale below it would be 0 in float16, in which NVIDIA's engines may hold it.
_LEAST_SCALE = 2.0**-24


@dataclass(frozen=True)
class Range:
    """The values of a tensor that its grid must tell apart; what lies beyond is clipped.

    Raises:
        NumericMismatchError: A bound is not finite; ValueError where they stand the wrong way round.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise NumericMismatchError(f"A range of values must be finite, got {self.low} to {self.high}.")
        if self.low > self.high:
            raise ValueError(f"a range must begin below its end, got {self.low} to {self.high}")

    def __or__(self, other: "Range") -> "Range":
        """The range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Grid:
    """Numbers ``scale * (q - zero_point)`` for whole q from ``least`` to ``most``."""

    scale: float
    zero_point: int
    least: int
    most: int

    @property
    def range(self) -> Range:
        """The smallest and the largest number of the grid."""
        return Range(self.scale * (self.least - self.zero_point), self.scale * (self.most - self.zero_point))


def grid_of(values: Range, form: Form) -> Grid:
    """The grid of activations in a range. It holds 0, so that padding and what Relu leaves stay exact."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    if form == "symmetric":
        return Grid(_scale(max(-low, high) / WEIGHT_LIMIT), 0, -WEIGHT_LIMIT - 1, WEIGHT_LIMIT)
    scale = _scale((high - low) / 255)
    return Grid(scale, min(round(-low / scale), 255), 0, 255)


def _scale(scale: float) -> float:
    return max(scale, _LEAST_SCALE) if scale > 0 else _SCALE_OF_ZEROS


def weight_scales(weight: Tensor, axis: int) -> Tensor:
    """The scale of every output channel of a weight, float32 (channels,).

    A channel of zeros has the largest scale of the others: any holds its values, and biases are held in steps of it.
    """
    dims = [dim for dim in range(weight.ndim) if dim != axis]
    largest = weight.detach().abs().amax(dims) if dims else weight.detach().abs()
    scales = (largest.float() / WEIGHT_LIMIT).clamp_min(_LEAST_SCALE)
    if not bool((largest > 0).any()):
        return torch.full_like(scales, _SCALE_OF_ZEROS)
    return torch.where(largest > 0, scales, scales.max())
