"""The filters that the pruning behind a training would take, as a hook of that training asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunec.compiler.recovery.running_hook import TrainingContext
from prunec.passes.allocation.importance import normalised, scores_of
from prunec.passes.allocation.scope import Scope
from prunec.passes.criteria.catalogue import unit_criterion
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.learned import UNITS, Learned
from prunec.passes.criteria.protocol import Criterion, ScoresUnits, compares_groups
from prunec.passes.errors import UsageError
from prunec.passes.filter_pruning import kept_by
from prunec.passes.groups import Group
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown


@dataclass(frozen=True, eq=False)
class FilterChoice:
    """What a pruning would take of a network as it is now.

    Attributes:
        stays: Whether each unit stays, by the name of its group, bool (units,); groups that pruning leaves alone aren't
            named.
        units: The scores by which `Learned` takes the same, float64 (units,) by the name of the group.
    """

    stays: Mapping[str, Tensor]
    units: Mapping[str, Tensor]

    @property
    def taken(self) -> int:
        """Number of units that go."""
        return sum(int((~stays).sum()) for stays in self.stays.values())

    def by(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores by which `Learned` takes as many units of each group, those of the least of other values.

        Args:
            values: A value for each unit, (units,) by the name of the group.
        """
        scores = {name: torch.empty_like(units) for name, units in self.units.items()}
        for name, units in self.units.items():
            scores[name][values[name].cpu().argsort(stable=True)] = units.sort().values
        return scores

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The choice as a hook keeps it in its state: the fields by name."""
        return {"stays": dict(self.stays), "units": dict(self.units)}


@dataclass(frozen=True, eq=False)
class Chooser:
    """Asks what the pruning behind a training would take.

    Attributes:
        program: The network under training.
        pruning: The options of that pruning.
        groups: The groups that it prunes.
    """

    program: Program
    pruning: PruneFilters
    groups: Sequence[Group]

    @classmethod
    def of(cls, training: TrainingContext, hook: str) -> "Chooser":
        """The chooser of a training; ``hook`` is named in messages.

        Raises:
            UsageError: No filters are pruned behind the training, or a glob matches nothing.
            UnsupportedModelError: No group can be pruned.
        """
        if training.pruning is None:
            raise UsageError(
                f"recover: the training hook {hook} readies filters for prune-filters, and none stands behind it.",
                hint="Put prune-filters behind the training; in Python, DenseNetwork(..., pruning=PruneFilters(...)).",
            )
        return cls(training.program, training.pruning, Scope.of(training.program, training.pruning).groups)

    def choose(self, criterion: str | Criterion, units: Mapping[str, Tensor] | None = None) -> FilterChoice:
        """What it would take by a criterion of weights, or by `Learned` and these scores.

        Raises:
            UsageError: The pruning works towards a goal in time, by a plan or with ``depth``, or can't reach its goal.
        """
        criterion = unit_criterion(criterion, self.pruning.name)
        assert isinstance(criterion, ScoresUnits), "hooks refuse others"
        decisions = {} if units is None else {UNITS: dict(units)}
        evidence = Evidence(self.program.tensors(), seed=self.pruning.seed or 0, decisions=decisions)
        stays = {group.name: torch.ones(group.count, dtype=torch.bool) for group in self.groups}
        for group, kept in kept_by(self.program, replace(self.pruning, criterion=criterion), evidence)[1]:
            stays[group.name] = torch.zeros(group.count, dtype=torch.bool)
            stays[group.name][torch.tensor(kept)] = True
        scores = {group.name: scores_of(criterion, group, evidence).astype("float64") for group in self.groups}
        of_units = scores if compares_groups(criterion) else {name: normalised(each) for name, each in scores.items()}
        return FilterChoice(stays, {name: torch.tensor(each) for name, each in of_units.items()})

    def threshold(self, units: Mapping[str, Tensor]) -> float | Unknown:
        """The highest of these scores that goes: the threshold that the pruning's budget sets."""
        choice = self.choose(Learned(), units)
        taken = [units[name][~stays] for name, stays in choice.stays.items()]
        return float(torch.cat(taken).max()) if choice.taken else Unknown("the pruning behind the training takes none.")
