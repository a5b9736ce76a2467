"""Coupling analysis: which slices of which parameters must be removed together.

Operator rules (``prunec.passes.rules``) carry axis labels through the graph and tie atoms; the ties are solved here
once, vectorised. What no rule knows is frozen: never wrong, only less pruned, and reported by name.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.graphs import arguments, operator_name
from prunec.passes.groups import Group, Member, find_groups, marked
from prunec.passes.labels import Atoms, Channels, Ties, Value, axes, opaque
from prunec.passes.normalise import aliased_inputs, written
from prunec.passes.program import Program
from prunec.passes.rules.registry import creates, find_rule

__all__ = ["Coupling", "Group", "Member", "Policy", "analyse", "solve"]

#: Analyses of one program at most, each with other answers to what the one before left frozen.
_PASSES = 6


@dataclass(frozen=True)
class Policy:
    """What is pruned where more than one answer is right.

    Attributes:
        attention: "head_dim" shortens every head, "heads" removes whole heads, "none" leaves attention whole.
        grouped: grouped convolutions lose whole "groups", or the same "index" in every group; "auto" takes what
            leaves more choices.
    """

    attention: Literal["head_dim", "heads", "none"] = "head_dim"
    grouped: Literal["auto", "groups", "index"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what is none of the answers."""
        for option, value, known in (("attention", self.attention, ATTENTION), ("grouped", self.grouped, GROUPED)):
            if value not in known:
                raise UsageError(f"{option} is {value!r}.", hint=did_you_mean(str(value), known))


ATTENTION = ("head_dim", "heads", "none")
GROUPED = ("auto", "groups", "index")
DEFAULT_POLICY = Policy()


@dataclass(frozen=True, eq=False)
class Coupling:
    """Result of the analysis of one program.

    Attributes:
        groups: what can be pruned, in the order of the graph.
        frozen: what can't, with the reasons.
        roots: for every atom the representative of its class, int64.
        slots: (tensor name, dimension) -> atoms; tied tensors under each of their names.
        ties: what the rules found.
        policy: that it was made under.
        constants: tensors that stand in the network's code, which no plan names.
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
        """For every atom id, if it is a root: position of its group in ``groups``, else -1."""
        owner = np.full(len(self.roots), -1, dtype=np.int64)
        for position, group in enumerate(self.groups):
            owner[self.units(group)] = position
        return owner

    @cached_property
    def is_frozen(self) -> NDArray[np.bool_]:
        """For every atom id, if it is a root: whether its class stays."""
        return marked(self.roots, [atoms for atoms, _ in self.ties.frozen])

    def units(self, group: Group) -> Atoms:
        """The root of each unit of a group, int64 (count,)."""
        member = group.members[0]
        return self.roots[self.slots[member.parameter, member.dim][group.slices[0][:, 0]]]


def analyse(program: Program, policy: Policy = DEFAULT_POLICY) -> Coupling:
    """Find the coupled groups of a program.

    Where several answers are right (which factor of a reshaped axis carries the channels, say) and the one taken
    ends frozen, the analysis is made again with the next.

    Returns:
        Groups whose units can be removed, with the operators under which that is not exactly the same as zeroing
        them, and frozen ones with reasons.
    """
    options: dict[str, int] = {}
    tried: dict[str, dict[int, float]] = {}
    for _ in range(_PASSES):
        ties = Ties(policy.attention, policy.grouped, options)
        slots = _label_tensors(program, ties)
        _run_rules(program, ties)
        roots = solve(ties.count, ties.edges)
        better = _better_options(ties, roots, tried)
        if better == options:
            break
        options = better
    groups = find_groups(program, ties, slots, roots)
    return Coupling(
        groups=tuple(g for g in groups if not g.reasons),
        frozen=tuple(g for g in groups if g.reasons),
        roots=roots,
        slots=slots,
        ties=ties,
        policy=policy,
        constants=frozenset(program.constants),
    )


def _better_options(ties: Ties, roots: Atoms, tried: dict[str, dict[int, float]]) -> dict[str, int]:
    """For every decision the answer to take next: the one taken if it is good, an untried one, or else the best."""
    frozen = marked(roots, [atoms for atoms, _ in ties.frozen])
    mixed = marked(roots, [mixing.atoms for mixing in ties.mixing])
    unwanted = marked(roots, ties.head_dims if ties.attention == "heads" else [])
    options = dict(ties.options)
    for key, decision in ties.decisions.items():
        if decision.options == 1:
            continue
        carried = roots[decision.carried]
        free = ~frozen[carried]
        quality = 2.0 if (free & ~mixed[carried]).any() else float(free.any())
        if unwanted[carried].any():
            quality /= 4
        qualities = tried.setdefault(key, {})
        qualities[decision.option] = quality
        if quality < 2:
            untried = [option for option in range(decision.options) if option not in qualities]
            best = untried[0] if untried else max(qualities, key=lambda option: (qualities[option], -option))
            if best != options.get(key, 0):
                options[key] = best
    return options


def _run_rules(program: Program, ties: Ties) -> None:
    for node in program.graph.nodes:
        if node.op == "placeholder":
            ties.values[node] = opaque(node.meta["shapes"])
        elif node.op == "call_function":
            ties.values[node] = _apply_rule(ties, node)
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
    if not creates(node) and not any(True for source in node.all_input_nodes for _ in axes(ties.values.get(source))):
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
