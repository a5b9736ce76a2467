"""Apply a plan to a program: slice tensors and masks, rewrite every argument that holds a size."""

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.coupling import ATTENTION, GROUPED, Coupling, Policy, analyse
from prunec.passes.errors import InputError
from prunec.passes.graphs import Shapes, arguments, module_path, operator_name, set_argument
from prunec.passes.labels import Channels, Follow, Label, Packed, Value, axes, parts
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program, copied_graph
from prunec.passes.reorder import reorder, targets_of

#: For every class of atoms, at its root, whether it goes.
Removed = NDArray[np.bool_]

#: Operators that know the size of their pieces, but not each one's.
_ONE_SIZE = ("split", "chunk", "unsafe_split", "unsafe_chunk")
#: Operators whose sizes are attributes of torch's layers.
_OF_LAYERS = (
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "layer_norm", "rms_norm",
    "group_norm",
)  # fmt: skip


def apply_plan_to_program(program: Program, plan: PruningPlan) -> Program:
    """The program without the slices that the plan leaves out, the others in its order.

    Raises:
        InputError: the plan was made for another network.
    """
    coupling, removed = coupling_of(program, plan)
    pruned = remove(program, coupling, plan_of(coupling, removed), removed)
    order = plan.order()
    if not order.kept:
        return pruned
    coupling = analyse(pruned, coupling.policy)
    return reorder(pruned, coupling, targets_of(coupling, order))[0]


def coupling_of(program: Program, plan: PruningPlan) -> tuple[Coupling, Removed]:
    """The analysis that a plan fits, under whichever policy it was made, and the classes of atoms that go.

    Raises:
        InputError: the plan fits under none.
    """
    misfit: InputError | None = None
    for attention, grouped in itertools.product(ATTENTION, GROUPED):
        coupling = analyse(program, Policy(attention, grouped))  # type: ignore[arg-type]
        try:
            return coupling, _removed_by(coupling, plan)
        except InputError as error:
            misfit = misfit or error
    assert misfit is not None
    raise misfit


def plan_of(coupling: Coupling, removed: Removed) -> PruningPlan:
    """The plan that removes these classes of atoms from the network's own tensors."""
    kept = _cuts(coupling, removed, constants=False)
    return PruningPlan(kept, sizes_in_code(coupling, removed))


def _cuts(coupling: Coupling, removed: Removed, constants: bool) -> dict[str, dict[int, list[int]]]:
    """Kept indices of every tensor that shrinks: of the constants in the network's code, or of all others."""
    kept: dict[str, dict[int, list[int]]] = {}
    for (name, dim), atoms in coupling.slots.items():
        if (name in coupling.constants) != constants:
            continue
        gone = removed[coupling.roots[atoms]]
        if gone.any():
            kept.setdefault(name, {})[dim] = np.flatnonzero(~gone).tolist()
    return kept


def _removed_by(coupling: Coupling, plan: PruningPlan) -> Removed:
    removed = np.zeros(len(coupling.roots), dtype=bool)
    asked: dict[str, dict[int, list[int]]] = {}
    for name, dims in plan.kept.items():
        for dim, indices in dims.items():
            atoms = coupling.slots.get((name, dim))
            if atoms is None or (indices and max(indices) >= len(atoms)):
                raise _misfit(name, dim)
            if len(indices) < len(atoms):
                asked.setdefault(name, {})[dim] = sorted(indices)
            gone = coupling.roots[np.delete(atoms, indices)]
            if coupling.is_frozen[gone].any():
                raise _misfit(name, dim)
            removed[gone] = True
    for piece in coupling.ties.pieces:
        if piece.size and removed[coupling.roots[piece]].all():
            raise InputError("The plan removes every channel of a part that the network cuts out of a tensor.")
    implied = plan_of(coupling, removed).kept
    for name in implied.keys() | asked.keys():
        if implied.get(name) != asked.get(name):
            dims = {**implied.get(name, {}), **asked.get(name, {})}
            raise _misfit(name, next(d for d in dims if implied.get(name, {}).get(d) != asked.get(name, {}).get(d)))
    return removed


def _misfit(name: str, dim: int) -> InputError:
    return InputError(
        f"The plan doesn't fit this network: its indices for dimension {dim} of {name} disagree with the slices "
        "that are coupled to it.",
        hint="Apply a plan to the network that it was made for.",
    )


def remove(program: Program, coupling: Coupling, plan: PruningPlan, removed: Removed) -> Program:
    """The program without these classes of atoms; the input program stays as it is.

    Args:
        program: the program that was analysed.
        coupling: its analysis.
        plan: `plan_of` the classes.
        removed: which classes go.
    """
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
    #: By the identity of atoms, which most labels share with those that they were made from.
    counts: dict[int, int] = field(default_factory=dict)

    @cached_property
    def gone(self) -> NDArray[np.bool_]:
        """For every atom whether it goes."""
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
    by_node: dict[Node, list[Follow]] = {}
    for follow in coupling.ties.follows:
        by_node.setdefault(follow.node, []).append(follow)
    for node, follows in by_node.items():
        twin = twins[node]
        if operator_name(node.target) in _ONE_SIZE:
            _make_sizes_explicit(twin)
        for follow in follows:
            packed = isinstance(follow.label, Packed)
            size = -1 if packed else shrunk.kept(follow.label) // follow.per  # type: ignore[arg-type]
            if follow.index is None:
                set_argument(twin, follow.argument, size)
            else:
                sizes = list(arguments(twin)[follow.argument])
                sizes[follow.index] = size
                set_argument(twin, follow.argument, sizes)
    for pinned in coupling.ties.pinned:
        if shrunk.loses(pinned.label):
            set_argument(twins[pinned.node], pinned.argument, pinned.value)


def sizes_in_code(coupling: Coupling, removed: Removed) -> dict[str, list[str]]:
    """Modules whose own Python code may hold sizes that follow the pruned channels, with the operators called so.

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
    found: dict[str, list[str]] = {}
    for node in holders:
        operators = found.setdefault(module_path(node), [])
        if operator_name(node.target) not in operators:
            operators.append(operator_name(node.target))
    return found


def _in_attributes(node: Node) -> bool:
    """Whether an operator's sizes are attributes of a layer, which `apply_plan` corrects if the layer has a weight."""
    is_layer = operator_name(node.target) in _OF_LAYERS and node.meta["in_layer"]
    return is_layer and arguments(node)["weight"] is not None


def _counted_from_its_end(coupling: Coupling, node: Node) -> Label:
    """The axis of which a slice's code counts from the end, so that what goes behind it moves its bounds."""
    if operator_name(node.target) != "slice":
        return None
    bound = arguments(node)
    if not any(isinstance(bound[name], int) and bound[name] < 0 for name in ("start", "end")):
        return None
    axis: int = bound["dim"]
    return coupling.ties.of(bound["self"])[axis]


def _make_sizes_explicit(node: Node) -> None:
    """``split`` and ``chunk`` know one piece size only: make them ``split_with_sizes``."""
    bound = arguments(node)
    axis = bound["dim"]
    sizes = [shape[axis] for shape in node.meta["shapes"]]
    node.target = torch.ops.aten.split_with_sizes.default
    node.args = (bound["self"], sizes, axis)
    node.kwargs = {}
