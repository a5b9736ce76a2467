"""Whether a criterion tells what an allocation asks of it."""

from prunec.passes.allocation.goals import Allocation
from prunec.passes.criteria.cc import CC
from prunec.passes.criteria.protocol import Criterion, ScoresUnits, SizesUnits
from prunec.passes.errors import UsageError


def check_compares(allocation: Allocation, criterion: Criterion, *, depth: bool = False) -> None:
    """Refuse what compares groups, an allocation or ``depth``, with a criterion that only selects within them.

    Refused are, too, the allocation that asks a criterion for numbers of units, with one that has no rule for them, and
    the one that chooses ranks as well, with any but its own.

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
    if allocation == "provable" and not isinstance(criterion, SizesUnits):
        raise UsageError(
            "allocation=provable gives every group the units that its criterion says it needs for one error, and the "
            f"criterion {criterion.name} has no rule for how many that are.",
            hint="Use criterion=provable, or another allocation, such as uniform.",
        )
    if allocation == "joint" and criterion.name != CC.name:
        raise UsageError(
            "allocation=joint weighs units against ranks by what weights lose of their squared norms, and the "
            f"criterion {criterion.name} scores something else.",
            hint=f"Use criterion={CC.name}, or another allocation, such as global.",
        )
