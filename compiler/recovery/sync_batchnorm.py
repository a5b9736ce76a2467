"""Batch norms over the batch of all processes together, by a rewrite of the training graph. CUDA only."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules._functions import SyncBatchNorm

from prunec.compiler.recovery.processes import Processes
from prunec.passes.errors import UsageError
from prunec.passes.graphs import arguments, calls
from prunec.passes.program import Program


def synchronise_batchnorms(training: Program, processes: Processes) -> None:
    """Let every batch norm in training form take its statistics over all processes' samples, in place.

    Raises:
        UsageError: the processes don't train on CUDA devices, where PyTorch has the kernels.
    """
    if processes.device.type != "cuda":
        raise UsageError(
            f"recover: sync_batchnorm needs CUDA devices, and training is on {processes.device.type}.",
            hint="Leave it out: each process then takes the statistics of its own share of the batch.",
        )
    for node in list(calls(training.graph, "batch_norm")):
        bound = arguments(node)
        if bound["training"] and bound["running_mean"] is not None:
            names = ("input", "weight", "bias", "running_mean", "running_var", "eps", "momentum")
            node.target, node.args, node.kwargs = _batch_norm, tuple(bound[name] for name in names), {}
    training.module.recompile()


def _batch_norm(
    inputs: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, momentum: float
) -> Any:
    """PyTorch's own synchronised batch norm, in training form."""
    group = torch.distributed.group.WORLD
    count = torch.distributed.get_world_size()
    return SyncBatchNorm.apply(inputs.contiguous(), weight, bias, mean, variance, eps, momentum, group, count)  # type: ignore[no-untyped-call]
