"""Coupling analysis: which slices of which parameters must be removed together.

Operator rules (``prunec.passes.rules``) carry axis labels through the graph and tie atoms; the ties are solved here
once, vectorised. What no rule knows is frozen: never wrong, only less pruned, and reported by name.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch.fx import Node

from prunec.passes.cost import layer_name
from prunec.passes.graphs import arguments, operator_name
from prunec.passes.labels import Atoms, Follow, Ties, Value, opaque
from prunec.passes.normalise import aliased_input, written
from prunec.passes.program import Program
from prunec.passes.rules.registry import find_rule


@dataclass(frozen=True)
class Member:
    """One dimension of one parameter or buffer in a group.

    Attributes:
        parameter: name in the original module.
        dim: the dimension that shrinks.
        slices_per_unit: how many slices go with each unit (49 where a flattened 7x7 map follows a channel).
    """

    parameter: str
    dim: int
    slices_per_unit: int


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one, each a set of slices of the same members.

    Attributes:
        name: path of the first layer whose filters the units are.
        count: number of units.
        members: what goes with a unit.
        slices: for each member the slice indices of each unit, int64 (count, slices_per_unit).
        weights: names of all parameters with two or more dimensions.
        reasons: why the group is frozen, in words; empty where it can be pruned.
        residual: whether it is a residual stream, the sum of several layers' outputs.
        exact: whether removing units equals zeroing them (always so: inexact operators freeze).
    """

    name: str
    count: int
    members: tuple[Member, ...]
    slices: tuple[Atoms, ...] = field(repr=False)
    weights: frozenset[str] = field(repr=False)
    reasons: tuple[str, ...] = ()
    residual: bool = False
    exact: bool = True

    @property
    def producers(self) -> list[int]:
        """Positions of the members whose slices are filters: dimension 0 of a parameter with two or more."""
        return [i for i, m in enumerate(self.members) if m.dim == 0 and m.parameter in self.weights]

    @property
    def layers(self) -> list[str]:
        """Paths of the layers whose filters the units are."""
        return list(dict.fromkeys(layer_name(self.members[i].parameter) for i in self.producers))


@dataclass(frozen=True, eq=False)
class Coupling:
    """Result of the analysis of one program.

    Attributes:
        groups: what can be pruned, in the order of the graph.
        frozen: what can't, with the reasons.
        unknown_operators: operators without a rule and how often they occur.
        roots: for every atom the representative of its class, int64.
        slots: (tensor name, dimension) -> atoms; tied tensors under each of their names.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Group, ...]
    unknown_operators: dict[str, int]
    roots: Atoms
    slots: dict[tuple[str, int], Atoms]
    ties: Ties

    @property
    def follows(self) -> list[Follow]:
        """Size arguments that depend on what is kept."""
        return self.ties.follows

    @property
    def values(self) -> dict[Node, Value]:
        """Labels of every node's output."""
        return self.ties.values

    @cached_property
    def group_of_root(self) -> Atoms:
        """For every atom id, if it is a root: position of its group in ``groups``, else -1."""
        owner = np.full(len(self.roots), -1, dtype=np.int64)
        for position, group in enumerate(self.groups):
            member = group.members[0]
            atoms = self.slots[member.parameter, member.dim]
            owner[self.roots[atoms[group.slices[0][:, 0]]]] = position
        return owner


def analyse(program: Program) -> Coupling:
    """Find the coupled groups of a program.

    Returns:
        Groups whose units can be removed with exact equality to zeroing them, and frozen ones with reasons.
    """
    ties = Ties()
    slots = _label_tensors(program, ties)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            ties.values[node] = opaque(node.meta["shapes"])
        elif node.op == "call_function":
            ties.values[node] = _apply_rule(ties, node)
        elif node.op == "output":
            for source in node.all_input_nodes:
                ties.freeze_value(ties.values[source], "an output of the network")
    roots = solve(ties.count, ties.edges)
    groups = _groups(program, ties, slots, roots)
    return Coupling(
        groups=tuple(g for g in groups if not g.reasons),
        frozen=tuple(g for g in groups if g.reasons),
        unknown_operators=ties.unknown_operators,
        roots=roots,
        slots=slots,
        ties=ties,
    )


