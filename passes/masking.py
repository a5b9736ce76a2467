"""Mask layers to 2:4 by a criterion of single weights."""

from dataclasses import replace

from torch import Tensor

from prunec.passes.base import PassResult
from prunec.passes.criteria.catalogue import blame
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import CompensatesElements, ScoresElements
from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from prunec.passes.ratios import check_globs
from prunec.passes.tensors import with_values
from prunec.passes.two_four import eligibility, layer_stats, two_four_aim, two_four_mask


def mask_layers(program: Program, ignore: tuple[str, ...], criterion: ScoresElements, evidence: Evidence) -> PassResult:
    """Do what `Sparsify.run` does, with the errors that it raises."""
    check_globs(ignore, [layer.name for layer in program.layers()], "ignore")
    layers = eligibility(program, ignore)
    tensors = program.tensors()
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name in (layer.weight for layer in layers if layer.eligible):
        weights[name], masks[name] = masked(criterion, tensors[name].detach(), replace(evidence, layer=name))
    result = program.with_tensors(with_values(tensors, weights))
    result.masks |= masks
    stats = {"layers": [layer_stats(layer, tensors, masks) for layer in layers]}
    return PassResult(result, bool(masks), stats, aim=two_four_aim(layers))


def masked(criterion: ScoresElements, weight: Tensor, evidence: Evidence) -> tuple[Tensor, Tensor]:
    """New weight and mask of the layer that the evidence names, from its dense weight (K, C, ...), C a multiple of 4.

    Raises:
        UsageError: The criterion gives something else than scores of the weight's shape, or weights where it is masked.
    """
    with blame(criterion):
        scores = criterion.score_elements(weight, evidence)
    if isinstance(scores, Tensor) and bool(scores.isnan().any()):
        raise _misbehaved(criterion, "scores, NaN,", evidence, "numbers")
    if not isinstance(scores, Tensor) or scores.shape != weight.shape:
        raise _misbehaved(criterion, "scores", evidence, f"a number for each element, shape {list(weight.shape)}")
    mask = two_four_mask(scores.detach())
    if not isinstance(criterion, CompensatesElements):
        return weight * mask, mask
    with blame(criterion):
        new = criterion.compensate_elements(weight, evidence, mask)
    if not isinstance(new, Tensor) or new.shape != weight.shape or bool(new[~mask].any() or new.isnan().any()):
        raise _misbehaved(criterion, "new weights", evidence, f"numbers, shape {list(weight.shape)}, zero where masked")
    return new.detach().to(weight.dtype), mask


def _misbehaved(criterion: ScoresElements, what: str, evidence: Evidence, expected: str) -> UsageError:
    return UsageError(f"The criterion {criterion.name} gives other {what} for {evidence.layer} than {expected}.")
