"""Apply a plan to a program: slice tensors and masks, rewrite every argument that holds a size."""

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.branch_removal import without_branches
from prunec.passes.coupling import Coupling, analyse
from prunec.passes.errors import InputError
from prunec.passes.factorizing import factorized
from prunec.passes.graphs import Shapes, arguments, copied_graph, module_path, operator_name, set_argument
from prunec.passes.labels import Channels, Label, Packed, Value, axes, parts
from prunec.passes.operators import CONVOLUTIONS, EVEN_SPLITS, TRANSPOSED_CONVOLUTIONS
from prunec.passes.plan import PruningPlan, misfit
from prunec.passes.policy import ATTENTION, GROUPED, Policy
from prunec.passes.program import Program
from prunec.passes.reorder import reorder, targets_of

#: Whether each class of atoms goes, at its root.
Removed = NDArray[np.bool_]

#: Operators whose sizes are attributes of torch's layers.
_OF_LAYERS = (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, "layer_norm", "rms_norm", "group_norm")


def apply_plan_to_program(program: Program, plan: PruningPlan) -> Program:
    """The program without the branches and slices that the plan leaves out, the others in its order, and decomposed.

    Raises:
        InputError: The plan was made for another network.
    """
    plan.check_decomposed(program.tensors())
    cut = _applied(without_branches(program, plan.removed_branches), plan.cuts)[0]
    return factorized(cut, plan.ranks)


def beside_branches(program: Program, plan: PruningPlan) -> tuple[Program, PruningPlan]:
    """What a plan makes of a network that keeps the branches which the plan removes, and the plan of that.

    Slices of the branches go where those go that they are coupled to, so that sums still fit.

    Raises:
        InputError: The plan was made for another network, or keeps what the branches tie together apart.
    """
    cut, own = _applied(program, plan.cuts, set(plan.gone))
    return factorized(cut, plan.ranks), replace(own, ranks=plan.ranks)


def _applied(program: Program, plan: PruningPlan, open_: Collection[str] = ()) -> tuple[Program, PruningPlan]:
    """The program as a plan of slices makes it, and the plan, with what it means for tensors that it leaves open."""
    coupling, removed = coupling_of(program, plan, open_)
    cuts = plan_of(coupling, removed)
    pruned, order = remove(program, coupling, cuts, removed), plan.order()
    if not order.kept:
        return pruned, cuts
    coupling = analyse(pruned, coupling.policy)
    pruned, moved = reorder(pruned, coupling, targets_of(coupling, order, open_))
    return pruned, cuts.then(moved)


def coupling_of(program: Program, plan: PruningPlan, open_: Collection[str] = ()) -> tuple[Coupling, Removed]:
    """The analysis that a plan of slices fits, under whichever policy it was made, and the classes of atoms that go.

    What goes of the tensors that are ``open_`` isn't held against the plan.

    Raises:
        InputError: The plan fits under no policy.
    """
    first: InputError | None = None
    for attention, grouped in itertools.product(ATTENTION, GROUPED):
        coupling = analyse(program, Policy(attention, grouped))
        try:
            return coupling, _removed_by(coupling, plan, open_)
        except InputError as error:
            first = first or error
    assert first is not None
    raise first


def plan_of(coupling: Coupling, removed: Removed) -> PruningPlan:
    """The plan that removes these classes of atoms from the network's own tensors."""
    kept = _cuts(coupling, removed, constants=False)
    sizes = {name: {dim: len(coupling.slots[name, dim]) for dim in dims} for name, dims in kept.items()}
    return PruningPlan(kept, sizes_in_code(coupling, removed), dense_sizes=sizes)


def _cuts(coupling: Coupling, removed: Removed, constants: bool) -> dict[str, dict[int, list[int]]]:
    """Kept indices of every tensor that shrinks, among the constants in the network's code or among the others."""
    kept: dict[str, dict[int, list[int]]] = {}
    for (name, dim), atoms in coupling.slots.items():
        gone = removed[coupling.roots[atoms]]
        if (name in coupling.constants) == constants and gone.any():
            kept.setdefault(name, {})[dim] = np.flatnonzero(~gone).tolist()
    return kept


def _removed_by(coupling: Coupling, plan: PruningPlan, open_: Collection[str]) -> Removed:
    removed = np.zeros(len(coupling.roots), dtype=bool)
    asked: dict[str, dict[int, list[int]]] = {}
    for name, dims in plan.kept.items():
        for dim, indices in dims.items():
            atoms = coupling.slots.get((name, dim))
            if atoms is not None:
                plan.check_size(name, dim, len(atoms))
            if atoms is None or (indices and max(indices) >= len(atoms)):
                raise _disagreement(name, dim)
            if len(indices) < len(atoms):
                asked.setdefault(name, {})[dim] = sorted(indices)
            gone = coupling.roots[np.delete(atoms, indices)]
            if coupling.is_frozen[gone].any():
                raise _disagreement(name, dim)
            removed[gone] = True
    for piece in coupling.ties.pieces:
        if piece.size and removed[coupling.roots[piece]].all():
            raise InputError("The plan removes every channel of a part that the network cuts out of a tensor.")
    implied = plan_of(coupling, removed).kept
    for name in (implied.keys() | asked.keys()) - set(open_):
        ours, theirs = implied.get(name, {}), asked.get(name, {})
        if ours != theirs:
            raise _disagreement(name, next(dim for dim in {**ours, **theirs} if ours.get(dim) != theirs.get(dim)))
    return removed


