"""Batch norm statistics measured anew: after pruning, what reaches a batch norm is no longer what it was trained on.

A few hundred unlabelled inputs win back much of the accuracy before any finetune (Li et al., "EagleEye", ECCV 2020).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.passes.base import PassResult
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.graphs import arguments, calls, operator_name
from prunec.passes.program import Program


@dataclass(frozen=True)
class ReestimateBatchNorm:
    """Measure the mean and variance of every batch norm's inputs on training inputs, without their labels.

    Attributes:
        samples: training inputs.
    """

    samples: int = 256

    name: ClassVar[str] = "re-estimate-batchnorm"

    def __post_init__(self) -> None:
        """Refuse what gives no variance."""
        if self.samples < 2:
            raise UsageError(f"re-estimate-batchnorm: samples must be at least 2, got {self.samples}.")


def reestimate_batchnorm(program: Program, inputs: Tensor) -> PassResult:
    """Set running means and variances to those of the inputs; the program that comes in stays as it is.

    Exact: every batch norm sees all inputs as the ones before it, measured already, give them on.

    Args:
        program: with one input tensor.
        inputs: of the network, (N, ...), preprocessed.

    Raises:
        UsageError: the network takes several inputs, has no batch norm with statistics, or there is one input only.
        NumericMismatchError: what reaches a batch norm is not finite.
    """
    if len(program.example_inputs) != 1:
        raise UsageError(
            f"re-estimate-batchnorm takes networks with one input, this has {len(program.example_inputs)}."
        )
    if len(inputs) < 2:
        raise UsageError(f"re-estimate-batchnorm needs at least 2 inputs, got {len(inputs)}.")
    copy = program.clone().eval()
    measured = [node for node in calls(copy.graph, "batch_norm") if _statistics(node) is not None]
    if not measured:
        raise UsageError(
            "The network has no batch norm with running statistics.", hint="Leave re-estimate-batchnorm out."
        )
    _Measuring(copy).run(inputs)
    result = copy.train() if program.training else copy
    return PassResult(result, True, {"batch_norms": len(measured)})


class _Measuring(Interpreter):
    """Runs a program, setting the statistics of each batch norm when it is reached."""

    def __init__(self, program: Program) -> None:
        super().__init__(program.module)
        self.tensors = program.tensors()

    @torch.no_grad()
    def run_node(self, n: Node) -> Any:
        """As the graph says, with new statistics first where it is a batch norm."""
        names = _statistics(n)
        if names is not None:
            x: Tensor = self.env[arguments(n)["input"]]
            if not x.isfinite().all():
                raise NumericMismatchError(f"The inputs of the batch norm with {names[0]} are not finite.")
            variance, mean = torch.var_mean(x.double(), dim=[d for d in range(x.ndim) if d != 1], correction=1)
            for name, value in zip(names, (mean, variance), strict=True):
                self.tensors[name].copy_(value)
        return super().run_node(n)


def _statistics(node: Node) -> tuple[str, str] | None:
    """Names of the running mean and variance of a batch norm that has both."""
    if node.op != "call_function" or operator_name(node.target) != "batch_norm":
        return None
    found = [arguments(node).get(name) for name in ("running_mean", "running_var")]
    if any(not isinstance(value, Node) or value.op != "get_attr" for value in found):
        return None
    mean, variance = (str(value.target) for value in found if isinstance(value, Node))
    return mean, variance
