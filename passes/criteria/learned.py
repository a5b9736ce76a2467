"""The criterion of what a training decided."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group

#: The name under which a training hook decides on scores of units, float64 (group.count,) by the name of the group.
UNITS = "units"


@dataclass(frozen=True)
class Learned:
    """The scores that a training hook decided on in a training before the pruning, such as GReg's or ResRep's.

    They are compared between groups as they are.
    """

    name: ClassVar[str] = "learned"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "decisions"})
    comparable: ClassVar[bool] = True

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """The scores of the group that the hook gave.

        Raises:
            UsageError: No hook decided on this group, or it was of another size.
        """
        from torch import Tensor

        units = evidence.decisions.get(UNITS)
        scores = units.get(group.name) if isinstance(units, dict) else None
        if not isinstance(scores, Tensor) or scores.shape != (group.count,):
            raise UsageError(
                f"No training hook decided on the {group.count} units of the group {group.name}.",
                hint="The criterion learned stands behind a recover step with a hook that chooses filters, for the "
                "same options of prune-filters.",
            )
        return scores.double().cpu().numpy()
