"""The part of report.json on masks: what each masking asked for and reached, and what becomes faster by it."""

from typing import TYPE_CHECKING, Self

from prunec.compiler.report.report_part import Count, Fraction, Part
from prunec.passes.criteria.catalogue import criterion_text
from prunec.passes.patterns.pattern import Speed
from prunec.passes.patterns.rule import MaskAllocation
from prunec.runtime.target import Target

if TYPE_CHECKING:  # imports torch, which reading reports does without
    from prunec.compiler.facts.pass_facts import Sparsified


class MaskingPart(Part):
    """The masks after one step that masks weights.

    `weights` counts those of the layers that can carry the pattern, `masked` those of them that are zero by a mask, by
    this step or before. `asked_share` and `masked_share` are shares of `weights`; whole units of the pattern go until
    the share is reached. `allocation` is "layer" where each layer loses the share, "global" where the units of all
    layers are ranked together. `speed` says what becomes faster: "sparse tensor cores", where the engine's builder
    chooses their kernels, or "theoretical", a count of multiplications that no kernel leaves out; `why` says why.
    """

    pattern: str
    criterion: str
    allocation: MaskAllocation
    asked_share: Fraction
    masked_share: Fraction
    weights: Count
    masked: Count
    speed: Speed
    why: str

    @classmethod
    def of_fact(cls, fact: "Sparsified", target: Target) -> Self:
        """What a report tells of a step that masked."""
        rule, weights = fact.options.rule, max(fact.weights, 1)
        speed, why = rule.pattern.gain(target.sparse)
        return cls(
            pattern=rule.pattern.text,
            criterion=criterion_text(fact.options.criterion),
            allocation=rule.allocation,
            asked_share=fact.wanted / weights,
            masked_share=fact.masked / weights,
            weights=fact.weights,
            masked=fact.masked,
            speed=speed,
            why=why,
        )
