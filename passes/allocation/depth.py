"""Depth as a choice beside widths: branches go as long as the goals are then met at less importance lost.

Every removal is tried on the program without the branch, with its own analysis and workload, so that nothing is
estimated but the order in which branches are tried: by the importance that each loses for what it saves of the goals.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from prunec.passes.allocation.allocator import Allocated, Allocator
from prunec.passes.allocation.branch_parts import BranchParts, branches_of
from prunec.passes.allocation.budgets import Budget, budgets_of, out_of_reach
from prunec.passes.allocation.goals import Goals
from prunec.passes.branch_removal import removal
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.criteria.evidence import evidence_for
from prunec.passes.criteria.protocol import ScoresUnits
from prunec.passes.errors import UnsupportedModelError, UsageError
from prunec.passes.interruption import stoppable
from prunec.passes.plan import RemovedBranch
from prunec.passes.program import Program
from prunec.passes.roles import expand_roles

if TYPE_CHECKING:
    from prunec.passes.prune_filters import PruneFilters

#: Branches that are tried in each round before widths alone are kept.
_TRIED = 3


@dataclass(frozen=True, eq=False)
class Shallower:
    """A program without some of its branches, and the widths that meet the goals there.

    Attributes:
        program: The program.
        allocator: What is prepared for it.
        removed: The branches that are gone.
        lost: Normalised importance of what is gone and of the units that go; infinite where no widths meet the goals.
        gone: The part of it that the branches are.
        allocated: The widths; None where none meet the goals.
    """

    program: Program
    allocator: Allocator
    removed: tuple[RemovedBranch, ...]
    gone: float
    lost: float
    allocated: Allocated | None


def choose_depth(program: Program, options: "PruneFilters", costs: CostModel | None) -> Shallower:
    """The branches and widths that `PruneFilters` chooses with ``depth``.

    Raises:
        UsageError: The goals can't be reached, or the criterion needs more than weights.
        UnsupportedModelError: No group can be pruned.
    """
    if options.needs:
        raise UsageError(
            f"depth=true compares branches by a criterion of weights, and {options.criterion} needs data.",
            hint="For example criterion=l1.",
        )
    first = Allocator.of(program, options, costs)
    dense = first.workload.at(first.dense_widths)
    budgets = budgets_of(options.goals, costs, dense)
    state = _widths(program, first, (), 0.0, budgets, options)
    while True:
        trials = stoppable(_trials(state, budgets, options))
        better = next((trial for trial in trials if _is_better(trial, state)), None)
        if better is None:
            break
        state = better
    if state.allocated is None:
        raise out_of_reach(budgets, state.allocator.least)
    share = state.lost / max(_total(first), 1e-300)
    told = replace(state.allocated, importance_lost=share, dense=first.dense, budgets=budgets)
    return replace(state, allocated=told)


def _is_better(trial: Shallower, state: Shallower) -> bool:
    """Whether less is lost; while no widths meet the goals, any branch that goes brings them nearer."""
    return trial.lost < state.lost or (state.allocated is None and trial.allocated is None)


def _trials(state: Shallower, budgets: tuple[Budget, ...], options: "PruneFilters") -> Iterator[Shallower]:
    allocator = state.allocator
    globs = expand_roles(state.program.graph, (*options.ignore, *options.freeze))
    parts = branches_of(state.program, allocator.scope.coupling, allocator.workload, globs)
    priced = [(price, each) for each in parts if (price := _price(each, state, budgets, options)) is not None]
    for (_, gone), each in sorted(priced, key=lambda pair: pair[0])[:_TRIED]:
        program, removed = removal(state.program, [each.branch.name])
        try:
            next_allocator = Allocator.of(program, options, allocator.costs)
        except UnsupportedModelError:
            continue  # it has no filters left to choose from
        yield _widths(program, next_allocator, (*state.removed, *removed), state.gone + gone, budgets, options)


def _price(
    parts: BranchParts, state: Shallower, budgets: tuple[Budget, ...], options: "PruneFilters"
) -> tuple[float, float] | None:
    """Importance lost for what is saved of the budgets, and the importance; None where nothing is or it may not go."""
    allocator, criterion = state.allocator, state.allocator.criterion
    if (options.for_module and not parts.branch.removed.zeroed) or not isinstance(criterion, ScoresUnits):
        return None
    work = allocator.workload.at(allocator.dense_widths)
    left = work.of_operations(~parts.operations)
    saved = sum(float(b.quantity.usage(work) - b.quantity.usage(left)) / b.limit for b in budgets)
    if saved <= 0:
        return None
    evidence = evidence_for(criterion, state.program, None, options.seed or 0)
    lost = parts.importance(criterion, allocator.scope.coupling.groups, evidence, allocator.scores)
    return lost / saved, lost


def _widths(
    program: Program,
    allocator: Allocator,
    removed: tuple[RemovedBranch, ...],
    gone: float,
    budgets: tuple[Budget, ...],
    options: "PruneFilters",
) -> Shallower:
    """The widths that meet the goals of the whole network in a program."""
    try:
        allocated = allocator.allocate(_left(budgets, allocator), options.allocation)
    except UsageError:
        return Shallower(program, allocator, removed, gone, float("inf"), None)
    lost = gone + (allocated.importance_lost or 0.0) * _total(allocator)
    return Shallower(program, allocator, removed, gone, lost, allocated)


def _left(budgets: tuple[Budget, ...], allocator: Allocator) -> Goals:
    """The goals of the whole network as goals of what is left of it."""
    asked = {}
    for budget in budgets:
        is_factor = budget.goal.endswith("speedup")
        now = allocator.dense[budget.quantity.name]
        asked[budget.goal] = max(1.0, budget.asked * now / budget.dense) if is_factor else budget.asked
    return Goals(**{field.name: asked[field.name] for field in fields(Goals) if field.name in asked})  # type: ignore[arg-type]


def _total(allocator: Allocator) -> float:
    return sum(float(ranked.sum()) for ranked in allocator.importance.ranked.values())
