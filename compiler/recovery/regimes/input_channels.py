"""The input channels that the units of a group are to the layers that read them."""

from collections.abc import Sequence

from prunec.compiler.recovery.regimes.unit_parts import UnitParts, UnitSlices
from prunec.passes.cost import calls_by_weight
from prunec.passes.errors import UsageError
from prunec.passes.groups import Group
from prunec.passes.program import Program


def readers_of(program: Program, groups: Sequence[Group], hook: str) -> list[tuple[UnitSlices, ...]]:
    """The weights of convolutions and linear layers that read each group.

    Raises:
        UsageError: No layer reads the units of a group; ``hook`` is named in the message.
    """
    calls = calls_by_weight(program.graph)
    readers = [tuple(each for each in UnitParts.of(program, group).readers if each.name in calls) for group in groups]
    unread = [group.name for group, each in zip(groups, readers, strict=True) if not each]
    if unread:
        raise UsageError(
            f"recover: the training hook {hook} chooses input channels of layers, and no layer reads the units of "
            f"{', '.join(unread[:4])}.",
            hint="Leave them out of the pruning behind it: attention=none, or ignore=[...].",
        )
    return readers
