"""Factors on the units of groups in a graph: they stand on all weights that read the units.

Scaling what a layer reads of a unit is scaling the unit as that layer sees it, behind norms, activations and
depthwise convolutions, whatever constant these add. So a factor counts once, nothing behind it undoes it, it is merged
into the network's own tensors exactly, and a unit whose factor is zero has been cut. Units that no weight reads, as the
queries and keys of attention, have it on all that makes them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunec.compiler.recovery.regimes.unit_parts import UnitParts, UnitSlices, scaled_slices
from prunec.passes.groups import Group
from prunec.passes.program import Program


@dataclass(frozen=True, eq=False)
class UnitFactors:
    """A factor on each unit of some groups.

    Attributes:
        places: The slices that they stand on, by the name of the group.
        values: The factors by the name of the group, (count,), all 1 at first.
    """

    places: Mapping[str, tuple[UnitSlices, ...]]
    values: Mapping[str, nn.Parameter]

    @classmethod
    def on(cls, program: Program, groups: Iterable[Group]) -> "UnitFactors":
        """Factors on the units of groups of a program, on its device."""
        parts = [UnitParts.of(program, group) for group in groups]
        places = {each.group.name: each.readers or each.own for each in parts}
        ones = {name: torch.ones(len(slices[0].rows), device=slices[0].rows.device) for name, slices in places.items()}
        return cls(places, {name: nn.Parameter(each) for name, each in ones.items()})

    def insert(self, form: Program) -> Mapping[str, str]:
        """Let the graph of a form of the program, in place, read its parameters scaled.

        Returns:
            The names of the factors in the form, by the name of the group.
        """
        tensors = form.tensors()
        names: dict[str, str] = {}
        for number, (group, slices) in enumerate(self.places.items()):
            names[group] = f"unit_factors_{number}"
            form.module.register_parameter(names[group], self.values[group])
            for position, place in enumerate(slices):
                form.module.register_buffer(rows := f"unit_slices_{number}_{position}", place.rows)
                read = form.graph.find_nodes(op="get_attr")
                for node in [each for each in read if tensors.get(str(each.target)) is tensors[place.name]]:
                    users = list(node.users)
                    with form.graph.inserting_before(node.next):
                        factors, own = form.graph.get_attr(names[group]), form.graph.get_attr(rows)
                        scaled = form.graph.call_function(scaled_slices, (node, factors, own, place.member.dim))
                    scaled.meta = dict(node.meta)
                    for user in users:
                        user.replace_input_with(node, scaled)
        form.module.recompile()
        return names

    @torch.no_grad()
    def merged(self, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """New values by name of the tensors that factors stand on, with factors of these values merged into them."""
        merged: dict[str, Tensor] = {}
        for group, slices in self.places.items():
            for place in slices:
                merged[place.name] = place.scaled(merged.get(place.name, tensors[place.name]), values[group])
        return merged
