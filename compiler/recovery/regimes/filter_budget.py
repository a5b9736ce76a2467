"""The budget that filters of all groups keep together, by the pruning behind a training."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.recovery.regimes.filter_choice import Chooser
from prunec.compiler.recovery.running_hook import TrainingContext
from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.budgets import MACS
from prunec.passes.allocation.importance import Importance
from prunec.passes.allocation.ranking import global_ranking
from prunec.passes.allocation.scope import Scope
from prunec.passes.allocation.space import Space, Widths
from prunec.passes.criteria.learned import Learned
from prunec.passes.errors import UsageError
from prunec.passes.groups import Group


@dataclass(frozen=True, eq=False)
class FilterBudget:
    """What widths must keep that are chosen for all groups together, by the pruning behind a training.

    Attributes:
        scope: The groups that are pruned.
        space: The widths that may be chosen, and the budgets.
        allocator: Tells what widths use.
    """

    scope: Scope
    space: Space
    allocator: Allocator

    @classmethod
    def of(cls, training: TrainingContext, hook: str) -> "FilterBudget":
        """The budget of the goals of the pruning behind a training, or of the MACs that its ratio would leave.

        Raises:
            UsageError: No filters are pruned behind the training, or a goal is out of reach.
            UnsupportedModelError: No group can be pruned.
        """
        options = replace(Chooser.of(training, hook).pruning, criterion="l1")
        allocator = Allocator.of(training.program, options)
        assert not isinstance(options.ratio, Mapping), "the hook asks for one ranking"
        return cls(allocator.scope, allocator.space(allocator.goals_of(options)), allocator)

    def only(self, names: Collection[str], hook: str) -> "FilterBudget":
        """The same budget, kept by the groups of these names alone; the others keep all their units.

        Raises:
            UsageError: They can't keep it; `hook` is named in the message.
        """
        groups = self.space.groups
        positions = tuple(position for position in self.scope.positions if groups[position].name in names)
        alone = replace(
            self, scope=replace(self.scope, positions=positions), space=replace(self.space, chosen=positions)
        )
        if not alone.space.fits(alone.space.least):
            raise UsageError(
                f"recover: {hook} can prune {len(positions)} of {len(self.scope.positions)} groups, and these alone "
                "can't keep the goal of the pruning behind it.",
                hint="Lower the ratio or the goal: residual_streams=false leaves out what only sums of layers make.",
            )
        return alone

    @property
    def groups(self) -> Sequence[Group]:
        """The groups that are pruned."""
        return self.scope.groups

    def lowest(self, scores: Sequence[NDArray[np.float64]], limit: int | None = None) -> list[NDArray[np.bool_]]:
        """The units that go: those that the pruning behind the training takes by these scores.

        Args:
            scores: Scores of each group's units, (count,) for each of `groups`.
            limit: Number of units at most, those of the least scores.

        Returns:
            For each group whether each unit goes, bool (count,).
        """
        given = dict(zip(self.scope.positions, scores, strict=True))
        importance = Importance.of(Learned(), self.space.groups, given, self.allocator.workload)
        counts = self.space.dense - global_ranking(self.space, importance, self.space.least)
        going = [np.argsort(values, kind="stable")[: counts[position]] for position, values in given.items()]
        places = [(owner, int(unit)) for owner, units in enumerate(going) for unit in units]
        gone = [np.zeros(len(each), dtype=bool) for each in scores]
        for owner, unit in sorted(places, key=lambda place: float(scores[place[0]][place[1]]))[:limit]:
            gone[owner][unit] = True
        return gone

    def macs(self, gone: Sequence[NDArray[np.bool_]]) -> float:
        """Multiply-accumulates that are left without some units of each group."""
        return self.allocator.figures(self._without(np.array([each.sum() for each in gone])))[MACS.name]

    def _without(self, counts: NDArray[np.int64]) -> Widths:
        kept = self.space.dense.copy()
        kept[list(self.scope.positions)] -= counts
        return kept
