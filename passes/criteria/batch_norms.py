"""The batch norms that scale the units of a group."""

from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.units import different
from prunec.passes.errors import UsageError
from prunec.passes.groups import Group


def scales_of(group: Group, evidence: Evidence, criterion: str) -> list[int]:
    """Positions of the members of a group that are scales of batch norms; a tensor with two names counts once.

    Raises:
        UsageError: There is none, so that the criterion of this name can't score the group.
    """
    positions = [p for p, member in enumerate(group.members) if member.parameter in evidence.batch_norm_scales]
    if not positions:
        raise UsageError(
            f"The criterion {criterion} looks at batch norms, and the filters of {', '.join(group.layers)} have none.",
            hint="Name these layers under ignore, or take a criterion that looks at the layers themselves, as l1 or "
            "taylor.",
        )
    return different(group, positions, evidence.tensors)
