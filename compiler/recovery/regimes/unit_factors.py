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
from prunec.passes.quantization.channel_scaling import ChannelGroup, channel_groups


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

    @torch.no_grad()
    def merged_into_makers(self, program: Program, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same with factors above zero merged into what makes the units, where the scale of these is free.

        Filters of a layer before a norm that shrink with what they read learn faster from then on; the scales of norms
        don't. Factors of zero stay on the readers, behind which nothing can undo them, as do those of units on whose
        way to the readers there is more than Relu, pooling, sums and the like.
        """
        free = {reader.weight: group for group in channel_groups(program) for reader in group.readers}
        tensors, made, left = program.tensors(), dict[str, Tensor](), dict(values)
        for name, slices in self.places.items():
            groups = {free.get(place.name) for place in slices}
            if not _are_alone(groups, slices) or bool((values[name] < 0).any()):
                continue
            left[name] = values[name].sign()
            living = values[name].where(values[name] > 0, 1.0)
            rows = {place.name: place.rows for place in slices}
            for group in filter(None, groups):
                for tensor in [each for writer in group.writers for each in (writer.weight, writer.bias) if each]:
                    earlier = made.get(tensor, tensors[tensor])  # by other groups, in a concatenation
                    made[tensor] = scaled_slices(earlier, living, rows[group.readers[0].weight], 0)
        return made | self.merged({**tensors, **made}, left)


def _are_alone(groups: Iterable[ChannelGroup | None], slices: Iterable[UnitSlices]) -> bool:
    """Whether channels of a free scale are read by these slices alone, each of its input channels by itself."""
    if any(group is None or group.clips or any(each.groups > 1 for each in group.readers) for group in groups):
        return False
    reading = {(reader.weight, 1) for group in groups if group is not None for reader in group.readers}
    return reading == {(place.name, place.member.dim) for place in slices}
