"""Kernels of a GPU that give the same each time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: The workspaces with which cuBLAS adds up in the same order each time, as NVIDIA's documentation names them. They are
#: read when a process first multiplies matrices.
_WORKSPACE_VARIABLE, _WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def same_each_time(device: torch.device) -> Iterator[None]:
    """Let PyTorch take kernels that give the same each time, where it has such ones; on the CPU it has no others.

    An operator that has none on a GPU runs as it does, with a warning of PyTorch's that names it: gradients of adaptive
    average pooling and of bilinear interpolation are such.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(_WORKSPACE_VARIABLE, _WORKSPACES)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tunes = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False  # it may end otherwise each time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = tunes
