"""The training hook "network-slimming" at work."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.compiler.recovery.regimes.filter_choice import Chooser
from prunec.compiler.recovery.regimes.unit_parts import UnitParts
from prunec.compiler.recovery.running_hook import Attachment, Moment, RunningHook
from prunec.passes.criteria.learned import UNITS, Learned
from prunec.passes.errors import UsageError
from prunec.passes.program import Program


@dataclass
class RunningNetworkSlimming(RunningHook):
    """Adds the penalty's subgradient, and scores units by their scales; fields are the options of the hook."""

    penalty: float
    near_zero: float

    def attach(self, form: Program) -> Attachment:
        self.chooser = Chooser.of(self.training, "network-slimming")
        self.parts = [UnitParts.of(self.training.program, group) for group in self.chooser.groups]
        without = [parts.group.name for parts in self.parts if not parts.scales]
        if without:
            raise UsageError(
                f"recover: network-slimming ranks filters by the scale of the batch norm behind them, and the groups "
                f"{', '.join(without[:4])} have none.",
                hint="Leave them whole, prune-filters{ignore=[...]}, or take another method.",
            )
        self.chooser.choose(Learned(), self._units())  # refuses what can't be chosen for before anything is trained
        return Attachment()

    @torch.no_grad()
    def before_update(self, moment: Moment) -> None:
        for parts in self.parts:
            for slices in parts.scales:
                scale = slices.parameter
                if scale.grad is not None:
                    is_penalised = slices.spread(scale.new_ones(parts.group.count))
                    scale.grad.add_(is_penalised * scale.sign(), alpha=self.penalty)

    def _units(self) -> dict[str, Tensor]:
        """The mean absolute scale of each unit, float64 (units,) by the name of the group."""
        return {
            parts.group.name: (
                sum((slices.magnitudes() for slices in parts.scales), torch.zeros(()))
                / sum(slices.weights for slices in parts.scales)
            ).cpu()
            for parts in self.parts
        }

    def decided(self) -> Mapping[str, object]:
        return {UNITS: self._units()}

    def figures(self) -> Mapping[str, object]:
        units = self._units()
        scales = torch.cat(list(units.values()))
        return {
            "units": len(scales),
            "near_zero_by_the_penalty_alone": int((scales < self.near_zero).sum()),
            "threshold_set_by_the_budget": self.chooser.threshold(units),
        }
