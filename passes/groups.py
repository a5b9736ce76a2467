"""Groups of units: classes of tied atoms that are slices of the same dimensions of the same tensors."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from prunec.passes.cost import TRANSPOSED, layer_name, weighted_calls
from prunec.passes.graphs import operator_name
from prunec.passes.labels import Atoms, Ties
from prunec.passes.program import Program


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
        filters: (parameter, dimension) pairs of the whole program whose slices are filters.
        reasons: why the group is frozen, in words; empty where it can be pruned.
        residual: whether it is a residual stream, the sum of several layers' outputs.
        inexact: operators that mix the units, so that removing some changes what the others become; empty where
            removing units equals zeroing them.
    """

    name: str
    count: int
    members: tuple[Member, ...]
    slices: tuple[Atoms, ...] = field(repr=False)
    filters: frozenset[tuple[str, int]] = field(repr=False)
    reasons: tuple[str, ...] = ()
    residual: bool = False
    inexact: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether removing units equals zeroing them."""
        return not self.inexact

    @property
    def producers(self) -> list[int]:
        """Positions of the members whose slices are filters."""
        return [i for i, m in enumerate(self.members) if (m.parameter, m.dim) in self.filters]

    @property
    def layers(self) -> list[str]:
        """Paths of the layers whose filters the units are."""
        return list(dict.fromkeys(layer_name(self.members[i].parameter) for i in self.producers))


def find_groups(program: Program, ties: Ties, slots: dict[tuple[str, int], Atoms], roots: Atoms) -> list[Group]:
    """Group the classes of tied atoms by what they are members of; classes without a filter don't count.

    Args:
        program: the program analysed.
        ties: what its rules found.
        slots: (tensor name, dimension) -> atoms.
        roots: for every atom the representative of its class.

    Returns:
        Groups in the order in which the graph first uses their filters, frozen ones with their reasons.
    """
    filters = _filters(program)
    order = _order_of_use(program)
    keys = sorted(slots, key=lambda slot: (order.get(slot[0], len(order)), slot[1]))
    # What every piece of an axis keeps is settled group by group, so pieces tell classes apart as members do.
    labels = [*(slots[key] for key in keys), *ties.pieces]
    random = np.random.default_rng(0).integers(1, 2**63, size=len(labels), dtype=np.uint64)
    signature = np.zeros(ties.count, dtype=np.uint64)
    for label, number in zip(labels, random, strict=True):
        np.add.at(signature, roots[label], number)
    produced = np.zeros(ties.count, dtype=bool)
    for key in filters & slots.keys():
        produced[roots[slots[key]]] = True
    reasons = _words(ties.frozen, roots)
    inexact = _words([(mixing.atoms, mixing.operator) for mixing in ties.mixing], roots)
    residual = np.zeros(ties.count, dtype=bool)
    for label in ties.residual:
        residual[roots[label]] = True

    buckets: dict[tuple[int, bool, bool], list[int]] = {}
    for root in np.flatnonzero(produced).tolist():
        buckets.setdefault((int(signature[root]), root in reasons, root in inexact), []).append(root)
    names: Counter[str] = Counter()
    groups = []
    for units, slices in _members(keys, slots, roots, filters, list(buckets.values())):
        members = tuple(Member(name, dim, rows.shape[1]) for (name, dim), rows in slices.items())
        layer = layer_name(next(m.parameter for m in members if (m.parameter, m.dim) in filters))
        names[layer] += 1
        group = Group(
            name=layer if names[layer] == 1 else f"{layer}#{names[layer]}",
            count=len(units),
            members=members,
            slices=tuple(slices.values()),
            filters=filters,
            reasons=tuple(dict.fromkeys(reason for root in units for reason in reasons.get(root, ()))),
            residual=bool(residual[units].any()),
            inexact=tuple(dict.fromkeys(operator for root in units for operator in inexact.get(root, ()))),
        )
        groups.append(group)
    return groups


def _filters(program: Program) -> frozenset[tuple[str, int]]:
    """Where filters are: in a weight as its layer reads it; in other parameters dimension 0, if it holds vectors."""
    parameters = program.parameters()
    found: dict[int, set[int]] = {}
    for node, weight in weighted_calls(program.graph):
        if weight in parameters:
            filters = 1 if operator_name(node.target) in TRANSPOSED else 0
            found.setdefault(id(parameters[weight]), set()).add(filters)
    return frozenset(
        (name, dim)
        for name, parameter in parameters.items()
        for dim in found.get(id(parameter), {0} if parameter.numel() > max(parameter.shape, default=1) else ())
    )


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
    filters: frozenset[tuple[str, int]],
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
            if key in filters and position not in order:
                order[position] = np.argsort(rows[:, 0], kind="stable")
    return [
        (np.array(buckets[position])[units], {key: rows[units] for key, rows in found[position].items()})
        for position, units in order.items()
    ]


def _words(labels: list[tuple[Atoms, str]], roots: Atoms) -> dict[int, list[str]]:
    """Class -> what is said of its atoms, each thing once, in the order found."""
    words: dict[int, list[str]] = {}
    for atoms, word in labels:
        for root in np.unique(roots[atoms]).tolist():
            found = words.setdefault(root, [])
            if word not in found:
                found.append(word)
    return words
