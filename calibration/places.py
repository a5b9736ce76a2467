"""Places in a graph that statistics look at: layers' inputs, their outputs behind the activation, units' gates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from prunec.passes.cost import weighted_calls
from prunec.passes.criteria.units import as_filters
from prunec.passes.graphs import arguments, operator_name
from prunec.passes.groups import Group
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.rules.lookup import find_rule
from prunec.passes.rules.pointwise import broadcast


def outputs(program: Program, *, joined: bool = False) -> dict[Node, list[tuple[str, int]]]:
    """The nodes whose outputs stand for those of every layer: the batch norm and the pointwise operator that follow.

    With ``joined`` these are those behind the sum with other outputs that a layer's alone go into, where there is one.

    Returns:
        Node -> names of the layers' weights, each with the axis that its filters are along.
    """
    tensors = program.tensors()
    found: dict[Node, list[tuple[str, int]]] = {}
    for call, weight in weighted_calls(program.graph):
        if weight in tensors:
            axis = 1 if WEIGHTED[operator_name(call.target)].spatial_dims else -1
            found.setdefault(_behind(call, joined), []).append((weight, axis))
    return found


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
    """The gates of groups.

    A gate stands on what makes the units: for each of the group's producers on the scale and shift of the batch norm
    that alone reads its outputs, else on its filters and biases. Scaling these by a common factor is the same as
    scaling the units' outputs there.
    """
    calls: dict[str, list[Node]] = {}
    for call, weight in weighted_calls(program.graph):
        calls.setdefault(weight, []).append(call)
    parameters = program.parameters()
    return [GatePlace(group, _gated(group, calls, parameters)) for group in groups]


def _gated(group: Group, calls: Mapping[str, list[Node]], parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
    places: set[tuple[str, int]] = set()
    for position in group.producers:
        member = group.members[position]
        users = calls.get(member.parameter, [])
        norms = [_affine_norm(call) for call in users]
        if norms and all(norms):
            places |= {(name, 0) for norm in norms for name in norm}
        else:
            places.add((member.parameter, member.dim))
            places |= {(name, 0) for call in users for name in tensor_names(call, "bias")}
    positions: dict[tuple[int, int], int] = {}  # a tensor with two names counts once
    for position, member in enumerate(group.members):
        if (member.parameter, member.dim) in places and member.parameter in parameters:
            positions.setdefault((id(parameters[member.parameter]), member.dim), position)
    return tuple(positions.values())


def _affine_norm(call: Node) -> tuple[str, ...]:
    """Names of the scale and shift of the batch norm that alone uses a call; empty where there is none."""
    user = next(iter(call.users), None)
    if user is None or len(call.users) > 1 or not _is_batch_norm(user, call):
        return ()
    return tensor_names(user, "weight", "bias")


def tensor_names(node: Node, *options: str) -> tuple[str, ...]:
    """Names of the parameters and buffers that these arguments of a call are; the others are left out."""
    values = (arguments(node).get(option) for option in options)
    return tuple(str(value.target) for value in values if isinstance(value, Node) and value.op == "get_attr")
