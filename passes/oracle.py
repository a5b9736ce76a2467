"""The oracle: a pruned program must equal the dense one with the removed slices and the values of branches zeroed.

It knows nothing of how sizes were rewritten, only the plan, so it can catch what the rewriting gets wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunec.passes.base import PassResult
from prunec.passes.branch_removal import silenced, without_branches
from prunec.passes.dimensions import input_tensors
from prunec.passes.errors import NothingComparedError, NumericMismatchError, UsageError
from prunec.passes.factors import factor_names, least_error, product
from prunec.passes.masked import MaskedInterpreter
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.rewrite import apply_plan_to_program, coupling_of
from prunec.passes.tensors import doubled

#: Magnitude of outputs, against that of the dense network's, below which a comparison says nothing.
_NEGLIGIBLE = 1e-9
#: Largest relative error at which two programs count as equal in float64.
TOLERANCE = 1e-9
#: What rounding factors to float32 may add to their product's squared error, against the squared norm of the weight.
_ROUNDING = 1e-6
#: Magnitude of values that masks fill in, at the least and against all others of the output; and their rounding, of
#: which bfloat16's is the coarsest.
_FILL, _FILL_GAP, _FILL_ROUNDING = 1e5, 1e4, 2**-7
_FLOAT16_MAX = torch.finfo(torch.float16).max


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

    Where the plan decomposes a layer, the product of both factors takes the place of its weight, which it must be the
    best approximation of: no worse than what the singular values that are left out say.

    Both run on the inputs ``args`` and ``kwargs``. Where branches were removed the dense program with zeros in place of
    their values is compared with the one without them, and that with the result: the greater error counts.

    Raises:
        NumericMismatchError: An output is not finite or all but zero, so that the comparison says nothing; or a product
            isn't the best approximation of its rank.
        UsageError: The result has no plan.
    """
    if result.plan is None:
        raise UsageError("The oracle checks passes that remove slices; this result has no pruning plan.")
    whole, cuts = result.compensated or program, result.plan.cuts
    program = without_branches(whole, result.plan.removed_branches)
    coupling, removed = coupling_of(program, cuts)
    inexact = [g.name for g in coupling.groups if g.inexact and removed[coupling.units(g)].any()]
    reference, pruned = zeroed(program, cuts), result.program.double().eval()
    _put_products(reference, pruned, cuts)

    def outputs(network: Callable[..., Any]) -> Any:
        inputs, named = doubled((args, kwargs or {}))  # copies, since a network may write to its inputs
        return network(*inputs, **named)

    with torch.no_grad():
        actual, expected = outputs(pruned), outputs(reference)
        if not _is_finite(expected):
            expected = outputs(MaskedInterpreter(reference, program, coupling, removed).run_program)
        error = masked = relative_error(actual, expected)
        if inexact:
            alike = pruned
            if cuts.ranks:  # operators that mix channels are looked up in a graph of the same nodes
                alike = apply_plan_to_program(program, replace(cuts, ranks={})).double().eval()
            expected = outputs(MaskedInterpreter(reference, program, coupling, removed, alike).run_program)
            masked = relative_error(actual, expected)
        _check_scale(expected, lambda: outputs(whole.double().eval()))
        if result.plan.removed_branches:
            beside = silenced(whole, [branch.name for branch in result.plan.removed_branches])
            of_branches = relative_error(outputs(program.double().eval()), outputs(beside.double().eval()))
            error, masked = max(error, of_branches), max(masked, of_branches)
    return OracleReport(not inexact, error, masked, inexact)


def _is_finite(outputs: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in input_tensors(outputs))


def _check_scale(expected: Any, dense_outputs: Callable[[], Any]) -> None:
    """Refuse outputs that became zero, or not finite, by the pruning: any network would seem to equal them.

    The dense network runs only where outputs are that small, or not finite.
    """
    tensors = [tensor for tensor in input_tensors(expected) if tensor.is_floating_point()]
    if all(_scale(tensor) > _NEGLIGIBLE and tensor.isfinite().all() for tensor in tensors):
        return
    dense = [tensor for tensor in input_tensors(dense_outputs()) if tensor.is_floating_point()]
    for tensor, whole in zip(tensors, dense, strict=True):
        if (~tensor.isfinite() & whole.isfinite()).any():
            raise _says_nothing("the zeroed network gives values that are not finite where the dense one's are")
        if _scale(tensor) < _NEGLIGIBLE * _scale(whole):
            raise _says_nothing(
                f"the zeroed network's largest magnitude is {_scale(tensor):g}, the dense one's {_scale(whole):g}"
            )


