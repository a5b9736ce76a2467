"""Permute the channels of coupled groups: the same function, in another order of its channels.

An order is what pruning's plans are made of, index lists, with all indices kept. It is consistent by construction: one
target for every class of coupled slices, applied to every tensor that has slices of it.
"""

import numpy as np

from prunec.passes.coupling import Coupling
from prunec.passes.errors import InputError
from prunec.passes.labels import Atoms
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program

#: For every class of atoms, at its root, the class that takes its place.
Targets = Atoms


def unmoved(coupling: Coupling) -> Targets:
    """Targets that leave every channel where it is."""
    return np.arange(len(coupling.roots), dtype=np.int64)


def reorder(program: Program, coupling: Coupling, targets: Targets) -> tuple[Program, PruningPlan]:
    """The program with its channels in another order, and the plan that says which.

    Args:
        program: the program that was analysed.
        coupling: its analysis.
        targets: classes go only to places of classes of the same group.
    """
    orders = _orders(coupling, targets)
    plan = PruningPlan({name: dims for name, dims in orders.items() if name not in coupling.constants})
    tensors = PruningPlan(orders).select_all(program.tensors())
    result = program.with_tensors(tensors)
    result.masks = {name: plan.select(name, mask) for name, mask in program.masks.items()}
    return result, plan


def targets_of(coupling: Coupling, plan: PruningPlan) -> Targets:
    """The targets behind a plan that keeps everything.

    Raises:
        InputError: it moves slices that are coupled to others apart from them, or frozen ones.
    """
    targets = unmoved(coupling)
    for name, dims in plan.kept.items():
        for dim, indices in dims.items():
            roots = coupling.roots[coupling.slots[name, dim]]
            targets[roots] = roots[indices]
    moved = targets != unmoved(coupling)
    orders = {name: dims for name, dims in _orders(coupling, targets).items() if name not in coupling.constants}
    if coupling.is_frozen[moved].any() or orders != plan.kept:
        raise InputError(
            "The plan doesn't fit this network: it puts channels in another order than those that are coupled to them.",
            hint="Apply a plan to the network that it was made for.",
        )
    return targets


def _orders(coupling: Coupling, targets: Targets) -> dict[str, dict[int, list[int]]]:
    """For every tensor that changes, per dimension the index that comes to each place.

    Where a class has several slices in a dimension, they keep their order among themselves.
    """
    orders: dict[str, dict[int, list[int]]] = {}
    for (name, dim), atoms in coupling.slots.items():
        roots = coupling.roots[atoms]
        wanted = targets[roots]
        if np.array_equal(wanted, roots):
            continue
        order = np.empty(len(roots), dtype=np.int64)
        order[np.argsort(wanted, kind="stable")] = np.argsort(roots, kind="stable")
        orders.setdefault(name, {})[dim] = order.tolist()
    return orders
