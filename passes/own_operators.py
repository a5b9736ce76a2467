"""Operators of prunec's own, which round to grids that torch's fake quantization doesn't have.

They are fake quantization too: what they give is in the type of what they read, and their derivative is that of
clipping. Their names begin with "fake_quantize", as torch's do.
"""

from typing import Any

import torch
from torch import Tensor

#: Largest number of the type E4M3 (torch.float8_e4m3fn): 4 bits of exponent, 3 of mantissa, no infinity.
FLOAT8_LIMIT = 448.0
_NAMESPACE = "prunec"
#: Smallest and largest number of INT4.
INT4_LEAST, INT4_MOST = -8, 7
_INT4_BLOCKS = "fake_quantize_int4_blocks"
_PER_TENSOR, _PER_CHANNEL = "fake_quantize_float8_per_tensor", "fake_quantize_float8_per_channel"
#: Kept alive: what it registers goes with it.
_LIBRARY = torch.library.Library(_NAMESPACE, "DEF")  # type: ignore[no-untyped-call]


def _rounded(values: Tensor) -> Tensor:
    """Values as numbers of E4M3, to the nearest, of two equally near ones the even; what lies beyond becomes the end.

    Torch's own cast makes NaN of what lies beyond. NaN stays NaN.
    """
    return values.clamp(-FLOAT8_LIMIT, FLOAT8_LIMIT).to(torch.float8_e4m3fn).to(values.dtype)


def _float8_per_tensor(self: Tensor, scale: float) -> Tensor:
    """``scale`` times numbers of E4M3."""
    return _rounded(self / scale) * scale


def _float8_per_channel(self: Tensor, scale: Tensor, axis: int) -> Tensor:
    """The same with a scale for every slice of an axis, (slices,)."""
    steps = along(scale, axis, self.ndim)
    return _rounded(self / steps) * steps


def _int4_blocks(self: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Whole numbers of 4 bits times a scale for every block along an axis, of which each number of scale has one."""
    steps = scale.repeat_interleave(self.shape[axis] // scale.shape[axis], axis)
    return (self / steps).round().clamp(INT4_LEAST, INT4_MOST) * steps


def _keep_inside_blocks(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, scale, axis = inputs
    steps = values / scale.repeat_interleave(values.shape[axis] // scale.shape[axis], axis)
    ctx.save_for_backward((steps.round() >= INT4_LEAST) & (steps.round() <= INT4_MOST))


def along(scale: Tensor, axis: int, ndim: int) -> Tensor:
    """Numbers for the slices of an axis, (slices,), in a shape that a tensor of so many dimensions is divided by."""
    return scale.view([-1 if dim == axis else 1 for dim in range(ndim)])


def float8_numbers() -> Tensor:
    """The numbers of E4M3 from 0 to `FLOAT8_LIMIT`, ascending, float64 (127,)."""
    return torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).double()


def _keep_inside(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, scale, *axis = inputs
    limit = (along(scale, axis[0], values.ndim) if axis else scale) * FLOAT8_LIMIT
    ctx.save_for_backward(values.abs() <= limit)


def _straight_through(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (inside,) = context.saved_tensors
    return gradient * inside, *[None] * (len(context.needs_input_grad) - 1)


def _define(name: str, arguments: str, kernel: Any, setup_context: Any = _keep_inside) -> None:
    _LIBRARY.define(f"{name}(Tensor self, {arguments}) -> Tensor")  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_autograd(
        f"{_NAMESPACE}::{name}", _straight_through, setup_context=setup_context, lib=_LIBRARY
    )


_define(_PER_TENSOR, "float scale", _float8_per_tensor)
_define(_PER_CHANNEL, "Tensor scale, int axis", _float8_per_channel)
_define(_INT4_BLOCKS, "Tensor scale, int axis", _int4_blocks, _keep_inside_blocks)
INT4_BLOCKS = getattr(torch.ops.prunec, _INT4_BLOCKS).default
FLOAT8_PER_TENSOR = getattr(torch.ops.prunec, _PER_TENSOR).default
FLOAT8_PER_CHANNEL = getattr(torch.ops.prunec, _PER_CHANNEL).default
