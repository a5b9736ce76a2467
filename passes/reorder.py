"""Permute the channels of coupled groups: the same function, in another order of its channels.

An order is a plan that keeps all indices. It is consistent by construction: every class of coupled slices has one
target, which is applied to every tensor that has slices of the class.
"""

from collections.abc import Collection

import numpy as np

from prunec.passes.coupling import Coupling
from prunec.passes.labels import Atoms
from prunec.passes.plan import PruningPlan, misfit
from prunec.passes.program import Program

#: The class that takes the place of each class of atoms, at the root of the latter.
Targets = Atoms


def unmoved(coupling: Coupling) -> Targets:
    """Targets that leave every channel where it is."""
    return np.arange(len(coupling.roots), dtype=np.int64)


def reorder(program: Program, coupling: Coupling, targets: Targets) -> tuple[Program, PruningPlan]:
    """The program with its channels in another order, and the plan that says which.

    Classes go only to places of classes of the same group.
    """
    orders = _orders(coupling, targets)
    own = {name: dims for name, dims in orders.items() if name not in coupling.constants}
    sizes = {name: {dim: len(order) for dim, order in dims.items()} for name, dims in own.items()}
    plan = PruningPlan(own, rewritten_by=program.rewritten_by, dense_sizes=sizes)
    result = program.with_tensors(PruningPlan(orders).select_all(program.tensors()))
    result.masks = {name: plan.select(name, mask) for name, mask in program.masks.items()}
    return result, plan


def targets_of(coupling: Coupling, plan: PruningPlan, open_: Collection[str] = ()) -> Targets:
    """The targets behind a plan that keeps everything; what it does to tensors that are ``open_`` isn't told by it.

    Raises:
        InputError: The plan tears coupled slices apart, or moves frozen ones.
    """
    targets = unmoved(coupling)
    for name, dims in plan.kept.items():
        for dim, indices in dims.items():
            roots = coupling.roots[coupling.slots[name, dim]]
            targets[roots] = roots[indices]
    moved = targets != unmoved(coupling)
    beside = {*coupling.constants, *open_}
    orders = {name: dims for name, dims in _orders(coupling, targets).items() if name not in beside}
    if coupling.is_frozen[moved].any() or orders != plan.kept:
        raise misfit(
            "The plan doesn't fit this network: it puts channels in another order than those that are coupled to them."
        )
    return targets


def _orders(coupling: Coupling, targets: Targets) -> dict[str, dict[int, list[int]]]:
    """The index that comes to each place, by tensor and dimension, of every tensor that changes.

    Where a class has several slices in a dimension, they keep their order among themselves.
    """
    orders: dict[str, dict[int, list[int]]] = {}
    for (name, dim), atoms in coupling.slots.items():
        roots = coupling.roots[atoms]
        wanted = targets[roots]
        if not np.array_equal(wanted, roots):
            order = np.empty(len(roots), dtype=np.int64)
            order[np.argsort(wanted, kind="stable")] = np.argsort(roots, kind="stable")
            orders.setdefault(name, {})[dim] = order.tolist()
    return orders
