"""Coupling analysis: which slices of which parameters must be removed together.

Operator rules (``prunec.passes.rules``) carry axis labels through the graph and tie atoms; the ties are solved here
once, vectorised. What no rule knows is frozen: never wrong, only less pruned, and reported by name.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.graphs import arguments, operator_name
from prunec.passes.groups import Group, Member, find_groups
from prunec.passes.labels import Atoms, Follow, Ties, Value, opaque
from prunec.passes.normalise import aliased_inputs, written
from prunec.passes.program import Program
from prunec.passes.rules.registry import find_rule

__all__ = ["Coupling", "Group", "Member", "analyse", "solve"]


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

    @cached_property
    def is_frozen(self) -> NDArray[np.bool_]:
        """For every atom id, if it is a root: whether its class stays."""
        frozen = np.zeros(len(self.roots), dtype=bool)
        for label, _ in self.ties.frozen:
            frozen[self.roots[label]] = True
        return frozen


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
    groups = find_groups(program, ties, slots, roots)
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
        if name in program.constants:
            # A plan names tensors of the network only, and a number in its code stays as it is.
            ties.freeze_value(by_identity[id(tensor)], "a constant in the network's code")
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
    if not any(ties.values.get(source) for source in node.all_input_nodes):
        return opaque(node.meta["shapes"])  # numbers and 0-dimensional tensors only: no axis to label
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
    owners = [base]
    while owners:
        owner = owners.pop()
        ties.freeze_value(ties.values[owner], reason)
        owners += aliased_inputs(owner)
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
