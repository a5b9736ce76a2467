"""The part of report.json on low-rank decomposition, and its line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from prunec.compiler.report.report_part import Count, Fraction, Part, SortedDict

if TYPE_CHECKING:  # imports torch, which reading reports does without
    from prunec.compiler.facts.pass_facts import Decomposed, Pruned


class LowRankLayerPart(Part):
    """A layer in the place of which two stand, of which the product is of `rank`.

    `full_rank` is what it could have been, slices that went before not counted. `lost` is the share of its weight's
    squared norm that the product lacks.
    """

    layer: str
    rank: Count
    full_rank: Count
    lost: Fraction


class LowRankPart(Part):
    """The layers that were decomposed, in the order of execution, and those that can't be or are left out, with why.

    Where ranks were chosen together with widths, no reasons are told.
    """

    layers: tuple[LowRankLayerPart, ...]
    left: SortedDict[str]

    @classmethod
    def of_facts(cls, facts: "Sequence[Decomposed | Pruned]") -> Self | None:
        """What a report tells of the step that decomposed; None where none did."""
        from prunec.compiler.facts.pass_facts import Decomposed

        for fact in reversed(facts):
            if isinstance(fact, Decomposed):
                return cls.of(fact)
            if fact.low_rank:
                return cls.of(fact, layers=fact.low_rank, left={})
        return None
