"""The input channels that the units of a group are to the layers that read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from prunec.passes.cost import calls_by_weight
from prunec.passes.errors import UsageError
from prunec.passes.groups import Group
from prunec.passes.program import Program


@dataclass(frozen=True, eq=False)
class UnitReader:
    """A weight that reads units.

    Attributes:
        weight: Name of the weight.
        dim: Its dimension along which the slices are.
        slices: Slices of each unit, int64 (count, slices per unit).
        outputs: Names of the nodes of the graph that it gives outputs in.
    """

    weight: str
    dim: int
    slices: Tensor
    outputs: tuple[str, ...]

    def masked(self, weight: Tensor, chosen: Tensor) -> Tensor:
        """The weight with the slices of units that aren't chosen, bool (count,), at zero."""
        keeps = torch.ones(weight.shape[self.dim], dtype=weight.dtype, device=weight.device)
        keeps[self.slices.flatten()] = chosen.to(weight.dtype).repeat_interleave(self.slices.shape[1])
        return weight * keeps.reshape([-1 if axis == self.dim else 1 for axis in range(weight.ndim)])

    def squares(self, gradient: Tensor) -> Tensor:
        """The sum of squares of each unit's slices, (count,)."""
        by_slice = gradient.movedim(self.dim, 0).flatten(1).square().sum(1)
        return by_slice[self.slices].sum(1)


def readers_of(program: Program, groups: Sequence[Group], hook: str) -> list[tuple[UnitReader, ...]]:
    """The weights that read each group.

    Raises:
        UsageError: No layer reads the units of a group; ``hook`` is named in the message.
    """
    calls = calls_by_weight(program.graph)
    readers = [_readers(program, group, calls) for group in groups]
    unread = [group.name for group, each in zip(groups, readers, strict=True) if not each]
    if unread:
        raise UsageError(
            f"recover: the training hook {hook} chooses input channels of layers, and no layer reads the units of "
            f"{', '.join(unread[:4])}.",
            hint="Leave them out of the pruning behind it: attention=none, or ignore=[...].",
        )
    return readers


def _readers(program: Program, group: Group, calls: Mapping[str, list[Node]]) -> tuple[UnitReader, ...]:
    parameters = program.parameters()
    readers = []
    for position, member in enumerate(group.members):
        if position not in group.producers and member.parameter in parameters and member.parameter in calls:
            slices = torch.from_numpy(group.slices[position]).to(parameters[member.parameter].device)
            outputs = tuple(call.name for call in calls[member.parameter])
            if parameters[member.parameter].ndim > 1:
                readers.append(UnitReader(member.parameter, member.dim, slices, outputs))
    return tuple(readers)