def _label_tensors(program: Program, ties: Ties) -> dict[tuple[str, int], Atoms]:
    """Fresh atoms for every dimension of every tensor; a tensor with several names is labelled once."""
    by_identity: dict[int, tuple[Atoms | None, ...]] = {}
    slots: dict[tuple[str, int], Atoms] = {}
    for name, tensor in program.tensors().items():
        if id(tensor) not in by_identity:
            by_identity[id(tensor)] = tuple(ties.fresh(n) if n > 1 else None for n in tensor.shape)
        for dim, atoms in enumerate(by_identity[id(tensor)]):
            if atoms is not None:
                slots[name, dim] = atoms
    tensors = program.tensors()
    for node in program.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        ties.values[node] = by_identity[id(tensors[name])] if name in tensors else None
    return slots


def _apply_rule(ties: Ties, node: Node) -> Value:
    if operator_name(node.target) == "getitem":
        source, index = node.args
        value = ties.values[source]  # type: ignore[index]
        return value[index] if isinstance(value, list) else opaque(node.meta["shapes"])  # type: ignore[index]
    if operator_name(node.target) in ("sym_size", "_assert_scalar", "sym_constrain_range_for_size"):
        return _size_of(ties, node)
    base = written(node)
    if base is not None:
        return _freeze_write(ties, node, base)
    rule = find_rule(node)
    if rule is None:
        return _freeze_unknown(ties, node)
    return rule(ties, node, arguments(node))


def _size_of(ties: Ties, node: Node) -> Value:
    """A size read at run time: of a pruned axis it would change, so that axis stays."""
    if operator_name(node.target) == "sym_size":
        a = arguments(node)
        ties.freeze(ties.of(a["self"])[a["dim"]], "its size is read at run time")
    return None


def _freeze_write(ties: Ties, node: Node, base: Node) -> Value:
    """An in-place write through a view: everything that shares the memory, and everything written, stays."""
    reason = f"in-place {operator_name(node.target)} on a view"
    for source in node.all_input_nodes:
        ties.freeze_value(ties.values[source], reason)
    owner: Node | None = base
    while owner is not None:
        ties.freeze_value(ties.values[owner], reason)
        owner = aliased_input(owner)
    return opaque(node.meta["shapes"])


def _freeze_unknown(ties: Ties, node: Node) -> Value:
    operator = operator_name(node.target)
    touched = [source for source in node.all_input_nodes if ties.values.get(source)]
    if touched:
        ties.unknown_operators[operator] = ties.unknown_operators.get(operator, 0) + 1
    for source in touched:
        ties.freeze_value(ties.values[source], f"operator {operator} has no rule")
    return opaque(node.meta["shapes"])


def solve(count: int, edges: list[tuple[Atoms, Atoms]]) -> Atoms:
    """Connected components of atoms under ties.

    Args:
        count: number of atoms.
        edges: pairs of equally long atom arrays.

    Returns:
        The smallest atom of each atom's class, int64 (count,).
    """
    roots = np.arange(count, dtype=np.int64)
    if not edges:
        return roots
    left = np.concatenate([a for a, _ in edges])
    right = np.concatenate([b for _, b in edges])
    while left.size:
        low, high = np.minimum(roots[left], roots[right]), np.maximum(roots[left], roots[right])
        np.minimum.at(roots, high, low)
        while True:  # pointer jumping
            jumped = roots[roots]
            if np.array_equal(jumped, roots):
                break
            roots = jumped
        open_ = roots[left] != roots[right]
        left, right = left[open_], right[open_]
    return roots


