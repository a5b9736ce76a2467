"""Widths for goals: what is prepared once for a program, and what is chosen for each set of goals."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from prunec.passes.allocation.budgets import MACS, Budget, budgets_of, latency, out_of_reach, quantities
from prunec.passes.allocation.by_error import NeededUnits, by_error, needs_of
from prunec.passes.allocation.comparability import check_compares
from prunec.passes.allocation.fastest import fastest
from prunec.passes.allocation.goals import Allocation, Goals
from prunec.passes.allocation.greedy import greedy
from prunec.passes.allocation.importance import GroupScores, Importance, scores_of
from prunec.passes.allocation.plateaus import widest_as_fast
from prunec.passes.allocation.ranking import global_ranking
from prunec.passes.allocation.scope import Scope
from prunec.passes.allocation.space import Space, Widths
from prunec.passes.allocation.uniform import uniform
from prunec.passes.base import Aim
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.counting import workload_of
from prunec.passes.costs.workload import Workload
from prunec.passes.criteria.catalogue import unit_criterion
from prunec.passes.criteria.evidence import Evidence, evidence_for
from prunec.passes.criteria.protocol import Criterion, ScoresUnits, SizesUnits
from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from prunec.passes.ratios import Rounding, exact

if TYPE_CHECKING:
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True, eq=False)
class Allocated:
    """Widths that were chosen for goals.

    Attributes:
        allocation: How they were chosen: "uniform", "global", "greedy", "balanced", "provable" or
            "joint", whose figures are those with the ranks that go with the widths.
        widths: Units kept in each prunable group, int64 (groups,).
        importance_lost: Share of the importance of all units that is lost; None where the criterion only selects, or
            gives scores that are not finite.
        dense: What the network used: "macs", "parameters", and with a cost model "latency_ms", as that predicts it.
        figures: What the widths use.
        least: The least of each quantity that is possible: of counts at the least widths, of time at the fastest ones.
        budgets: What had to hold.
    """

    allocation: Allocation
    widths: Widths
    importance_lost: float | None
    dense: Mapping[str, float]
    figures: Mapping[str, float]
    least: Mapping[str, float]
    budgets: tuple[Budget, ...]

    @property
    def aim(self) -> Aim:
        """What was asked for and reached, of the goal of which the most is used; the others are met too."""
        budget = max(self.budgets, key=lambda each: self.figures[each.quantity.name] / each.limit)
        return budget.aim(self.figures[budget.quantity.name])

    def told(self) -> dict[str, Any]:
        """All but the widths as plain JSON values."""
        return {
            "allocation": self.allocation,
            "importance_lost": self.importance_lost,
            "goals": {budget.goal: budget.asked for budget in self.budgets},
            "dense": dict(self.dense),
            "predicted": dict(self.figures),
            "least": dict(self.least),
        }


@dataclass(frozen=True, eq=False)
class Allocator:
    """What all allocations for one program share, whatever the goals are.

    Attributes:
        scope: The groups.
        rounding: Rounding of the widths.
        workload: The work as a function of the widths.
        costs: The cost model; None where only MACs and parameters count.
        criterion: The criterion.
        scores: Its scores of the groups that are pruned, by their position; none where it only selects.
        needs: The units that these groups need for an error; none where the criterion doesn't say.
    """

    scope: Scope
    rounding: Rounding
    workload: Workload
    costs: CostModel | None
    criterion: Criterion
    scores: GroupScores
    needs: NeededUnits

    @classmethod
    def of(
        cls, program: Program, options: "PruneFilters", costs: CostModel | None = None, evidence: Evidence | None = None
    ) -> "Allocator":
        """Prepare the allocations for a program by options, of which the goals don't matter.

        Raises:
            UsageError: A glob matches nothing, or the criterion needs evidence and there is none, or gives what is no
                score.
            UnsupportedModelError: No group can be pruned.
        """
        criterion = unit_criterion(options.criterion, options.name)
        evidence = evidence_for(criterion, program, evidence, options.seed or 0)
        scope = Scope.of(program, options)
        groups = dict(zip(scope.positions, scope.groups, strict=True))
        scores: GroupScores = {}
        needs: NeededUnits = {}
        if isinstance(criterion, ScoresUnits):
            scores = {position: scores_of(criterion, group, evidence) for position, group in groups.items()}
        if isinstance(criterion, SizesUnits):
            needs = {position: needs_of(criterion, group, evidence) for position, group in groups.items()}
        return cls(scope, options.rounding, workload_of(program, scope.coupling), costs, criterion, scores, needs)

    @cached_property
    def importance(self) -> Importance:
        """The importance of the units.

        Raises:
            UsageError: A score is not finite.
        """
        return Importance.of(self.criterion, self.scope.coupling.groups, self.scores, self.workload)

    def importance_lost(self, widths: Widths) -> float | None:
        """Share of all importance that is lost at some widths; None where units of groups can't be compared."""
        is_known = self.scores and all(np.isfinite(each).all() for each in self.scores.values())
        return float(self.importance.in_sum.lost(widths)) if is_known else None

    def figures(self, widths: Widths) -> dict[str, float]:
        """What some widths use, by the name of each `Quantity`."""
        work = self.workload.at(widths)
        return {quantity.name: float(quantity.usage(work)) for quantity in quantities(self.costs)}

    @property
    def dense_widths(self) -> Widths:
        """All units of every group."""
        return self._space(()).dense

    @cached_property
    def dense(self) -> Mapping[str, float]:
        """What the network uses before it is pruned, without 2:4."""
        work = self.workload.at(self.dense_widths)
        return {quantity.name: float(quantity.dense_usage(work)) for quantity in quantities(self.costs)}

    @cached_property
    def least(self) -> Mapping[str, float]:
        """The least of each quantity that is possible: of counts at the least widths, of time at the fastest ones."""
        space = self._space(())
        figures = self.figures(space.least)
        if self.costs is None:
            return figures
        time = latency(self.costs)
        return figures | {time.name: self.figures(fastest(space, time))[time.name]}

    def goals_of(self, options: "PruneFilters") -> Goals:
        """The goals of some options: of one ratio the MACs that it would leave in every group."""
        if not isinstance(options.ratio, int | float):
            return options.goals
        macs = self.figures(self._space(()).at(exact(options.ratio)))[MACS.name]
        return Goals(speedup=max(1.0, self.dense[MACS.name] / macs))

    def space(self, goals: Goals) -> Space:
        """The widths that may be chosen for goals, with the budgets that they must keep.

        Raises:
            OutOfReachError: No widths keep them.
            UsageError: A goal needs a cost model and there is none.
        """
        space = self._space(budgets_of(goals, self.costs, self.workload.at(self.dense_widths)))
        self._reach(space)
        return space

    def allocate(self, goals: Goals, allocation: Allocation = "auto", widths: Widths | None = None) -> Allocated:
        """Choose widths that meet all goals, or take those that were chosen for them before.

        Raises:
            UsageError: A goal is out of reach, or needs a cost model and there is none, or the allocation compares
                groups by scores that the criterion doesn't give, or asks for numbers of units that it doesn't tell.
            InputError: The cost model gives the network no time that could be saved.
        """
        check_compares(allocation, self.criterion)
        budgets = budgets_of(goals, self.costs, self.workload.at(self.dense_widths))
        return self.within(budgets, self._auto(goals) if allocation == "auto" else allocation, widths)

    def within(self, budgets: tuple[Budget, ...], allocation: Allocation, widths: Widths | None = None) -> Allocated:
        """Choose widths that keep budgets, which may be those of a larger network, by an allocation other than "auto".

        Raises:
            OutOfReachError: No widths do.
            UsageError: The allocation compares groups by scores that are not finite.
        """
        space = self._space(budgets)
        widths = self._widths(space, allocation) if widths is None else widths
        lost = self.importance_lost(widths)
        return Allocated(allocation, widths, lost, self.dense, self.figures(widths), self.least, budgets)

    def _space(self, budgets: tuple[Budget, ...]) -> Space:
        used = [budget.quantity for budget in budgets] if self.costs is None else quantities(self.costs)
        workload = self.workload.only(frozenset[str]().union(*(quantity.counts for quantity in used)))
        return Space(self.scope.coupling.groups, self.scope.positions, self.rounding, workload, budgets)

    def _auto(self, goals: Goals) -> Allocation:
        if self.needs:
            return "provable"
        return "balanced" if goals.needs_costs and self.scores else "uniform"

    def _widths(self, space: Space, allocation: Allocation) -> Widths:
        reach = self._reach(space)
        if allocation == "uniform":
            widths = uniform(space, reach)
        elif allocation == "global":
            widths = global_ranking(space, self.importance, reach)
        elif allocation == "provable":
            widths = by_error(space, self.needs, reach)
        elif allocation == "joint":
            raise UsageError(
                "allocation=joint chooses ranks with the widths: widths alone can't be told.",
                hint="Compile with it, or use another allocation.",
            )
        else:
            in_sum = allocation == "greedy"
            widths = greedy(space, self.importance.in_sum if in_sum else self.importance.in_product, reach)
        return widths if self.costs is None else widest_as_fast(space, latency(self.costs), widths)

    def _reach(self, space: Space) -> Widths:
        """Widths that keep all budgets: the least ones, or where these aren't fast enough the fastest.

        Raises:
            UsageError: None do.
        """
        if space.fits(space.least):
            return space.least
        least, counts = self.least, [budget for budget in space.budgets if budget.quantity.name != "latency_ms"]
        if self.costs is not None and all(budget.holds(least) for budget in counts):
            reach = fastest(space, latency(self.costs))
            if space.fits(reach):
                return reach
            least = {**least, "latency_ms": self.figures(reach)["latency_ms"]}
        raise out_of_reach(space.budgets, least)
