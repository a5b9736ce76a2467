"""Mask layers to a pattern by a criterion of single weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from prunec.passes.base import PassResult
from prunec.passes.criteria.catalogue import blame
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import CompensatesElements, ScoresElements
from prunec.passes.errors import UsageError
from prunec.passes.patterns.eligibility import Masked, eligibility, layer_stats, mask_aim
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.patterns.rule import MaskRule
from prunec.passes.patterns.unit_masks import masks_of
from prunec.passes.program import Program
from prunec.passes.ratios import check_globs
from prunec.passes.roles import expand_roles
from prunec.passes.tensors import with_values


@dataclass
class Masking:
    """The masking of a program under way: its layers, and what each of them got so far.

    Attributes:
        program: The program as it comes in.
        rule: How masks follow from scores.
        ignore: Globs of layers, or roles, that are left dense.
        criterion: The criterion.
        counts: Number of weights to mask, by weight, in place of what the rule says; None where it says.
        masks: New masks by weight.

    Raises:
        UsageError: A glob of ``ignore`` matches no layer, or a layer has a mask of another pattern.
    """

    program: Program
    rule: MaskRule
    ignore: Sequence[str]
    criterion: ScoresElements
    counts: Mapping[str, int] | None = None
    masks: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        program, pattern = self.program, self.rule.pattern
        names = [layer.name for layer in program.layers()]
        check_globs(expand_roles(program.graph, self.ignore), names, "ignore")
        by_inputs = "inputs" in self.criterion.needs
        self.layers = eligibility(program, self.ignore, pattern, by_inputs=by_inputs)
        self.before = {name: program.masks[name] for name in self.weights if name in program.masks}
        for name in self.before:
            if (other := program.pattern_of(name)) != pattern:
                raise UsageError(
                    f"sparsify: {name} is masked to {other.text} already, and {pattern.text} is asked for.",
                    hint="A weight has one pattern: name the layers that another step masks under ignore.",
                )

    @property
    def weights(self) -> list[str]:
        """Names of the weights that are masked."""
        return [layer.weight for layer in self.layers if layer.eligible]

    def of_scores(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The masks that the rule makes of scores by weight."""
        return masks_of(self.rule, scores, self.before, self.counts)

    def mask(self, weights: Mapping[str, Tensor], evidence: Mapping[str, Evidence]) -> dict[str, Tensor]:
        """Mask some weights together; the new ones by name.

        Args:
            weights: Dense weights (K, C, ...) by name.
            evidence: What each is masked by.

        Raises:
            UsageError: The criterion gives something else than scores of a weight's shape, or weights where
                it is masked.
        """
        seen = {name: replace(each, layer=name, pattern=self.rule.pattern) for name, each in evidence.items()}
        masks = self.of_scores({name: _scored(self.criterion, weights[name], seen[name]) for name in weights})
        self.masks |= masks
        return {name: _masked(self.criterion, weights[name], seen[name], masks[name]) for name in weights}

    def result(self, program: Program, further: Mapping[str, Mapping[str, Any]]) -> PassResult:
        """The result of a pass, from the program with the new weights, and further facts by weight."""
        program.masks = {**self.program.masks, **self.masks}
        if self.rule.pattern.text != TWO_FOUR:
            program.patterns = self.program.patterns | dict.fromkeys(self.masks, self.rule.pattern.text)
        before, counts = self.program.tensors(), Masked.of(self.rule, self.masks, self.before)
        stats = {
            "layers": [{**layer_stats(e, before, self.masks), **further.get(e.weight, {})} for e in self.layers],
            "weights": counts.weights,
            "masked": counts.masked,
            "masked_by_weight": {name: int((~mask).sum()) for name, mask in self.masks.items()},
            "wanted": float(counts.wanted),
            "emptied": [e.layer for e in self.layers if e.eligible and not self.masks[e.weight].any()],
        }
        aim = mask_aim(self.layers, self.rule, counts)
        return PassResult(program, bool(self.masks), stats, aim=aim)


def mask_layers(
    program: Program,
    rule: MaskRule,
    ignore: Sequence[str],
    criterion: ScoresElements,
    evidence: Evidence,
    counts: Mapping[str, int] | None = None,
) -> PassResult:
    """Do what `Sparsify.run` does, with the errors that it raises."""
    masking, tensors = Masking(program, rule, ignore, criterion, counts), program.tensors()
    weights = {name: tensors[name].detach() for name in masking.weights}
    new = masking.mask(weights, dict.fromkeys(weights, evidence))
    return masking.result(program.with_tensors(with_values(tensors, new)), {})


def _scored(criterion: ScoresElements, weight: Tensor, evidence: Evidence) -> Tensor:
    with blame(criterion):
        scores = criterion.score_elements(weight, evidence)
    if isinstance(scores, Tensor) and bool(scores.isnan().any()):
        raise _misbehaved(criterion, "scores, NaN,", evidence, "numbers")
    if not isinstance(scores, Tensor) or scores.shape != weight.shape:
        raise _misbehaved(criterion, "scores", evidence, f"a number for each element, shape {list(weight.shape)}")
    return scores.detach()


def _masked(criterion: ScoresElements, weight: Tensor, evidence: Evidence, mask: Tensor) -> Tensor:
    if not isinstance(criterion, CompensatesElements):
        return weight * mask
    with blame(criterion):
        new = criterion.compensate_elements(weight, evidence, mask)
    if not isinstance(new, Tensor) or new.shape != weight.shape or bool(new[~mask].any() or new.isnan().any()):
        raise _misbehaved(criterion, "new weights", evidence, f"numbers, shape {list(weight.shape)}, zero where masked")
    return new.detach().to(weight.dtype)


def _misbehaved(criterion: ScoresElements, what: str, evidence: Evidence, expected: str) -> UsageError:
    return UsageError(f"The criterion {criterion.name} gives other {what} for {evidence.layer} than {expected}.")
