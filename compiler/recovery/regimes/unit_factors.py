"""Factors on the units of groups in a graph: they stand on all that makes the units or passes them on.

Scaling the scale and shift of a batch norm behind a layer, else the layer's filters and biases, is scaling the units
there, so that a factor is merged into the network's own tensors exactly. A factor between 0 and 1 counts at each layer
that makes a unit or passes it on by itself, as depthwise convolutions do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunec.calibration.places import whole_gates
from prunec.passes.groups import Group
from prunec.passes.program import Program


@dataclass(frozen=True, eq=False)
class _Place:
    """A parameter that the factors of a group stand on.

    Attributes:
        group: Name of the group.
        parameter: Name of the parameter.
        dim: The dimension along which its slices belong to units.
        units: The unit of each slice, int64 (size,); the number of units where it belongs to none.
    """

    group: str
    parameter: str
    dim: int
    units: Tensor


def scaled_slices(parameter: Tensor, factors: Tensor, units: Tensor, dim: int) -> Tensor:
    """A parameter whose slices are scaled by the factors (count,) of their units; a slice of none stays."""
    by_slice = torch.cat([factors, factors.new_ones(1)])[units]
    shape = [-1 if axis == dim else 1 for axis in range(parameter.ndim)]
    return parameter * by_slice.to(parameter.dtype).reshape(shape)


@dataclass(frozen=True, eq=False)
class UnitFactors:
    """A factor on each unit of some groups.

    Attributes:
        places: The parameters that they stand on.
        values: The factors by the name of the group, (count,), all 1 at first.
    """

    places: tuple[_Place, ...]
    values: Mapping[str, nn.Parameter]

    @classmethod
    def on(cls, program: Program, groups: Iterable[Group]) -> "UnitFactors":
        """Factors on the units of groups of a program, on its device."""
        parameters = program.parameters()
        places: list[_Place] = []
        values: dict[str, nn.Parameter] = {}
        for gate in whole_gates(program, groups):
            group = gate.group
            for position in gate.members:
                member = group.members[position]
                parameter = parameters[member.parameter]
                units = torch.full((parameter.shape[member.dim],), group.count)
                slices = torch.from_numpy(group.slices[position])
                units[slices.flatten()] = torch.arange(group.count).repeat_interleave(slices.shape[1])
                places.append(_Place(group.name, member.parameter, member.dim, units.to(parameter.device)))
                values.setdefault(group.name, nn.Parameter(torch.ones(group.count, device=parameter.device)))
        return cls(tuple(places), values)

    def insert(self, form: Program) -> Mapping[str, str]:
        """Let the graph of a form of the program, in place, read its parameters scaled.

        Returns:
            The names of the factors in the form, by the name of the group.
        """
        tensors = form.tensors()
        names: dict[str, str] = {}
        for number, (group, values) in enumerate(self.values.items()):
            names[group] = f"unit_factors_{number}"
            form.module.register_parameter(names[group], values)
        for number, place in enumerate(self.places):
            form.module.register_buffer(units := f"units_of_slices_{number}", place.units)
            read = form.graph.find_nodes(op="get_attr")
            for node in [each for each in read if tensors.get(str(each.target)) is tensors[place.parameter]]:
                users = list(node.users)
                with form.graph.inserting_before(node.next):
                    operands = (node, form.graph.get_attr(names[place.group]), form.graph.get_attr(units), place.dim)
                    scaled = form.graph.call_function(scaled_slices, operands)
                scaled.meta = dict(node.meta)
                for user in users:
                    user.replace_input_with(node, scaled)
        form.module.recompile()
        return names

    @torch.no_grad()
    def merged(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """New values of the tensors that the factors stand on, by name."""
        merged: dict[str, Tensor] = {}
        for place in self.places:
            value = merged.get(place.parameter, tensors[place.parameter])
            merged[place.parameter] = scaled_slices(value, self.values[place.group], place.units, place.dim)
        return merged
