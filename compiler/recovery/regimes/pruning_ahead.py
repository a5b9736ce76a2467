"""The pruning that a training readies a network for: its groups, the widths that it leaves, and the budget it keeps."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.recovery.running_hook import TrainingContext
from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.budgets import MACS
from prunec.passes.allocation.goals import Goals
from prunec.passes.allocation.scope import Scope, layer_names
from prunec.passes.allocation.space import Space, Widths
from prunec.passes.criteria.protocol import Criterion
from prunec.passes.errors import UsageError
from prunec.passes.filter_pruning import Kept, Ratios, check_countable, kept_by
from prunec.passes.groups import Group
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.ratios import check_globs


def pruning_ahead(training: TrainingContext, hook: str, criterion: str | Criterion = "l1") -> PruneFilters:
    """The options of the pruning behind a training, with another criterion: its own may ask what the hook decided.

    Args:
        training: The training.
        hook: Name of the hook, for messages.
        criterion: A criterion that looks at weights alone.

    Raises:
        UsageError: No filters are pruned behind the training, or it takes more than a program to tell how many.
    """
    if training.pruning is None:
        raise UsageError(
            f"recover: the training hook {hook} readies a network for the pruning of filters behind it, and there is "
            "none.",
            hint="Put prune-filters{criterion=learned,...} behind it; in Python, DenseNetwork(pruning=...).",
        )
    check_countable(training.pruning)
    return replace(training.pruning, criterion=criterion)


@dataclass(frozen=True, eq=False)
class PrunedGroup:
    """A group that is pruned behind a training, with the units that a criterion would keep, int64 ascending."""

    group: Group
    kept: Kept


def pruned_groups(training: TrainingContext, hook: str, criterion: str | Criterion = "l1") -> list[PrunedGroup]:
    """The groups that the pruning behind a training may prune, each with what a criterion of weights would keep now.

    Raises:
        UsageError: What `pruning_ahead` raises, or a goal is out of reach.
        UnsupportedModelError: No group can be pruned.
    """
    options = pruning_ahead(training, hook, criterion)
    _, kept = kept_by(training.program, options)
    by_name = {group.name: stays for group, stays in kept}
    groups = Scope.of(training.program, options).groups
    return [PrunedGroup(group, by_name.get(group.name, np.arange(group.count))) for group in groups]


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
            UsageError: What `pruning_ahead` raises; the pruning gives each group a width of its own; or a goal is out
                of reach.
            UnsupportedModelError: No group can be pruned.
        """
        options = pruning_ahead(training, hook)
        if options.allocation != "global":
            raise UsageError(
                f"recover: the training hook {hook} ranks the filters of all layers together, and prune-filters has "
                f"allocation={options.allocation}.",
                hint="Give prune-filters allocation=global.",
            )
        allocator = Allocator.of(training.program, options)
        goals = options.goals
        if options.ratio is not None:
            if not isinstance(options.ratio, int | float):
                check_globs(options.ratio, layer_names(training.program), "ratio")
            widths = Ratios(options.ratio, options.rounding).widths(allocator.scope)
            goals = Goals(speedup=max(1.0, allocator.dense[MACS.name] / allocator.figures(widths)[MACS.name]))
        return cls(allocator.scope, allocator.space(goals), allocator)

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
        """The units that go: those of the least scores of all groups, the fewest that keep the budget.

        Every group keeps the best units of its least width.

        Args:
            scores: Scores of each group's units, (count,) for each of `groups`.
            limit: Number of units at most, where the budget may be missed.

        Returns:
            For each group whether each unit goes, bool (count,).
        """
        ascending = [
            np.argsort(values, kind="stable")[: len(values) - int(self.space.least[position])]
            for position, values in zip(self.scope.positions, scores, strict=True)
        ]
        owners = np.repeat(np.arange(len(scores)), [len(units) for units in ascending])
        units = np.concatenate(ascending)
        values = np.concatenate([each[order] for each, order in zip(scores, ascending, strict=True)])
        ranking = np.argsort(values, kind="stable")[:limit]
        fewest = bisect_left(range(len(ranking)), True, key=lambda count: self.fits(owners[ranking[:count]]))
        gone = [np.zeros(len(each), dtype=bool) for each in scores]
        for owner, unit in zip(owners[ranking[:fewest]].tolist(), units[ranking[:fewest]].tolist(), strict=True):
            gone[owner][unit] = True
        return gone

    def fits(self, owners: NDArray[np.int64]) -> bool:
        """Whether the budget is kept without units of these groups, one for each that goes."""
        return self.space.fits(self._without(np.bincount(owners, minlength=len(self.groups))))

    def macs(self, gone: Sequence[NDArray[np.bool_]]) -> float:
        """Multiply-accumulates that are left without some units of each group."""
        return self.allocator.figures(self._without(np.array([each.sum() for each in gone])))[MACS.name]

    def _without(self, counts: NDArray[np.int64]) -> Widths:
        kept = self.space.dense.copy()
        kept[list(self.scope.positions)] -= counts
        return kept
