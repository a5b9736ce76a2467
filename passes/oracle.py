"""The oracle: a pruned program must equal the dense one with the removed slices zeroed.

It knows nothing of how sizes were rewritten, only the plan, so it can catch what the rewriting gets wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunec.passes.base import PassResult
from prunec.passes.dimensions import input_tensors
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.masked import MaskedInterpreter
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.rewrite import coupling_of
from prunec.passes.tensors import doubled

#: Largest magnitude of outputs below which they are all but zero, so that a comparison says nothing.
_SMALLEST_OUTPUT = 1e-6
#: Largest relative error at which two programs count as equal in float64.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class OracleReport:
    """Result of a comparison with the zeroed dense program.

    Attributes:
        exact: Whether no inexact operator is involved.
        max_relative_error: Largest max|a-b| / max|b| of the outputs, against the zeroed dense program, in float64.
        masked_max_relative_error: The same against the dense program whose inexact operators see the kept slices
            only; equal to the plain error where there is none.
        inexact_groups: Names of the groups under inexact operators.
    """

    exact: bool
    max_relative_error: float
    masked_max_relative_error: float
    inexact_groups: list[str]

    @property
    def passed(self) -> bool:
        """Whether the pruned program equals its reference."""
        return self.masked_max_relative_error < TOLERANCE


def check_oracle(
    program: Program, result: PassResult, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> OracleReport:
    """Compare the result of a pruning pass with the dense program whose removed slices are zero, in float64.

    Both run on the inputs ``args`` and ``kwargs``.

    Raises:
        NumericMismatchError: An output is not finite or all but zero, so that the comparison says nothing.
        UsageError: The result has no plan.
    """
    if result.plan is None:
        raise UsageError("The oracle checks passes that remove slices; this result has no pruning plan.")
    program = result.compensated or program
    coupling, removed = coupling_of(program, result.plan)
    inexact = [g.name for g in coupling.groups if g.inexact and removed[coupling.units(g)].any()]
    reference = zeroed(program, result.plan)

    def outputs(network: Callable[..., Any]) -> Any:
        inputs, named = doubled((args, kwargs or {}))  # copies, since a network may write to its inputs
        return network(*inputs, **named)

    with torch.no_grad():
        actual = outputs(result.program.double().eval())
        error = masked = relative_error(actual, outputs(reference))
        if inexact:
            interpreter = MaskedInterpreter(reference, program, result.program, coupling, removed)
            masked = relative_error(actual, outputs(interpreter.run_program))
    return OracleReport(not inexact, error, masked, inexact)


def zeroed(program: Program, plan: PruningPlan) -> Program:
    """A float64 copy of the dense program in which every slice that the plan removes is zero."""
    copy = program.double().eval()
    tensors = copy.tensors()
    with torch.no_grad():
        for name, dims in plan.kept.items():
            for dim, indices in dims.items():
                gone = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
                gone[indices] = False
                tensors[name].index_fill_(dim, gone.nonzero().flatten(), 0)
    return copy


def relative_error(actual: Any, expected: Any) -> float:
    """The largest max|a-b| / max|b| of the output tensors; 1 where whole numbers or flags differ at all.

    Raises:
        NumericMismatchError: The outputs differ in number or shape, or can't be compared, as in `check_oracle`.
    """
    left, right = input_tensors(actual), input_tensors(expected)
    if len(left) != len(right):
        raise NumericMismatchError(f"There are {len(left)} output tensors, expected {len(right)}.")
    if not any(tensor.is_floating_point() for tensor in right):
        raise NumericMismatchError(
            "No output can be compared: none is a floating-point tensor.",
            hint="Whole numbers, such as a class index, hide errors: let the network return its logits too.",
        )
    return max(_relative_error(position, a, b) for position, (a, b) in enumerate(zip(left, right, strict=True)))


def _relative_error(position: int, actual: Tensor, expected: Tensor) -> float:
    shape, expected_shape = tuple(actual.shape), tuple(expected.shape)
    if shape != expected_shape:
        raise NumericMismatchError(f"Output {position} has shape {shape}, expected {expected_shape}.")
    if not expected.is_floating_point():
        return 0.0 if torch.equal(actual, expected) else 1.0
    actual, expected = actual.detach().double(), expected.detach().double()
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    finite = torch.isfinite(expected).all()
    if finite and not torch.isfinite(actual).all():
        raise NumericMismatchError(f"Output {position} has values that are not finite, where finite ones are expected.")
    if not finite or largest < _SMALLEST_OUTPUT:
        raise NumericMismatchError(
            f"Output {position} can't be compared: its largest magnitude is {largest:g}.",
            hint="Outputs that are zero or not finite hide every error. Check the weights and the example input.",
        )
    return float((actual - expected).abs().max()) / largest
