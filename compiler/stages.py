"""What each step of a pipeline does to a compile, and the checks that its result must pass."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.calibration.batchnorm import ReestimateBatchNorm, reestimate_batchnorm
from prunec.calibration.one_shot import calibration_inputs, sparsify_by_inputs
from prunec.compiler.compilation import Compilation, Permuted, Pruned
from prunec.compiler.recovery.options import Recover
from prunec.compiler.recovery_stage import finetune
from prunec.passes.errors import NumericMismatchError, SparsityGateError, UnsupportedModelError, UsageError
from prunec.passes.fold import FoldParameters
from prunec.passes.oracle import TOLERANCE, check_oracle
from prunec.passes.permute import Permute
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.two_four import Sparsify, is_two_four


def run_step(compilation: Compilation, options: object) -> float | None:
    """Run one step of a pipeline.

    Returns:
        accuracy on the test data after it; None where it wasn't measured, since there are no data or the step leaves
        the network's function as it was.

    Raises:
        PrunecError: the step can't be done, or its result failed a check.
    """
    match options:
        case FoldParameters():
            fold(compilation, options)
            return None
        case Permute():
            permute(compilation, options)
            return None
        case PruneFilters():
            prune(compilation, options)
            return compilation.accuracy.get("pruned")
        case Sparsify():
            sparsify(compilation, options)
            return compilation.accuracy.get("sparse")
        case ReestimateBatchNorm():
            reestimate(compilation, options)
            return compilation.accuracy.get("reestimated")
        case Recover():
            finetune(compilation, options)
            _check_masks(compilation)
            compilation.measure_accuracy("recovered")
            return compilation.accuracy.get("recovered")
        case _:
            raise TypeError(f"no stage for {type(options).__name__}")


def fold(compilation: Compilation, options: FoldParameters) -> None:
    """Make computed weights plain ones; the network stays the same function."""
    compilation.progress.stage("fold parameters")
    compilation.program = options.run(compilation.program).program


def prune(compilation: Compilation, options: PruneFilters) -> None:
    """Prune filters; the result must equal the zeroed program on the example input."""
    compilation.progress.stage("prune filters")
    options = replace(options, seed=compilation.settings.seed)
    before = compilation.program
    result = options.run(before)
    assert result.plan is not None
    oracle = check_oracle(before, result, before.example_args, before.example_kwargs)
    if not oracle.passed:
        _check_repeatable(before)
        raise NumericMismatchError(
            f"The pruned network differs from the zeroed dense one by {oracle.masked_max_relative_error:.2e} "
            f"(relative), allowed {TOLERANCE:g}: the coupling analysis is wrong for this network.",
            hint="This is a bug of prunec; please report the architecture. --pipeline with ignore=[...] avoids layers.",
        )
    earlier = compilation.pruned
    rounds = 1 if earlier is None else earlier.rounds + 1
    dense_widths = {} if earlier is None else {name: width for name, width, _ in earlier.widths}
    widths = tuple((g["name"], dense_widths.get(g["name"], g["width"]), g["kept"]) for g in result.stats["groups"])
    compilation.pruned = Pruned(options, widths, oracle, rounds)
    compilation.plan = compilation.plan.then(result.plan)
    compilation.program = result.program
    compilation.measure_accuracy("pruned")


@torch.no_grad()
def _check_repeatable(program: Program) -> None:
    """Refuse a network that no check can be made on, since it draws random numbers."""
    first, second = (pytree.tree_leaves(program(*program.example_args, **program.example_kwargs)) for _ in range(2))
    if any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise UnsupportedModelError(
            "The network gives another output each time it runs on the same input, so that pruning can't be checked.",
            hint="Draw random numbers in training only: `if self.training:` in forward().",
        )


def permute(compilation: Compilation, options: Permute) -> None:
    """Reorder channels; the network stays the same function, which the pass checks."""
    compilation.progress.stage(f"permute channels, at most {options.seconds:g} s")
    result = replace(options, seed=compilation.settings.seed).run(compilation.program)
    assert result.plan is not None
    compilation.permuted = Permuted.of(result.stats)
    compilation.plan = compilation.plan.then(result.plan)
    compilation.program = result.program


def sparsify(compilation: Compilation, options: Sparsify) -> None:
    """Mask to 2:4."""
    compilation.progress.stage(f"sparsify to {options.pattern} by {options.criterion}")
    if options.criterion == "magnitude":
        result = options.run(compilation.program)
    else:
        what = f"The 2:4 criterion {options.criterion}"
        inputs = _calibration_inputs(compilation, options.samples, what, "use criterion=magnitude")
        result = sparsify_by_inputs(compilation.program, options, inputs)
    compilation.program = result.program
    _check_masks(compilation)
    compilation.retained_magnitude = {
        layer["layer"]: layer["retained_magnitude"] for layer in result.stats["layers"] if layer["eligible"]
    }
    compilation.measure_accuracy("sparse")


def reestimate(compilation: Compilation, options: ReestimateBatchNorm) -> None:
    """Measure the statistics of batch norms anew."""
    compilation.progress.stage("re-estimate batch norms")
    inputs = _calibration_inputs(compilation, options.samples, "re-estimate-batchnorm", "leave it out")
    compilation.program = reestimate_batchnorm(compilation.program, inputs).program
    compilation.measure_accuracy("reestimated")


def _calibration_inputs(compilation: Compilation, samples: int, what: str, instead: str) -> Tensor:
    """Training inputs, shuffled by the seed."""
    if compilation.data is None:
        raise UsageError(
            f"{what} looks at inputs, and there is no training data.",
            hint=f"Name it under [data] in prunec.toml, or {instead}.",
        )
    batches = compilation.data.train.batches(samples, epoch=0, seed=compilation.settings.seed)
    return calibration_inputs(batches, samples)


def _check_masks(compilation: Compilation) -> None:
    parameters = compilation.program.parameters()
    for name in compilation.program.masks:
        if not is_two_four(parameters[name]):
            raise SparsityGateError(
                f"{name} was masked to 2:4 and isn't any more.",
                hint="This is a bug of prunec; please report it.",
            )
