"""Apply a plan to a program: slice tensors and masks, rewrite every argument that holds a size."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.coupling import Coupling, analyse
from prunec.passes.errors import InputError
from prunec.passes.graphs import Shapes, arguments, operator_name, set_argument
from prunec.passes.labels import Atoms, Follow, Value
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program, copied_graph

#: For every class of atoms, at its root, whether it goes.
Removed = NDArray[np.bool_]


def apply_plan_to_program(program: Program, plan: PruningPlan) -> Program:
    """The program without the slices that the plan leaves out.

    Raises:
        InputError: the plan was made for another network.
    """
    coupling = analyse(program)
    return remove(program, coupling, plan, _removed_by(coupling, plan))


def plan_of(coupling: Coupling, removed: Removed) -> PruningPlan:
    """The plan that removes these classes of atoms."""
    kept: dict[str, dict[int, list[int]]] = {}
    for (name, dim), atoms in coupling.slots.items():
        gone = removed[coupling.roots[atoms]]
        if gone.any():
            kept.setdefault(name, {})[dim] = np.flatnonzero(~gone).tolist()
    return PruningPlan(kept)


def _removed_by(coupling: Coupling, plan: PruningPlan) -> Removed:
    removed = np.zeros(len(coupling.roots), dtype=bool)
    for name, dims in plan.kept.items():
        for dim, indices in dims.items():
            atoms = coupling.slots.get((name, dim))
            if atoms is None or (indices and max(indices) >= len(atoms)):
                raise _misfit(name, dim)
            gone = coupling.roots[np.delete(atoms, indices)]
            if coupling.is_frozen[gone].any():
                raise _misfit(name, dim)
            removed[gone] = True
    for piece in coupling.ties.pieces:
        if piece.size and removed[coupling.roots[piece]].all():
            raise InputError("The plan removes every channel of a part that the network cuts out of a tensor.")
    implied = plan_of(coupling, removed).kept
    for name in implied.keys() | plan.kept.keys():
        if implied.get(name) != plan.kept.get(name):
            dims = {**implied.get(name, {}), **plan.kept.get(name, {})}
            raise _misfit(name, next(d for d in dims if implied.get(name, {}).get(d) != plan.kept.get(name, {}).get(d)))
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
    for node, twin in twins.items():
        value = coupling.values.get(node)
        if value is not None:
            for key in ("shapes", "sample_shapes"):
                twin.meta[key] = _shrink(twin.meta[key], value, coupling.roots, removed)
    _rewrite_sizes(coupling, twins, removed)
    pruned = program.with_tensors(plan.select_all(program.tensors()), graph)
    pruned.masks = {name: plan.select(name, mask) for name, mask in program.masks.items()}
    return pruned


def _kept(label: Atoms, roots: Atoms, removed: Removed) -> int:
    return int(np.count_nonzero(~removed[roots[label]]))


def _shrink(shapes: Shapes, value: Value, roots: Atoms, removed: Removed) -> Shapes:
    if isinstance(value, list):
        assert isinstance(shapes, list)
        return [_shrink(shape, item, roots, removed) for shape, item in zip(shapes, value, strict=True)]
    if value is None or shapes is None:
        return shapes
    pairs: Any = zip(shapes, value, strict=True)
    return tuple(size if label is None else _kept(label, roots, removed) for size, label in pairs)


def _rewrite_sizes(coupling: Coupling, twins: dict[Node, Node], removed: Removed) -> None:
    by_node: dict[Node, list[Follow]] = {}
    for follow in coupling.follows:
        by_node.setdefault(follow.node, []).append(follow)
    for node, follows in by_node.items():
        twin = twins[node]
        if operator_name(node.target) in ("split", "chunk"):
            _make_sizes_explicit(twin)
        for follow in follows:
            size = _kept(follow.label, coupling.roots, removed) // follow.per
            if follow.index is None:
                set_argument(twin, follow.argument, size)
            else:
                sizes = list(arguments(twin)[follow.argument])
                sizes[follow.index] = size
                set_argument(twin, follow.argument, sizes)


def _make_sizes_explicit(node: Node) -> None:
    """``split`` and ``chunk`` know one piece size only: make them ``split_with_sizes``."""
    bound = arguments(node)
    axis = bound["dim"]
    sizes = [shape[axis] for shape in node.meta["shapes"]]
    node.target = torch.ops.aten.split_with_sizes.default
    node.args = (bound["self"], sizes, axis)
    node.kwargs = {}
