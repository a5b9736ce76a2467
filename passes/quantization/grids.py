"""Grids of numbers that values are rounded to, and how a range of values decides them."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.errors import NumericMismatchError
from prunec.passes.own_operators import FLOAT8_LIMIT, FLOAT8_PER_CHANNEL, FLOAT8_PER_TENSOR, INT4_MOST

#: How values are put on a grid: "symmetric", whole numbers with a sign and 0 in their middle, as NVIDIA's engines take
#: them; "affine", activations without a sign and with a zero point, which the INT8 kernels of CPUs are fast with, and
#: weights as before; "float8", all in floating point of 8 bits (E4M3), of NVIDIA's engines from Ada on; "int4", weights
#: of linear layers alone, in whole numbers of 4 bits. Grids of weights are symmetric in every form: zeros stay zeros.
Form = Literal["symmetric", "affine", "float8", "int4"]
#: Weights of "int4" that have one scale: as many as divide what an output sums over, the largest of these.
BLOCKS = (128, 64, 32)
#: Largest whole number of the grid of weights.
WEIGHT_LIMIT = 127
#: A scale where there is nothing to tell one: of a tensor that is all zeros.
_SCALE_OF_ZEROS = 1 / WEIGHT_LIMIT
#: A scale below it would be 0 in float16, in which NVIDIA's engines may hold it.
_LEAST_SCALE = 2.0**-24
#: Below it float16's numbers are ever fewer: such scales of weights are numbers of it, in the program as in files.
_LEAST_NORMAL = 2.0**-14
#: Scales up to this lie that far apart in float16 that grids get a 16th and more too wide for what they hold.
COARSE_SCALE = 2.0**-20


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
    """Numbers ``scale * (q - zero_point)``.

    Attributes:
        scale: The scale.
        zero_point: The q of 0.
        least: Smallest q.
        most: Largest q.
        is_float8: Whether q are the numbers of E4M3; else they are whole.
    """

    scale: float
    zero_point: int
    least: int
    most: int
    is_float8: bool = False

    @property
    def range(self) -> Range:
        """The smallest and the largest number of the grid."""
        return Range(self.scale * (self.least - self.zero_point), self.scale * (self.most - self.zero_point))

    def rounded(self, values: Tensor) -> Tensor:
        """Values of any shape as the nearest numbers of the grid; the derivative is that of clipping to its range."""
        if self.is_float8:
            float8: Tensor = FLOAT8_PER_TENSOR(values, self.scale)
            return float8
        return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, self.least, self.most)


def float8_grid(scale: float) -> Grid:
    """The numbers of E4M3 times a scale."""
    return Grid(scale, 0, -int(FLOAT8_LIMIT), int(FLOAT8_LIMIT), is_float8=True)


def grid_of(values: Range, form: Form) -> Grid:
    """The grid of activations in a range. It holds 0, so that padding and what Relu leaves stay exact.

    Raises:
        ValueError: The form has no grids for activations.
    """
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    bound = max(-low, high)
    if form == "float8":
        return float8_grid(float(_in_float16(np.array(_scale(bound / FLOAT8_LIMIT, form)))))
    if form == "symmetric":
        return Grid(_scale(bound / WEIGHT_LIMIT, form), 0, -WEIGHT_LIMIT - 1, WEIGHT_LIMIT)
    if form != "affine":
        raise ValueError(f"activations are on no grid in the form {form!r}")
    scale = _scale((high - low) / 255, form)
    return Grid(scale, min(round(-low / scale), 255), 0, 255)


def is_too_narrow(values: Range, form: Form) -> bool:
    """Whether the scale for a range would be 0 in the type that holds it, so that its grid is wider."""
    return 0 < max(-values.low, values.high) / largest_number(form) < _least_scale(form)


def largest_number(form: Form) -> float:
    """The largest number of a form's symmetric grids."""
    return FLOAT8_LIMIT if form == "float8" else WEIGHT_LIMIT


def _least_scale(form: Form) -> float:
    """The smallest scale: files for CPUs, of the form "affine", hold scales in float32, others in float16."""
    return float(np.finfo(np.float32).tiny) if form == "affine" else _LEAST_SCALE


def _scale(scale: float, form: Form) -> float:
    return max(scale, _least_scale(form)) if scale > 0 else _SCALE_OF_ZEROS


def _in_float16(scales: NDArray[Any]) -> NDArray[Any]:
    """The next larger numbers of float16, in which engines hold scales; those that are beyond it as they are.

    The numbers of E4M3 are as dense at any scale, so the scale may be one that files in 16 and in 32 bits both have.
    """
    largest = np.finfo(np.float16).max
    half = np.minimum(scales, largest).astype(np.float16)
    with np.errstate(over="ignore"):
        half = np.where(half < scales, np.nextafter(half, np.float16(np.inf)), half)
    return np.where(scales > largest, scales, half.astype(scales.dtype))


def weight_scales(weight: Tensor, axis: int, form: Form = "symmetric") -> Tensor:
    """The scale of every output channel of a weight, float32 (channels,).

    A channel of zeros has the largest scale of the others: any holds its values, and biases are held in steps of it.
    """
    dims = [dim for dim in range(weight.ndim) if dim != axis]
    largest = weight.detach().abs().amax(dims) if dims else weight.detach().abs()
    scales = (largest.float() / largest_number(form)).clamp_min(_least_scale(form))
    is_coarse = scales < (math.inf if form == "float8" else _LEAST_NORMAL)
    if form != "affine" and bool(is_coarse.any()):
        in_float16 = torch.from_numpy(_in_float16(scales.cpu().numpy())).to(scales.device)
        scales = torch.where(is_coarse, in_float16, scales)
    if not bool((largest > 0).any()):
        return torch.full_like(scales, _SCALE_OF_ZEROS)
    return torch.where(largest > 0, scales, scales.max())


def rounded_weight(weight: Tensor, axis: int | None, form: Form) -> Tensor:
    """A weight on the grids of its output channels, or on one; derivatives are those of clipping."""
    whole, place = (weight.unsqueeze(0), 0) if axis is None else (weight, axis)
    scales = weight_scales(whole, place, form)
    if form == "float8":
        rounded: Tensor = FLOAT8_PER_CHANNEL(whole, scales, place)
    else:
        zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
        rounded = torch.fake_quantize_per_channel_affine(whole, scales, zeros, place, -WEIGHT_LIMIT - 1, WEIGHT_LIMIT)
    return rounded.view_as(weight)


def block_of(inputs: int) -> int | None:
    """The number of weights of an output that have one scale in INT4; None where no block divides its inputs."""
    return next((block for block in BLOCKS if inputs % block == 0), None)


def block_scales(weight: Tensor, axis: int, block: int) -> Tensor:
    """The scale of every block of a weight along an axis, float32, that axis divided by the block's size.

    They are numbers of float16, in which engines hold them. A block of zeros has any scale.
    """
    shape = (*weight.shape[:axis], -1, block, *weight.shape[axis + 1 :])
    blocks = weight.detach().float().abs().reshape(shape).amax(axis + 1)
    scales = torch.where(blocks > 0, blocks / INT4_MOST, torch.tensor(_SCALE_OF_ZEROS)).clamp_min(_LEAST_SCALE)
    return torch.from_numpy(_in_float16(scales.cpu().numpy())).to(scales.device)
