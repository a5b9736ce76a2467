"""Groups of units: classes of tied atoms that are slices of the same dimensions of the same tensors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from prunec.passes.cost import layer_name, weighted_calls
from prunec.passes.graphs import calls, operator_name
from prunec.passes.labels import Atoms, Ties
from prunec.passes.operators import WEIGHTED
from prunec.passes.products import WeightProduct, products
from prunec.passes.program import Program


@dataclass(frozen=True)
class Member:
    """One dimension of one parameter or buffer in a group.

    Attributes:
        parameter: Name in the original module.
        dim: The dimension that shrinks.
        slices_per_unit: Number of slices that go with each unit (49 where a flattened 7x7 map follows a channel).
    """

    parameter: str
    dim: int
    slices_per_unit: int


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one, each a set of slices of the same members.

    Attributes:
        name: Path of the first layer whose filters the units are.
        count: Number of units.
        members: Tensor dimensions that lose slices with a unit.
        slices: Slice indices of each unit in each member, int64 (count, slices_per_unit).
        filters: (parameter, dimension) pairs of the whole program whose slices are filters.
        reasons: Reasons why the group is frozen, in words; empty where it can be pruned.
        residual: Whether the group is a residual stream, the sum of several layers' outputs.
        inexact: Operators that mix the units, so that removing some changes what the others become; empty where
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

    @cached_property
    def producers(self) -> list[int]:
        """Positions of the members whose slices are filters."""
        return [i for i, m in enumerate(self.members) if (m.parameter, m.dim) in self.filters]

    @cached_property
    def layers(self) -> list[str]:
        """Paths of the layers whose filters the units are."""
        return list(dict.fromkeys(layer_name(self.members[i].parameter) for i in self.producers))


def find_groups(program: Program, ties: Ties, slots: dict[tuple[str, int], Atoms], roots: Atoms) -> list[Group]:
    """Group the classes of tied atoms by the tensor dimensions that they have slices of.

    Classes without a filter form no group.

    Args:
        program: Program that was analysed.
        ties: Labels, ties and reasons that the rules gave.
        slots: Atoms by tensor name and dimension.
        roots: Representative of each atom's class.

    Returns:
        Groups in the order in which the graph first uses their filters; frozen ones have reasons.
    """
    filters = _filters(program)
    order = _order_of_use(program)
    keys = sorted(slots, key=lambda slot: (order.get(slot[0], len(order)), slot[1]))
    classes = _classes([slots[key] for key in keys if key in filters], roots, _signatures(keys, slots, ties, roots))
    slices = _slices(keys, slots, roots, classes)
    owner = positions(ties.count, classes)[roots]
    reasons = _words(ties.frozen, owner, len(classes))
    inexact = _words([(mixing.atoms, mixing.operator) for mixing in ties.mixing], owner, len(classes))
    residual = marked(roots, ties.residual)
    names: Counter[str] = Counter()
    groups = []
    for position, units in enumerate(classes):
        members = tuple(Member(name, dim, rows.shape[1]) for (name, dim), rows in slices[position].items())
        layer = layer_name(next(m.parameter for m in members if (m.parameter, m.dim) in filters))
        names[layer] += 1
        name = layer if names[layer] == 1 else f"{layer}#{names[layer]}"
        rows, is_residual = tuple(slices[position].values()), bool(residual[units].any())
        groups.append(
            Group(name, len(units), members, rows, filters, reasons[position], is_residual, inexact[position])
        )
    return groups


def positions(atoms: int, classes: Sequence[Atoms]) -> Atoms:
    """Position of the one of several arrays of atoms that each atom stands in, -1 elsewhere; int64 (atoms,)."""
    owner = np.full(atoms, -1, dtype=np.int64)
    for position, members in enumerate(classes):
        owner[members] = position
    return owner


def marked(roots: Atoms, labels: list[Atoms]) -> NDArray[np.bool_]:
    """Whether each root stands for any of these atoms; bool (atoms,)."""
    is_marked = np.zeros(len(roots), dtype=bool)
    if labels:
        is_marked[roots[np.concatenate([np.ravel(label) for label in labels])]] = True
    return is_marked


def _filters(program: Program) -> frozenset[tuple[str, int]]:
    """The dimensions that count filters: those of weights, and dimension 0 of other parameters that hold vectors."""
    parameters = program.parameters()
    filter_dims: dict[int, set[int]] = {}
    for node, weight in weighted_calls(program.graph):
        if weight in parameters:
            dim = WEIGHTED[operator_name(node.target)].filter_dim
            filter_dims.setdefault(id(parameters[weight]), set()).add(dim)
    for product in products(program.graph):
        if isinstance(product, WeightProduct) and product.weight is product.tensor and product.name in parameters:
            filter_dims.setdefault(id(parameters[product.name]), set()).update(product.filter_dims)
    return frozenset(
        (name, dim)
        for name, parameter in parameters.items()
        for dim in filter_dims.get(id(parameter), {0} if parameter.numel() > max(parameter.shape, default=1) else ())
    )


def _order_of_use(program: Program) -> dict[str, int]:
    sources = (source for node in calls(program.graph) for source in node.all_input_nodes if source.op == "get_attr")
    return {name: position for position, name in enumerate(dict.fromkeys(str(source.target) for source in sources))}


def _signatures(
    keys: list[tuple[str, int]], slots: dict[tuple[str, int], Atoms], ties: Ties, roots: Atoms
) -> NDArray[np.uint64]:
    """A number for every root, equal for classes with slices of the same tensors that may go alike; uint64 (atoms,)."""
    # Each group settles what a piece of an axis keeps, so pieces tell classes apart as members do.
    labels = [*(slots[key] for key in keys), *ties.pieces]
    random = np.random.default_rng(0).integers(1, 2**63, size=len(labels) + 2, dtype=np.uint64)
    signatures = np.zeros(len(roots), dtype=np.uint64)
    if labels:
        numbers = np.repeat(random[2:], [len(label) for label in labels])
        np.add.at(signatures, roots[np.concatenate(labels)], numbers)
    signatures[marked(roots, [atoms for atoms, _ in ties.frozen])] += random[0]
    signatures[marked(roots, [mixing.atoms for mixing in ties.mixing])] += random[1]
    return signatures


def _classes(filters: list[Atoms], roots: Atoms, signatures: NDArray[np.uint64]) -> list[Atoms]:
    """Divide the classes that have filters by their signatures.

    Returns:
        The roots of each group in the order of its filters, groups in the order in which the graph first uses theirs.
    """
    if not filters:
        return []
    uses = roots[np.concatenate(filters)]
    first_use = np.full(len(roots), len(uses), dtype=np.int64)
    np.minimum.at(first_use, uses, np.arange(len(uses)))
    classes = np.flatnonzero(first_use < len(uses))
    first_use = first_use[classes]
    tensor = np.repeat(np.arange(len(filters)), [len(atoms) for atoms in filters])[first_use]
    _, smallest, kind = np.unique(signatures[classes], return_index=True, return_inverse=True)
    # Groups that begin in one tensor come in the order of their smallest atoms.
    rank = np.empty(len(smallest), dtype=np.int64)
    rank[np.lexsort((smallest, tensor[smallest]))] = np.arange(len(smallest))
    group = rank[kind]
    ends = np.cumsum(np.bincount(group))
    return np.split(classes[np.lexsort((first_use, group))], ends[:-1])


def _slices(
    keys: list[tuple[str, int]], slots: dict[tuple[str, int], Atoms], roots: Atoms, groups: list[Atoms]
) -> list[dict[tuple[str, int], Atoms]]:
    """The slices of each group by tensor name and dimension, int64 (units, slices per unit)."""
    unit_of = np.full(len(roots), -1, dtype=np.int64)
    unit_of[np.concatenate([*groups, []]).astype(np.int64)] = np.arange(sum(map(len, groups)))
    group_of = np.repeat(np.arange(len(groups)), [len(units) for units in groups])
    slices: list[dict[tuple[str, int], Atoms]] = [{} for _ in groups]
    for key in keys:
        units = unit_of[roots[slots[key]]]
        indices = np.argsort(units, kind="stable")[np.count_nonzero(units < 0) :]
        owners = group_of[units[indices]]
        starts = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
        for start, end in pairwise(starts if len(owners) else []):
            position = owners[start]
            slices[position][key] = indices[start:end].reshape(len(groups[position]), -1)
    return slices


def _words(labels: list[tuple[Atoms, str]], owner: Atoms, groups: int) -> list[tuple[str, ...]]:
    """The words that are said of each group's atoms, each once, in the order of their first use.

    ``owner`` is the group of each atom, -1 where it is in none.
    """
    words = list(dict.fromkeys(word for _, word in labels))
    column = {word: position for position, word in enumerate(words)}
    said = np.zeros((groups + 1, len(words)), dtype=bool)  # the last row is for atoms in no group
    for atoms, word in labels:
        said[owner[atoms], column[word]] = True
    return [tuple(words[position] for position in np.flatnonzero(row)) for row in said[:-1]]
