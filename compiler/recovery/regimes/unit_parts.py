"""The weights that units of coupled groups have in a network's parameters, as trainings see and change them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunec.passes.criteria.units import as_filters, l1_norms, l2_norms
from prunec.passes.graphs import batch_norm_tensors
from prunec.passes.groups import Group, Member
from prunec.passes.program import Program


@dataclass(frozen=True, eq=False)
class UnitSlices:
    """The slices of one parameter that go with the units of a group.

    Attributes:
        parameter: The parameter.
        member: Its dimension in the group.
        rows: Indices of each unit's slices, int64 (units, slices per unit).
    """

    parameter: nn.Parameter
    member: Member
    rows: Tensor

    @property
    def weights(self) -> int:
        """Number of weights that each unit has here."""
        return self.rows.shape[1] * self.parameter.numel() // self.parameter.shape[self.member.dim]

    def spread(self, values: Tensor) -> Tensor:
        """Values of units (units,) at their slices and 0 elsewhere, in a shape that broadcasts to the parameter's."""
        values = values.to(self.parameter.device)
        along = values.new_zeros(self.parameter.shape[self.member.dim])
        along[self.rows] = values[:, None]
        shape = [1] * self.parameter.ndim
        shape[self.member.dim] = -1
        return along.view(shape)

    def squares(self) -> Tensor:
        """Sum of each unit's squared weights, float64 (units,)."""
        return l2_norms(as_filters(self.parameter, self.member)).square()[self.rows].sum(1)

    def magnitudes(self) -> Tensor:
        """Sum of each unit's absolute weights, float64 (units,)."""
        return l1_norms(as_filters(self.parameter, self.member))[self.rows].sum(1)


@dataclass(frozen=True, eq=False)
class UnitParts:
    """All trained weights that have to do with the units of a group.

    Attributes:
        group: The group.
        filters: Weights of the filters that go with a unit.
        others: Other weights of a unit: biases, and scales and shifts of the norms behind the filters.
        scales: Scales of batch norms among the others.
        readers: Weights of other layers that read what a unit gives.
    """

    group: Group
    filters: tuple[UnitSlices, ...]
    others: tuple[UnitSlices, ...]
    scales: tuple[UnitSlices, ...]
    readers: tuple[UnitSlices, ...]

    @property
    def own(self) -> tuple[UnitSlices, ...]:
        """All weights of a unit: without them nothing is left of it."""
        return (*self.filters, *self.others)

    @classmethod
    def of(cls, program: Program, group: Group) -> "UnitParts":
        """The parts of a group in a program; a tensor of several names counts once."""
        parameters = program.parameters()
        weights = {id(parameters[name]) for name in _weights(program) & parameters.keys()}
        scales = {id(parameters[name]) for name in batch_norm_tensors(program.graph, "weight") & parameters.keys()}
        by_place: dict[tuple[int, int], UnitSlices] = {}
        for member, rows in zip(group.members, group.slices, strict=True):
            parameter = parameters.get(member.parameter)
            if parameter is not None:
                place = torch.tensor(rows, device=parameter.device)
                by_place.setdefault((id(parameter), member.dim), UnitSlices(parameter, member, place))
        filters = [s for s in by_place.values() if (s.member.parameter, s.member.dim) in group.filters]
        rest = [s for s in by_place.values() if s not in filters]
        others = tuple(s for s in rest if id(s.parameter) not in weights)
        return cls(
            group,
            filters=tuple(filters),
            others=others,
            scales=tuple(s for s in others if id(s.parameter) in scales),
            readers=tuple(s for s in rest if id(s.parameter) in weights),
        )


def _weights(program: Program) -> set[str]:
    """Names of the weights of layers."""
    return {layer.weight for layer in program.layers()}
