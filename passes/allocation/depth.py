"""Depth as a choice beside widths: branches go as long as the goals are then met at less importance lost.

Every removal is tried on the program without the branch, with its own analysis and workload, so that nothing is
estimated but the order in which branches are tried: by the importance that each loses for what it saves of the goals.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.allocator import Allocated, Allocator
from prunec.passes.allocation.branch_parts import Worth, removable_branches
from prunec.passes.allocation.budgets import Budget, budgets_of, out_of_reach
from prunec.passes.allocation.goals import Allocation
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.allocation.space import Widths
from prunec.passes.branch_removal import removal
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.counting import work_of
from prunec.passes.criteria.evidence import evidence_for
from prunec.passes.criteria.protocol import ScoresUnits
from prunec.passes.errors import OutOfReachError, UnsupportedModelError, UsageError
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
        loss: What is lost with all that goes, by the allocation's measure; infinite where no widths meet the goals.
        allocated: The widths; None where none meet the goals.
    """

    program: Program
    allocator: Allocator
    removed: tuple[RemovedBranch, ...]
    loss: float
    allocated: Allocated | None

    def is_better(self, other: "Shallower") -> bool:
        """Whether less is lost; while no widths meet the goals, any branch that goes brings them nearer."""
        return self.loss < other.loss or (self.allocated is None and other.allocated is None)


def choose_depth(
    program: Program, options: "PruneFilters", costs: CostModel | None, sizes: ChosenSizes | None = None
) -> Shallower:
    """The branches and widths that `PruneFilters` chooses with ``depth``, or ``sizes`` that were chosen for it before.

    What is told of them is of the whole network, whatever is left of it.

    Raises:
        UsageError: The goals can't be reached, or the criterion needs more than weights, or gives what is no score.
        UnsupportedModelError: No group can be pruned.
    """
    if options.needs:
        raise UsageError(
            f"depth=true compares branches by a criterion of weights, and {options.criterion} needs data.",
            hint="For example criterion=l1.",
        )
    first = Allocator.of(program, options, costs)
    budgets = budgets_of(first.goals_of(options), costs, first.workload.at(first.dense_widths))
    worth = worth_of(program, first, options)
    search = _Search(options, budgets, worth)
    state = search.best(program, first) if sizes is None else search.given(program, costs, sizes)
    if state.allocated is None:
        raise out_of_reach(budgets, state.allocator.least)
    lost = worth.share(worth.kept(state.program, state.allocator, state.allocated.widths))
    told = replace(state.allocated, importance_lost=lost, dense=first.dense)
    return replace(state, allocated=told)


def worth_of(program: Program, allocator: Allocator, options: "PruneFilters") -> Worth:
    """The worth of a program's units by the criterion of some options with ``depth``."""
    criterion = allocator.criterion
    assert isinstance(criterion, ScoresUnits), "PruneFilters refuses depth with others"
    return Worth.of(program, criterion, allocator, evidence_for(criterion, program, None, options.seed or 0))


@dataclass(frozen=True, eq=False)
class _Search:
    """What stays the same whatever branches go: the options, the budgets of the whole network, and its worth."""

    options: "PruneFilters"
    budgets: tuple[Budget, ...]
    worth: Worth

    def best(self, program: Program, allocator: Allocator) -> Shallower:
        """The state from which no branch that goes brings less to be lost, from the whole program on."""
        state = self._state(program, allocator, ())
        while True:
            trials = stoppable(self._trials(state))
            better = next((trial for trial in trials if trial.is_better(state)), None)
            if better is None:
                return state
            state = better

    def given(self, program: Program, costs: CostModel | None, sizes: ChosenSizes) -> Shallower:
        """The state of sizes that were chosen before."""
        left, removed = removal(program, sizes.branches)
        allocator = Allocator.of(left, self.options, costs)
        return self._state(left, allocator, removed, allocator.scope.widths_of(sizes))

    def _state(
        self, program: Program, allocator: Allocator, removed: tuple[RemovedBranch, ...], widths: Widths | None = None
    ) -> Shallower:
        """The widths that meet the goals of the whole network in a program without some branches."""
        try:
            allocated = allocator.within(self.budgets, self.allocation, widths)
        except OutOfReachError:
            return Shallower(program, allocator, removed, math.inf, None)
        loss = self._loss(self.worth.kept(program, allocator, allocated.widths))
        return Shallower(program, allocator, removed, loss, allocated)

    @property
    def allocation(self) -> Allocation:
        """How widths are chosen."""
        return "balanced" if self.options.allocation == "auto" else self.options.allocation

    def _loss(self, kept: NDArray[np.float64]) -> float:
        """What is lost where so much is kept of each group: measured as widths are chosen."""
        return (self.worth.lost_in_product if self.allocation == "balanced" else self.worth.lost_in_sum)(kept)

    def _trials(self, state: Shallower) -> Iterator[Shallower]:
        """The states with one branch less, those first that lose the least for what they save of the budgets."""
        kept_whole = expand_roles(state.program.graph, (*self.options.ignore, *self.options.freeze))
        before, trials = self._loss(self.worth.kept(state.program)), []
        for branch in removable_branches(state.program, kept_whole):
            if branch.removed.zeroed or not self.options.for_module:
                left, removed = removal(state.program, [branch.name])
                if (saved := self._saved(state.program, left)) > 0:
                    lost = self._loss(self.worth.kept(left)) - before
                    trials.append((lost / saved, left, removed))
        for _, left, removed in sorted(trials, key=lambda each: each[0])[:_TRIED]:
            try:
                allocator = Allocator.of(left, self.options, state.allocator.costs)
            except UnsupportedModelError:
                continue  # it has no filters left to choose from
            yield self._state(left, allocator, (*state.removed, *removed))

    def _saved(self, program: Program, left: Program) -> float:
        """What is saved of the budgets, each as a part of its limit."""
        before, after = work_of(program), work_of(left)
        return sum(float(b.quantity.usage(before) - b.quantity.usage(after)) / b.limit for b in self.budgets)
