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
        member: Its name, and its dimension in the group.
        rows: Indices of each unit's slices, int64 (units, slices per unit).
    """

    parameter: nn.Parameter
    member: Member
    rows: Tensor

    @property
    def name(self) -> str:
        """Name of the parameter."""
        return self.member.parameter

    @property
    def weights(self) -> int:
        """Number of weights that each unit has here."""
        return self.rows.shape[1] * self.parameter.numel() // self.parameter.shape[self.member.dim]

    def spread(self, values: Tensor) -> Tensor:
        """Values of units (units,) at their slices and 0 elsewhere, in a shape that broadcasts to the parameter's."""
        return _along(values.to(self.parameter.device), self.rows, self.parameter, self.member.dim, 0)

    def scaled(self, tensor: Tensor, factors: Tensor) -> Tensor:
        """A tensor of the parameter's shape whose slices are scaled by the factors (units,) of their units."""
        return scaled_slices(tensor, factors.to(tensor.device), self.rows, self.member.dim)

    def squares(self, tensor: Tensor | None = None) -> Tensor:
        """Sum of squares of each unit's weights, or of a tensor of the parameter's shape there; float64 (units,)."""
        values = self.parameter if tensor is None else tensor
        return l2_norms(as_filters(values, self.member)).square()[self.rows].sum(1)

    def magnitudes(self) -> Tensor:
        """Sum of each unit's absolute weights, float64 (units,)."""
        return l1_norms(as_filters(self.parameter, self.member))[self.rows].sum(1)


def scaled_slices(tensor: Tensor, factors: Tensor, rows: Tensor, dim: int) -> Tensor:
    """A tensor whose slices along a dimension are scaled by the factors (units,) of their units; the others stay.

    ``rows`` are those of `UnitSlices`.
    """
    return tensor * _along(factors, rows, tensor, dim, 1).to(tensor.dtype)


def _along(values: Tensor, rows: Tensor, like: Tensor, dim: int, elsewhere: int) -> Tensor:
    """Values of units along a dimension of a tensor, one at each slice, in a shape that broadcasts to the tensor's."""
    of_slices = values.new_full((like.shape[dim],), elsewhere).index_put((rows,), values[:, None])
    return of_slices.reshape([-1 if axis == dim else 1 for axis in range(like.ndim)])


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
        filters = [s for s in by_place.values() if (s.name, s.member.dim) in group.filters]
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