def _says_nothing(reason: str) -> NothingComparedError:
    return NothingComparedError(
        f"The outputs can't be compared: {reason}.",
        hint="Outputs that are zero or not finite hide every error. Check the weights and the example input.",
    )


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


@torch.no_grad()
def _put_products(reference: Program, compiled: Program, plan: PruningPlan) -> None:
    """Put what two layers stand for in the place of each weight that a plan decomposes, in place; both in float64.

    Raises:
        NumericMismatchError: It isn't the best approximation of its rank.
    """
    tensors, factors = reference.tensors(), compiled.tensors()
    for name, rank in plan.ranks.items():
        weight, kept = tensors[name], plan.kept.get(name, {})
        rows, columns = (torch.tensor(kept.get(dim, range(weight.shape[dim]))) for dim in (0, 1))
        left = weight[rows[:, None], columns]
        both = product(*(factors[each] for each in factor_names(name)))
        error, least = float((left - both).square().sum()), least_error(name, left, rank)
        if error > least + _ROUNDING * float(left.square().sum()):
            raise NumericMismatchError(
                f"{name} of rank {rank} has a squared error of {error:.6e}, and the best of this rank one of "
                f"{least:.6e}: the decomposition is wrong.",
                hint="This is a bug of prunec; please report it together with the architecture.",
            )
        weight.zero_()
        weight[rows[:, None], columns] = both


def relative_error(actual: Any, expected: Any) -> float:
    """The largest of the `relative_errors`."""
    return max(relative_errors(actual, expected))


def relative_errors(actual: Any, expected: Any) -> list[float]:
    """The max|a-b| / max|b| of every output tensor, each over its finite values; those that a mask filled in are
    compared apart.

    What has no scale is compared as such, with an error of 0, or 1 where it differs at all: whole numbers, flags,
    outputs that are zero, and values that are not finite.

    Raises:
        NumericMismatchError: The outputs differ in number or shape; values are not finite where finite ones are
            expected; or every output is zero or not finite, so that the comparison says nothing.
    """
    left, right = input_tensors(actual), input_tensors(expected)
    if len(left) != len(right):
        raise NumericMismatchError(f"There are {len(left)} output tensors, expected {len(right)}.")
    errors = [_relative_error(position, a, b) for position, (a, b) in enumerate(zip(left, right, strict=True))]
    if not any(_scale(tensor) for tensor in right):
        raise _says_nothing("every one is empty, zero or not finite")
    return errors


def _scale(tensor: Tensor) -> float:
    """The largest finite magnitude, 0 where there is none; 1 for whole numbers and flags, which have no scale."""
    if not tensor.is_floating_point():
        return float(tensor.numel() > 0)
    finite = tensor.detach()[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _filled(actual: Tensor, expected: Tensor) -> Tensor:
    """Where a mask put values such as -1e9 into an output: at that scale all others would seem equal.

    In float16 they are its largest number, which masks as well.
    """
    fill = (expected.abs() >= _FILL) & torch.isclose(actual, expected, rtol=_FILL_ROUNDING, atol=0)
    is_apart = fill.any() and expected[fill].abs().min() > _FILL_GAP * _scale(expected[~fill])
    return fill if is_apart else torch.zeros_like(fill)


def _relative_error(position: int, actual: Tensor, expected: Tensor) -> float:
    shape, expected_shape = tuple(actual.shape), tuple(expected.shape)
    if shape != expected_shape:
        raise NumericMismatchError(f"Output {position} has shape {shape}, expected {expected_shape}.")
    if not expected.is_floating_point():
        return float(not torch.equal(actual, expected))
    actual, expected = actual.detach().double(), expected.detach().double()
    finite = expected.isfinite()
    if not actual[finite].isfinite().all():
        raise NumericMismatchError(f"Output {position} has values that are not finite, where finite ones are expected.")
    if not torch.allclose(actual[~finite], expected[~finite], equal_nan=True):
        return 1.0
    actual, expected = actual[finite], expected[finite]
    saturated = (expected.abs() >= _FILL) & (actual == expected.sign() * _FLOAT16_MAX)
    as_meant = torch.where(saturated, expected, actual)
    fill = _filled(as_meant, expected)
    actual = torch.where(fill, as_meant, actual)
    return max(_of_scale(actual[part], expected[part]) for part in (fill, ~fill))


def _of_scale(actual: Tensor, expected: Tensor) -> float:
    difference, scale = (actual - expected).abs(), _scale(expected)
    return float(difference.max()) / scale if scale else float(difference.any())
