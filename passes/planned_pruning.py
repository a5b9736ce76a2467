"""Filter pruning by a given plan, in place of choosing widths and units."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.base import Aim, PassResult
from prunec.passes.branch_removal import without_branches
from prunec.passes.coupling import Coupling
from prunec.passes.decomposition import low_rank_layers
from prunec.passes.factorizing import factorized, with_ranks
from prunec.passes.filter_pruning import pruning_stats
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.rewrite import Removed, coupling_of, plan_of, remove


def prune_by_plan(program: Program, plan: PruningPlan) -> PassResult:
    """Remove what a plan leaves out; the order in which it keeps the rest is left to whoever orders channels.

    Raises:
        InputError: The plan was made for another network.
    """
    plan.check_decomposed(program.tensors())
    shallower = without_branches(program, plan.removed_branches)
    coupling, removed = coupling_of(shallower, plan.cuts)
    cuts = replace(plan_of(coupling, removed), rewritten_by=program.rewritten_by)
    pruned = remove(shallower, coupling, cuts, removed)
    done = with_ranks(replace(cuts, removed_branches=plan.removed_branches), program, plan.ranks)
    widths = _widths(coupling, removed)
    gone = sum(group.count for group in coupling.groups) - int(widths.sum())
    smaller = factorized(pruned, plan.ranks)
    stats = pruning_stats(program, smaller, coupling, widths) | {"low_rank": low_rank_layers(pruned, plan.ranks)}
    return PassResult(smaller, not done.is_empty, stats, done, aim=Aim("filters removed", gone, gone))


def planned_sizes(program: Program, plan: PruningPlan) -> ChosenSizes:
    """The sizes that a plan prunes to, with each group that loses any units.

    Raises:
        InputError: The plan was made for another network.
    """
    coupling, removed = coupling_of(without_branches(program, plan.removed_branches), plan.cuts)
    kept = zip(coupling.groups, _widths(coupling, removed).tolist(), strict=True)
    widths = {group.name: width for group, width in kept if width < group.count}
    return ChosenSizes(widths, tuple(branch.name for branch in plan.removed_branches), plan.ranks)


def _widths(coupling: Coupling, removed: Removed) -> NDArray[np.int64]:
    """Units kept in every group, int64 (groups,)."""
    return np.array([int((~removed[coupling.units(group)]).sum()) for group in coupling.groups], dtype=np.int64)
