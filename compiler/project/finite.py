"""Whether the values of a network can be computed with."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prunec.passes.errors import InputError

#: Names of buffers that training changes, unlike those that stand for constants.
_STATISTICS = ("running_mean", "running_var")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse NaN anywhere, and infinity in what is trained. In a constant, such as a causal mask, it is meant.

    Raises:
        InputError: There is such a value.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        bad = torch.isnan(tensor) if _is_constant(name, tensor) else ~torch.isfinite(tensor)
        if count := int(bad.sum()):
            raise InputError(
                f"{path}: {count} of {tensor.numel()} values of {name} are not finite (NaN or infinity).",
                hint="The training run probably diverged: use an earlier checkpoint.",
            )


def _is_constant(name: str, tensor: Tensor) -> bool:
    """Whether training never changes a tensor."""
    is_trained = isinstance(tensor, nn.Parameter) and tensor.requires_grad
    return not is_trained and not name.endswith(_STATISTICS)
