"""Shapes of what torch's fake quantization yields, which torch lacks: without them no varying batch can be exported."""

from typing import Any

import torch
from torch import Tensor

_OPERATORS = (
    "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "fake_quantize_per_channel_affine_cachemask",
)
#: Kept alive: what it registers goes with it.
_LIBRARY = torch.library.Library("aten", "IMPL", "Meta")  # type: ignore[no-untyped-call]


def _values_and_mask(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def register() -> None:
    """Register the kernels that this version of torch hasn't; again does nothing."""
    for name in _OPERATORS:
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
            _LIBRARY.impl(name, _values_and_mask)  # type: ignore[no-untyped-call]