def _disagreement(name: str, dim: int) -> InputError:
    return misfit(
        f"The plan doesn't fit this network: its indices for dimension {dim} of {name} disagree with the slices "
        "that are coupled to it."
    )


def remove(program: Program, coupling: Coupling, plan: PruningPlan, removed: Removed) -> Program:
    """The program without these classes of atoms, of which `plan_of` made the plan; the input stays as it is."""
    graph = copied_graph(program.graph)
    twins = dict(zip(program.graph.nodes, graph.nodes, strict=True))
    shrunk = _Shrunk(coupling, removed)
    for node, twin in twins.items():
        value = coupling.values.get(node)
        if value:
            for key in ("shapes", "sample_shapes"):
                twin.meta[key] = shrunk.shapes(twin.meta[key], value)
    _rewrite_sizes(coupling, twins, shrunk)
    everything = PruningPlan({**plan.kept, **_cuts(coupling, removed, constants=True)})
    pruned = program.with_tensors(everything.select_all(program.tensors()), graph)
    pruned.masks = {name: plan.select(name, mask) for name, mask in program.masks.items()}
    return pruned


@dataclass(frozen=True, eq=False)
class _Shrunk:
    """Sizes after the removal."""

    coupling: Coupling
    removed: Removed
    #: Kept numbers by the identity of the atoms, which most labels share with the labels that they were made from.
    counts: dict[int, int] = field(default_factory=dict)

    @cached_property
    def gone(self) -> NDArray[np.bool_]:
        """Whether each atom goes."""
        return self.removed[self.coupling.roots]

    def kept(self, channels: Channels) -> int:
        atoms = channels.atoms
        if id(atoms) not in self.counts:
            self.counts[id(atoms)] = len(atoms) - int(np.count_nonzero(self.gone[atoms]))
        return self.counts[id(atoms)]

    def loses(self, label: Label) -> bool:
        return any(self.kept(channels) < len(channels) for channels in parts(label))

    def size(self, size: int, label: Channels | Packed) -> int:
        for channels in parts(label):
            size = size // len(channels) * self.kept(channels)
        return size

    def shapes(self, shapes: Shapes, value: Value) -> Shapes:
        if isinstance(value, list):
            assert isinstance(shapes, list)
            return [self.shapes(shape, item) for shape, item in zip(shapes, value, strict=True)]
        if value is None or shapes is None:
            return shapes
        pairs: Any = zip(shapes, value, strict=True)
        return tuple(size if label is None else self.size(size, label) for size, label in pairs)


def _rewrite_sizes(coupling: Coupling, twins: dict[Node, Node], shrunk: _Shrunk) -> None:
    for follow in coupling.ties.follows:
        twin = twins[follow.node]
        if operator_name(twin.target) in EVEN_SPLITS:
            _make_sizes_explicit(twin)
        value: Any = -1 if isinstance(follow.label, Packed) else shrunk.kept(follow.label) // follow.per
        if follow.index is not None:
            sizes = list(arguments(twin)[follow.argument])
            sizes[follow.index] = value
            value = sizes
        set_argument(twin, follow.argument, value)
    for pinned in coupling.ties.pinned:
        if shrunk.loses(pinned.label):
            set_argument(twins[pinned.node], pinned.argument, pinned.value)


def sizes_in_code(coupling: Coupling, removed: Removed) -> dict[str, list[str]]:
    """Modules whose own Python code may hold sizes that follow the pruned channels, with the operators that take them.

    Layers of torch hold theirs in attributes, which `apply_plan` corrects.
    """
    shrunk = _Shrunk(coupling, removed)
    holders = [f.node for f in coupling.ties.follows if not _in_attributes(f.node) and shrunk.loses(f.label)]
    holders += [pinned.node for pinned in coupling.ties.pinned if shrunk.loses(pinned.label)]
    holders += [f.node for f in coupling.ties.follows if shrunk.loses(_counted_from_its_end(coupling, f.node))]
    for node, value in coupling.values.items():
        is_constant = node.op == "get_attr" and node.target in coupling.constants
        if is_constant and any(map(shrunk.loses, axes(value))):
            holders += node.users
    operators_of: dict[str, list[str]] = {}
    for node in holders:
        operators = operators_of.setdefault(module_path(node), [])
        if operator_name(node.target) not in operators:
            operators.append(operator_name(node.target))
    return operators_of


def _in_attributes(node: Node) -> bool:
    """Whether an operator's sizes are attributes of a layer, which `apply_plan` corrects if the layer has a weight."""
    is_layer = operator_name(node.target) in _OF_LAYERS and node.meta["in_layer"]
    return is_layer and arguments(node)["weight"] is not None


def _counted_from_its_end(coupling: Coupling, node: Node) -> Label:
    """The axis that a slice counts from its end, so that channels which go behind it move its bounds."""
    if operator_name(node.target) != "slice":
        return None
    bound = arguments(node)
    is_negative = any(isinstance(bound[name], int) and bound[name] < 0 for name in ("start", "end"))
    return coupling.ties.of(bound["self"])[int(bound["dim"])] if is_negative else None


def _make_sizes_explicit(node: Node) -> None:
    """Make ``split`` and ``chunk``, which know one size of pieces only, a ``split_with_sizes``."""
    bound = arguments(node)
    sizes = [shape[bound["dim"]] for shape in node.meta["shapes"]]
    node.target = torch.ops.aten.split_with_sizes.default
    node.args, node.kwargs = (bound["self"], sizes, bound["dim"]), {}
