"""Coupling analysis: which slices of which parameters must be removed together.

Operator rules (``prunec.passes.rules``) carry axis labels through the graph and tie atoms; the ties are solved here
once, vectorised. What no rule knows is frozen and reported by name: it is less pruned, and never wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.graphs import arguments, operator_name
from prunec.passes.groups import Group, Member, find_groups, marked, positions
from prunec.passes.labels import Atoms, Channels, Ties, Value, axes, names_cause, opaque
from prunec.passes.normalise import aliased_inputs, written
from prunec.passes.policy import Policy
from prunec.passes.program import Program
from prunec.passes.rules.lookup import creates, find_rule

__all__ = ["Coupling", "Group", "Member", "Policy", "analyse", "solve"]

#: Number of analyses of one program at most, each with other answers to what the one before left frozen.
_PASSES = 6
_DEFAULT_POLICY = Policy()


@dataclass(frozen=True, eq=False)
class Coupling:
    """Result of the analysis of one program.

    Attributes:
        groups: Groups that can be pruned, in the order of the graph, with the operators under which removing units
            differs from zeroing them.
        frozen: Groups that can't be pruned, with the reasons.
        roots: Representative of each atom's class, int64 (atoms,).
        slots: Atoms by tensor name and dimension; a tied tensor stands under each of its names.
        ties: Labels, ties and reasons that the rules gave.
        policy: The policy under which the analysis was made.
        constants: Names of tensors that stand in the network's code; no plan names them.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Group, ...]
    roots: Atoms
    slots: dict[tuple[str, int], Atoms]
    ties: Ties
    policy: Policy
    constants: frozenset[str]

    @property
    def unknown_operators(self) -> dict[str, int]:
        """Operators without a rule and how often they occur."""
        return self.ties.unknown_operators

    @property
    def values(self) -> dict[Node, Value]:
        """Labels of every node's output."""
        return self.ties.values

    @cached_property
    def group_of_root(self) -> Atoms:
        """Position in ``groups`` of the group that each root belongs to, -1 elsewhere; int64 (atoms,)."""
        return self.owners(self.groups)

    def owners(self, groups: Sequence[Group]) -> Atoms:
        """Position among groups of the one that each root belongs to, -1 elsewhere; int64 (atoms,)."""
        return positions(len(self.roots), [self.units(group) for group in groups])

    @cached_property
    def is_frozen(self) -> NDArray[np.bool_]:
        """Whether the class of each root is frozen; bool (atoms,)."""
        return marked(self.roots, [atoms for atoms, _ in self.ties.frozen])

    def units(self, group: Group) -> Atoms:
        """The root of each unit of a group, int64 (count,)."""
        member = group.members[0]
        return self.roots[self.slots[member.parameter, member.dim][group.slices[0][:, 0]]]


def analyse(program: Program, policy: Policy = _DEFAULT_POLICY) -> Coupling:
    """Find the coupled groups of a program.

    Where several answers are right (which factor of a reshaped axis carries the channels, say) and the one that was
    taken leaves its channels frozen, the analysis is made again with the next answer.
    """
    options: dict[str, int] = {}
    tried: dict[str, dict[int, float]] = {}
    for _ in range(_PASSES):
        ties = Ties(policy.attention, policy.grouped, options)
        slots = _label_tensors(program, ties)
        for node in program.graph.nodes:
            _label_node(ties, node)
        roots = solve(ties.count, ties.edges)
        better = _better_options(ties, roots, tried)
        if better == options:
            break
        options = better
    groups = find_groups(program, ties, slots, roots)
    prunable, frozen = tuple(g for g in groups if not g.reasons), tuple(g for g in groups if g.reasons)
    return Coupling(prunable, frozen, roots, slots, ties, policy, frozenset(program.constants))


