"""Mask layers by their inputs, as the layers masked before yield them."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from prunec.calibration.reconstruction import LayerInputs, reconstruct
from prunec.passes.base import PassResult
from prunec.passes.criteria.catalogue import element_criterion, statistics_of
from prunec.passes.criteria.evidence import Evidence, evidence_for
from prunec.passes.dimensions import batch_size
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.feeding import BatchInputs, joined, part_of, sample_count
from prunec.passes.interruption import stoppable
from prunec.passes.masking import Masking
from prunec.passes.one_shot import mean_shift, output_error
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify

#: Share of the inputs that no weight is chosen by.
_HELD_BACK = 0.25


def sparsify_by_inputs(
    program: Program, options: Sparsify, inputs: BatchInputs, evidence: Evidence | None = None
) -> PassResult:
    """Mask every eligible layer by the options' criterion; the program that comes in stays as it is.

    The statistics of a layer's inputs come from the layers before it as they are masked, with the batch norms behind
    them measured anew. A quarter of the inputs is held back: the stats tell the relative squared error of each layer's
    outputs on them, and what masking the same weight by magnitude would have left, without and with its outputs' mean
    made up for.

    Args:
        program: Any program.
        options: Options with any criterion of single weights.
        inputs: Inputs of the network, preprocessed.
        evidence: Evidence that the criterion needs besides statistics of inputs, from `collect_evidence`.

    Raises:
        UsageError: A glob matches no layer, evidence is needed and not given, or a layer has a mask of another pattern.
        NumericMismatchError: A layer's inputs are not finite.
    """
    criterion = element_criterion(options.criterion, options.name)
    samples, batch = sample_count(inputs), 1 if program.batch_is_dynamic else batch_size(program.example_inputs)
    if samples < 2 * batch:
        raise UsageError(f"sparsify by {criterion.name} needs at least {2 * batch} calibration inputs, got {samples}.")
    masking, copy = Masking(program, options.rule, options.ignore, criterion), program.clone().eval()
    known = evidence_for(criterion, copy, evidence, options.seed or 0, measured_later=frozenset({"inputs"}))
    errors: dict[str, dict[str, float]] = {}

    def solve(name: str, weight: Tensor, seen: LayerInputs) -> tuple[Tensor, Tensor | None]:
        if not (seen.moments.centred.isfinite().all() and seen.moments.mean.isfinite().all()):
            raise NumericMismatchError(f"The inputs of the layer with {name} are not finite on the calibration data.")
        measured = {**known.measured, **{(statistic, name): result for statistic, result in seen.measured.items()}}
        here = replace(known, measured=measured, mean_restored=seen.shiftable)
        new = masking.mask({name: weight}, {name: here})[name]
        by_magnitude = weight * masking.of_scores({name: weight.abs()})[name]
        errors[name], shift = _output_errors(weight, new, by_magnitude, seen)
        return new, shift

    statistics = tuple(s for s in statistics_of([criterion]) if s.looks_at == "inputs")
    held_back = max(batch, int(_HELD_BACK * samples) // batch * batch)
    reconstruct(copy, inputs, held_back, frozenset(masking.weights), statistics, solve)
    return masking.result(copy.train() if program.training else copy, errors)


def _output_errors(
    weight: Tensor, new: Tensor, by_magnitude: Tensor, seen: LayerInputs
) -> tuple[dict[str, float], Tensor | None]:
    """Errors on the inputs held back, and what is to be added to the new weight's outputs."""
    shift, shift_by_magnitude = (
        mean_shift(weight, changed, seen.moments.mean) if seen.shiftable else None for changed in (new, by_magnitude)
    )
    errors = {
        "output_error": output_error(weight, new, seen.held_back, shift),
        "output_error_by_magnitude": output_error(weight, by_magnitude, seen.held_back),
        "output_error_by_magnitude_with_bias": output_error(weight, by_magnitude, seen.held_back, shift_by_magnitude),
    }
    return errors, shift


def calibration_inputs(batches: Any, count: int) -> BatchInputs:
    """The inputs of the first samples of some batches, so many or as many as there are."""
    parts: list[BatchInputs] = []
    for inputs, _ in stoppable(batches):
        parts.append(inputs)
        if sum(map(sample_count, parts)) >= count:
            break
    return part_of(joined(parts), slice(count))  # type: ignore[no-any-return]
