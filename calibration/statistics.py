"""Batch norm statistics measured anew, since pruning changes what reaches a batch norm.

A few hundred unlabelled inputs win back much of the accuracy before any finetune (Li et al., "EagleEye", ECCV 2020).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.passes.base import PassResult
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.feeding import BatchInputs, bound, flat_inputs, sample_count, values_of_data
from prunec.passes.graphs import arguments, calls, tensor_names
from prunec.passes.interruption import stop_if_asked
from prunec.passes.program import Program


def reestimate_batchnorm(program: Program, inputs: BatchInputs) -> PassResult:
    """Set running means and variances to those of preprocessed inputs, in a copy of the program.

    The result is exact: every batch norm is measured on all inputs, after the batch norms before it have their new
    statistics.

    Raises:
        UsageError: The network has no batch norm with statistics, or there is one input only.
        NumericMismatchError: The input of a batch norm is not finite.
    """
    if (samples := sample_count(inputs)) < 2:
        raise UsageError(f"re-estimate-batchnorm needs at least 2 inputs, got {samples}.")
    copy = program.clone().eval()
    measured = batch_norms(copy)
    if not measured:
        raise UsageError(
            "The network has no batch norm with running statistics.", hint="Leave re-estimate-batchnorm out."
        )
    with values_of_data(inputs):
        _Measuring(copy, measured).run(*flat_inputs(copy.graph, *bound(copy, inputs)), enable_io_processing=False)
    result = copy.train() if program.training else copy
    return PassResult(result, True, {"batch_norms": len(measured)})


def batch_norms(program: Program) -> dict[Node, tuple[str, ...]]:
    """The batch norms that hold running statistics, with the names of their mean and variance."""
    statistics = {
        node: tensor_names(node, "running_mean", "running_var") for node in calls(program.graph, "batch_norm")
    }
    return {node: names for node, names in statistics.items() if len(names) == 2}


def set_statistics(mean: Tensor, variance: Tensor, x: Tensor, name: str) -> None:
    """Set the running mean and variance (C,) of a batch norm, in place, to those of its inputs ``x`` (N, C, ...).

    Raises:
        UsageError: There is one value per channel, which has no variance.
        NumericMismatchError: The inputs are not finite. Errors call the batch norm by ``name``.
    """
    if not x.isfinite().all():
        raise NumericMismatchError(f"The inputs of the batch norm with {name} are not finite.")
    if x.numel() // x.shape[1] < 2:
        raise UsageError(f"The batch norm with {name} sees one value per channel.", hint="Give more samples.")
    measured = torch.var_mean(x.double(), dim=[d for d in range(x.ndim) if d != 1], correction=1)
    for tensor, value in zip((variance, mean), measured, strict=True):
        tensor.copy_(value)


class _Measuring(Interpreter):
    """Runs a program, setting the statistics of each batch norm, known by their names, when it is reached."""

    def __init__(self, program: Program, statistics: Mapping[Node, tuple[str, ...]]) -> None:
        super().__init__(program.module)
        self.tensors, self.statistics = program.tensors(), statistics

    @torch.no_grad()
    def run_node(self, n: Node) -> Any:
        stop_if_asked()
        if names := self.statistics.get(n):
            mean, variance = (self.tensors[name] for name in names)
            set_statistics(mean, variance, self.env[arguments(n)["input"]], names[0])
        return super().run_node(n)