def _better_options(ties: Ties, roots: Atoms, tried: dict[str, dict[int, float]]) -> dict[str, int]:
    """The answer to take next for every decision: the last one if it is good, else an untried one, else the best."""
    frozen = marked(roots, [atoms for atoms, _ in ties.frozen])
    mixed = marked(roots, [mixing.atoms for mixing in ties.mixing])
    unwanted = marked(roots, ties.head_dims if ties.attention == "heads" else [])
    options = dict(ties.options)
    for key, decision in ties.decisions.items():
        if decision.options == 1:
            continue
        carried, qualities = roots[decision.carried], tried.setdefault(key, {})
        free = ~frozen[carried]
        quality = 2.0 if (free & ~mixed[carried]).any() else float(free.any())
        quality /= 4 if unwanted[carried].any() else 1
        qualities[decision.option] = quality
        if quality < 2:
            untried = [option for option in range(decision.options) if option not in qualities]
            best = untried[0] if untried else max(qualities, key=lambda option: (qualities[option], -option))
            if best != options.get(key, 0):
                options[key] = best
    return options


def _label_node(ties: Ties, node: Node) -> None:
    if node.op == "placeholder":
        ties.values[node], ties.origins[node] = opaque(node.meta["shapes"]), "an input of the network"
    elif node.op == "call_function":
        tensors = [source for source in node.all_input_nodes if source.meta["shapes"] is not None]
        inherited = {source: ties.origins.get(source, "") for source in tensors}
        unknown = (origin for source, origin in inherited.items() if not any(True for _ in axes(ties.values[source])))
        ties.untracked, frozen = next(filter(None, unknown), ""), len(ties.frozen)
        ties.values[node] = _apply_rule(ties, node)
        causes = (reason for _, reason in ties.frozen[frozen:] if names_cause(reason))
        ties.origins[node] = next(causes, "") or next(filter(None, inherited.values()), "")
    elif node.op == "output":
        for source in node.all_input_nodes:
            ties.freeze_value(ties.values[source], "an output of the network")


def _label_tensors(program: Program, ties: Ties) -> dict[tuple[str, int], Atoms]:
    """Fresh atoms for every dimension of every tensor; a tensor with several names is labelled once.

    Constants of the network's code are cut with the channels that they meet, but never zeroed.
    """
    by_identity: dict[int, tuple[Channels | None, ...]] = {}
    slots: dict[tuple[str, int], Atoms] = {}
    tensors, constants = program.tensors(), set(program.constants)
    for name, tensor in tensors.items():
        if id(tensor) not in by_identity:
            zero = name not in constants
            by_identity[id(tensor)] = tuple(ties.fresh(n, zero) if n > 1 else None for n in tensor.shape)
        for dim, channels in enumerate(by_identity[id(tensor)]):
            if channels is not None:
                slots[name, dim] = channels.atoms
    for node in program.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        ties.values[node] = by_identity[id(tensors[name])] if name in tensors else None
    return slots


def _apply_rule(ties: Ties, node: Node) -> Value:
    operator = operator_name(node.target)
    if operator == "getitem":
        source, index = node.args
        value = ties.values[source]  # type: ignore[index]
        return value[index] if isinstance(value, list) else opaque(node.meta["shapes"])  # type: ignore[index]
    if operator == "sym_size":
        a = arguments(node)
        ties.freeze(ties.of(a["self"])[a["dim"]], "its size is read at run time")
    if operator in ("sym_size", "_assert_scalar", "sym_constrain_range_for_size"):
        return None  # a number, or nothing
    base = written(node)
    if base is not None:
        return _freeze_write(ties, node, base)
    rule = find_rule(node)
    if rule is None:
        return _freeze_unknown(ties, node)
    if not creates(node) and not any(True for source in node.all_input_nodes for _ in axes(ties.values.get(source))):
        return opaque(node.meta["shapes"])  # numbers and 0-dimensional tensors only: no axis to label
    return rule(ties, node, arguments(node))


def _freeze_write(ties: Ties, node: Node, base: Node) -> Value:
    """Freeze everything that shares memory with an in-place write through a view, and everything that is written."""
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
    touched = [value for source in node.all_input_nodes if (value := ties.values.get(source))]
    if touched:
        ties.unknown_operators[operator] = ties.unknown_operators.get(operator, 0) + 1
    for value in touched:
        ties.freeze_value(value, f"operator {operator} has no rule")
    return opaque(node.meta["shapes"])


def solve(count: int, edges: list[tuple[Atoms, Atoms]]) -> Atoms:
    """The smallest atom of each class, int64 (count,): connected components under pairs of equally long arrays."""
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
