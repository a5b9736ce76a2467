"""A layer's input as the rows that its outputs are products of."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import Node

from prunec.passes.graphs import arguments, operator_name
from prunec.passes.operators import WEIGHTED

#: Values of unfolded inputs at a time.
_CHUNK = 2**25


def can_unfold(call: Node) -> bool:
    """Whether a weighted call's outputs are products of whole rows: linear layers, convolutions without groups."""
    return not WEIGHTED[operator_name(call.target)].is_transposed and arguments(call).get("groups", 1) == 1


def unfolded(call: Node, x: Tensor) -> Iterator[Tensor]:
    """What a call that `can_unfold` accepts read, in parts of bounded size.

    A convolution reads samples on axis 0, or none: one sample without that axis. A linear layer's rows are those of all
    axes but the last, of whatever they count.

    Yields:
        (samples * places, positions * C): the values under the kernel at every place, input channels consecutive.
    """
    size = arguments(call)["weight"].meta["shapes"]
    if operator_name(call.target) == "linear":
        yield from torch.split(x.reshape(-1, size[1]), max(1, _CHUNK // size[1]))
        return
    samples = x if x.ndim == len(size) else x.unsqueeze(0)
    per_sample = max(1, samples[:1].numel() // size[1] * math.prod(size[1:]))
    for part in torch.split(samples, max(1, _CHUNK // per_sample)):
        yield _patches(call, part)


def _patches(call: Node, x: Tensor) -> Tensor:
    """Inputs under the kernel at every place: (samples * places, positions * C).

    A convolution of each channel with kernels that pick one position: padding, stride and dilation as in the call.
    """
    bound = arguments(call)
    kernel = bound["weight"].meta["shapes"][2:]
    picks = torch.eye(torch.Size(kernel).numel(), dtype=x.dtype).reshape(-1, 1, *kernel)
    samples, channels = x.shape[:2]
    single = x.reshape(samples * channels, 1, *x.shape[2:])
    picked: Tensor = call.target(single, picks, None, bound["stride"], bound["padding"], bound["dilation"])  # type: ignore[operator]
    return picked.reshape(samples, channels, len(picks), -1).permute(0, 3, 2, 1).reshape(-1, len(picks) * channels)
