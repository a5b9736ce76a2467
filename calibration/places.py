"""Places in a graph that statistics look at: layers' inputs, their outputs behind the activation, gates of units."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from prunec.passes.cost import calls_by_weight, is_grouped, weighted_calls
from prunec.passes.criteria.units import as_filters, different
from prunec.passes.graphs import arguments, batch_norm_tensors, operator_name, tensor_names
from prunec.passes.groups import Group, Member
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.rules.lookup import find_rule
from prunec.passes.rules.pointwise import broadcast


def input_channels(program: Program) -> dict[Node, tuple[str, int]]:
    """The calls that multiply their input with a weight.

    Returns:
        Node -> name of the layer's weight, and the axis of its input, from the end, that the channels are along.
    """
    tensors = program.tensors()
    return {
        call: (weight, -1 - WEIGHTED[operator_name(call.target)].spatial_dims)
        for call, weight in weighted_calls(program.graph)
        if weight in tensors
    }


def outputs(program: Program, *, joined: bool = False) -> dict[Node, list[tuple[str, int]]]:
    """The nodes whose outputs stand for those of every layer: the batch norm and the pointwise operator that follow.

    With ``joined`` these are those behind the sum with other outputs that a layer's alone go into, where there is one.

    Returns:
        Node -> names of the layers' weights, each with the axis that its filters are along.
    """
    tensors = program.tensors()
    weights: dict[Node, list[tuple[str, int]]] = {}
    for call, weight in weighted_calls(program.graph):
        if weight in tensors:
            axis = 1 if WEIGHTED[operator_name(call.target)].spatial_dims else -1
            weights.setdefault(_behind(call, joined), []).append((weight, axis))
    return weights


def _behind(call: Node, joined: bool) -> Node:
    """The call itself, the batch norm that alone uses it, and the pointwise operator that alone uses that.

    With ``joined`` the sum that alone uses the layer or its batch norm stands between.
    """
    node = call
    for follows in (_is_batch_norm, _is_sum, _is_pointwise) if joined else (_is_batch_norm, _is_pointwise):
        user = next(iter(node.users), None)
        if user is not None and len(node.users) == 1 and follows(user, node):
            node = user
    return node


def _is_sum(node: Node, source: Node) -> bool:
    """Whether a node adds another activation of the same shape to its source."""
    if node.op != "call_function" or operator_name(node.target).rstrip("_") != "add":
        return False
    others = [other for other in node.all_input_nodes if other is not source and other.op != "get_attr"]
    return len(others) == 1 and others[0].meta["shapes"] == source.meta["shapes"]


def _is_batch_norm(node: Node, source: Node) -> bool:
    return (
        node.op == "call_function" and operator_name(node.target) == "batch_norm" and arguments(node)["input"] is source
    )


def _is_pointwise(node: Node, source: Node) -> bool:
    """Whether a node maps each value of its source by itself, with no other operand than parameters of a PReLU."""
    if node.op != "call_function":
        return False
    is_activation = find_rule(node) is broadcast and node.all_input_nodes == [source]
    return is_activation or (operator_name(node.target) == "prelu" and arguments(node)["self"] is source)


@dataclass(frozen=True, eq=False)
class GatePlace:
    """A factor 1 on each unit of a group.

    Attributes:
        group: The units.
        members: Positions, in ``group.members``, of the members that the factor stands on.
    """

    group: Group
    members: tuple[int, ...]

    def gradient(self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Tensor:
        """The derivative of a loss by the factors, (count,), from its gradients by the program's parameters."""
        total = torch.zeros(self.group.count, dtype=torch.float64)
        for position in self.members:
            member, rows = self.group.members[position], torch.from_numpy(self.group.slices[position])
            products = parameters[member.parameter].detach().double() * gradients[member.parameter].double()
            total += as_filters(products, member).sum(1).cpu()[rows].sum(1)
        return total


def gates(program: Program, groups: Iterable[Group]) -> list[GatePlace]:
    """The gates of groups, by which a unit counts once.

    A gate stands on what makes the units: on the scale and shift of the batch norm that alone reads a producer's
    outputs, else on its filters and biases. Scaling these by a common factor is the same as scaling the units' outputs
    there. A grouped convolution passes on what a layer before it made and has none where others are: a factor on both
    would count a unit twice.
    """
    calls, parameters = calls_by_weight(program.graph), program.parameters()
    return [GatePlace(group, _positions(group, _made_by(_makers(group, calls), calls), parameters)) for group in groups]


def batch_norm_gates(program: Program, groups: Iterable[Group]) -> list[GatePlace]:
    """The gates behind all batch norms whose channels are a group's units; a group without batch norms has none.

    Those behind grouped convolutions count where the group has no others: these pass on what was scaled before.
    """
    places = {(name, 0) for name in batch_norm_tensors(program.graph, "weight", "bias")}
    grouped = [call for call, _ in weighted_calls(program.graph) if is_grouped(call)]
    before = places - {(name, 0) for call in grouped for name in _affine_norm(call)}
    parameters = program.parameters()
    gates = (
        GatePlace(group, _positions(group, before, parameters) or _positions(group, places, parameters))
        for group in groups
    )
    return [gate for gate in gates if gate.members]


def _makers(group: Group, calls: Mapping[str, list[Node]]) -> list[Member]:
    """The producers of a group without the grouped convolutions that pass on what others made."""
    producers = [group.members[position] for position in group.producers]
    return [each for each in producers if not any(map(is_grouped, calls.get(each.parameter, [])))] or producers


def _made_by(members: Iterable[Member], calls: Mapping[str, list[Node]]) -> set[tuple[str, int]]:
    """Names and dimensions of the tensors that a factor behind some producers stands on, from the calls by weight."""
    places: set[tuple[str, int]] = set()
    for member in members:
        users = calls.get(member.parameter, [])
        norms = [_affine_norm(call) for call in users]
        if norms and all(norms):
            places |= {(name, 0) for norm in norms for name in norm}
        else:
            places.add((member.parameter, member.dim))
            places |= {(name, 0) for call in users for name in tensor_names(call, "bias")}
    return places


def _positions(group: Group, places: Container[tuple[str, int]], parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Positions of the group's members at these names and dimensions; a tensor with two names counts once."""
    positions = [p for p, m in enumerate(group.members) if (m.parameter, m.dim) in places and m.parameter in parameters]
    return tuple(different(group, positions, parameters))


def norm_behind(call: Node) -> Node | None:
    """The batch norm that alone uses a call; None where there is none."""
    user = next(iter(call.users), None)
    return user if user is not None and len(call.users) == 1 and _is_batch_norm(user, call) else None


def _affine_norm(call: Node) -> tuple[str, ...]:
    """Names of the scale and shift of the batch norm that alone uses a call; empty where there is none."""
    norm = norm_behind(call)
    return () if norm is None else tensor_names(norm, "weight", "bias")
