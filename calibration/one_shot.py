"""Sparsify to 2:4 by what the layers' inputs are: Wanda and SparseGPT."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prunec.calibration.reconstruction import LayerInputs, reconstruct
from prunec.passes.base import PassResult
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.one_shot import mean_shift, output_error, sparse_gpt, wanda_mask
from prunec.passes.program import Program
from prunec.passes.ratios import check_globs
from prunec.passes.two_four import Sparsify, eligibility, layer_stats, two_four_mask

#: Share of the inputs that no weight is chosen by.
_HELD_BACK = 0.25


def sparsify_by_inputs(program: Program, options: Sparsify, inputs: Tensor) -> PassResult:
    """Mask every eligible layer by the options' criterion; the program that comes in stays as it is.

    The statistics of a layer's inputs come from the layers before it as they are masked. A quarter of the inputs is
    held back: the stats tell the relative squared error of each layer's outputs on them, and what masking the same
    weight by magnitude would have left, without and with its outputs' mean made up for likewise.

    Args:
        program: with one input tensor.
        options: with a criterion other than "magnitude".
        inputs: of the network, (N, ...), preprocessed.

    Raises:
        UsageError: a glob matches no layer, or the network takes several inputs.
        NumericMismatchError: a layer's inputs are not finite.
    """
    check_globs(options.ignore, [layer.name for layer in program.layers()], "ignore")
    if len(program.example_inputs) != 1:
        raise UsageError(
            f"sparsify by {options.criterion} takes networks with one input, this one has "
            f"{len(program.example_inputs)}.",
            hint="criterion=magnitude needs no inputs.",
        )
    found = eligibility(program, options.ignore)
    weights = frozenset(entry.weight for entry in found if entry.eligible)
    copy = program.clone().eval()
    masks: dict[str, Tensor] = {}
    errors: dict[str, dict[str, float]] = {}

    def solve(name: str, weight: Tensor, seen: LayerInputs) -> tuple[Tensor, Tensor | None]:
        chosen_by = seen.calibration.centred if seen.shiftable else seen.calibration.raw
        if not chosen_by.isfinite().all():
            raise NumericMismatchError(f"The inputs of the layer with {name} are not finite on the calibration data.")
        if options.criterion == "wanda":
            masks[name] = wanda_mask(weight, chosen_by)
            new = weight * masks[name]
        else:
            new, masks[name] = sparse_gpt(weight, chosen_by)
        shift = mean_shift(weight, new, seen.calibration.mean) if seen.shiftable else None
        by_magnitude = weight * two_four_mask(weight)
        same_for_magnitude = mean_shift(weight, by_magnitude, seen.calibration.mean) if seen.shiftable else None
        errors[name] = {
            "output_error": output_error(weight, new, seen.held_back, shift),
            "output_error_by_magnitude": output_error(weight, by_magnitude, seen.held_back),
            "output_error_by_magnitude_with_bias": output_error(
                weight, by_magnitude, seen.held_back, same_for_magnitude
            ),
        }
        return new, shift

    held_back = max(1, int(_HELD_BACK * len(inputs)))
    if len(inputs) < 2:
        raise UsageError(f"sparsify by {options.criterion} needs at least 2 calibration inputs, got {len(inputs)}.")
    reconstruct(copy, inputs, held_back, weights, solve)
    before = program.tensors()
    result = replace(copy.train() if program.training else copy, masks={**program.masks, **masks})
    layers: list[dict[str, Any]] = [
        {**layer_stats(entry, before, masks), **errors.get(entry.weight, {})} for entry in found
    ]
    return PassResult(result, bool(masks), {"layers": layers})


def calibration_inputs(batches: Any, count: int) -> Tensor:
    """The first inputs of some batches, (count, ...) or as many as there are."""
    parts, total = [], 0
    for inputs, _ in batches:
        parts.append(inputs)
        total += len(inputs)
        if total >= count:
            break
    return torch.cat(parts)[:count]
