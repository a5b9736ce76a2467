"""Kernels of a GPU that give the same each time."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.fx import Graph
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, avg_pool1d, avg_pool2d

from prunec.passes.graphs import arguments, calls, operator_name

#: The workspaces with which cuBLAS adds up in the same order each time, as NVIDIA's documentation names them. They are
#: read when a process first multiplies matrices.
_WORKSPACE_VARIABLE, _WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def same_each_time(device: torch.device) -> Iterator[None]:
    """Let PyTorch take kernels that give the same each time, where it has such ones; on the CPU it has no others.

    An operator that has none on a GPU runs as it does, with a warning of PyTorch's that names it: the gradient of
    bilinear interpolation is such a one. Who has asked PyTorch for errors there gets them. The variable of cuBLAS stays
    set in the process.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(_WORKSPACE_VARIABLE, _WORKSPACES)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tunes, is_strict = torch.backends.cudnn.benchmark, before == (True, False)
    torch.use_deterministic_algorithms(True, warn_only=not is_strict)
    torch.backends.cudnn.benchmark = False  # it may end otherwise each time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = tunes


def pool_in_order(graph: Graph) -> None:
    """Let adaptive average pools whose windows are all alike be plain ones, in place: the same but for rounding.

    A GPU adds up the gradients of plain pools in the same order each time, those of adaptive ones in any. Of those over
    three dimensions it does neither.
    """
    for node in list(calls(graph, *_POOLED)):
        bound = arguments(node)
        node.target, node.args = _POOLED[operator_name(node.target)], (bound["self"], bound["output_size"])
        node.kwargs = {}


def _pooled1d(values: Tensor, sizes: tuple[int]) -> Tensor:
    if values.shape[-1] % sizes[0]:
        return adaptive_avg_pool1d(values, sizes[0])
    return avg_pool1d(values, values.shape[-1] // sizes[0])


def _pooled2d(images: Tensor, sizes: tuple[int, int]) -> Tensor:
    height, width = images.shape[-2:]
    if height % sizes[0] or width % sizes[1]:
        return adaptive_avg_pool2d(images, sizes)
    return avg_pool2d(images, (height // sizes[0], width // sizes[1]))


_POOLED: dict[str, Callable[..., Tensor]] = {
    "adaptive_avg_pool1d": _pooled1d,
    "adaptive_avg_pool2d": _pooled2d,
    "_adaptive_avg_pool2d": _pooled2d,
}