def _groups(program: Program, ties: Ties, slots: dict[tuple[str, int], Atoms], roots: Atoms) -> list[Group]:
    """Classes with the same multiset of (tensor, dimension) form a group; those without a filter don't count."""
    weights = frozenset(name for name, tensor in program.parameters().items() if tensor.ndim > 1)
    order = _order_of_use(program)
    keys = sorted(slots, key=lambda slot: (order.get(slot[0], len(order)), slot[1]))
    random = np.random.default_rng(0).integers(1, 2**63, size=len(keys), dtype=np.uint64)
    signature = np.zeros(ties.count, dtype=np.uint64)
    produced = np.zeros(ties.count, dtype=bool)
    for key, number in zip(keys, random, strict=True):
        np.add.at(signature, roots[slots[key]], number)
        if key[1] == 0 and key[0] in weights:
            produced[roots[slots[key]]] = True
    reasons = _reasons(ties, roots)
    residual = np.zeros(ties.count, dtype=bool)
    for label in ties.residual:
        residual[roots[label]] = True

    buckets: dict[tuple[int, bool], list[int]] = {}
    for root in np.flatnonzero(produced).tolist():
        buckets.setdefault((int(signature[root]), root in reasons), []).append(root)
    names: Counter[str] = Counter()
    groups = []
    for units, slices in _members(keys, slots, roots, weights, list(buckets.values())):
        members = tuple(Member(name, dim, rows.shape[1]) for (name, dim), rows in slices.items())
        layer = layer_name(next(m.parameter for m in members if m.dim == 0 and m.parameter in weights))
        names[layer] += 1
        group = Group(
            name=layer if names[layer] == 1 else f"{layer}#{names[layer]}",
            count=len(units),
            members=members,
            slices=tuple(slices.values()),
            weights=weights,
            reasons=tuple(dict.fromkeys(reason for root in units for reason in reasons.get(root, ()))),
            residual=bool(residual[units].any()),
        )
        groups.append(group)
    return groups


def _order_of_use(program: Program) -> dict[str, int]:
    order: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            for source in node.all_input_nodes:
                if source.op == "get_attr":
                    order.setdefault(str(source.target), len(order))
    return order


def _members(
    keys: list[tuple[str, int]],
    slots: dict[tuple[str, int], Atoms],
    roots: Atoms,
    weights: frozenset[str],
    buckets: list[list[int]],
) -> list[tuple[Atoms, dict[tuple[str, int], Atoms]]]:
    """For each bucket its classes, and per member the slices of each: (units, slices per unit).

    Buckets come in the order in which the graph first uses their filters, units in the order of those filters.
    """
    bucket_of = np.full(len(roots), -1, dtype=np.int64)
    unit_of = np.zeros(len(roots), dtype=np.int64)
    for position, units in enumerate(buckets):
        bucket_of[units] = position
        unit_of[units] = np.arange(len(units))
    found: dict[int, dict[tuple[str, int], Atoms]] = {}
    order: dict[int, Atoms] = {}
    for key in keys:
        root = roots[slots[key]]
        owner = bucket_of[root]
        for position in np.unique(owner[owner >= 0]).tolist():
            indices = np.flatnonzero(owner == position)
            rows = indices[np.argsort(unit_of[root[indices]], kind="stable")].reshape(len(buckets[position]), -1)
            found.setdefault(position, {})[key] = rows
            if key[1] == 0 and key[0] in weights and position not in order:
                order[position] = np.argsort(rows[:, 0], kind="stable")
    return [
        (np.array(buckets[position])[units], {key: rows[units] for key, rows in found[position].items()})
        for position, units in order.items()
    ]


def _reasons(ties: Ties, roots: Atoms) -> dict[int, list[str]]:
    """Class -> why it is frozen, each reason once, in the order found."""
    reasons: dict[int, list[str]] = {}
    for label, reason in ties.frozen:
        for root in np.unique(roots[label]).tolist():
            found = reasons.setdefault(root, [])
            if reason not in found:
                found.append(reason)
    return reasons
