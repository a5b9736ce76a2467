"""Whether a criterion scores the units that an allocation compares across groups."""

from prunec.passes.allocation.goals import Allocation
from prunec.passes.criteria.protocol import Criterion, ScoresUnits
from prunec.passes.errors import UsageError


def check_compares(allocation: Allocation, criterion: Criterion, *, depth: bool = False) -> None:
    """Refuse what compares groups, an allocation or ``depth``, with a criterion that only selects within them.

    Raises:
        UsageError: They don't go together.
    """
    if (depth or allocation in ("global", "greedy", "balanced")) and not isinstance(criterion, ScoresUnits):
        what, otherwise = ("depth=true", "no depth") if depth else (f"allocation={allocation}", "allocation=uniform")
        raise UsageError(
            f"{what} compares groups by the scores of their units, and the criterion {criterion.name} only selects "
            "within a group.",
            hint=f"Use {otherwise}, or a criterion that scores units.",
        )
