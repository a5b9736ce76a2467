"""The training hook "sfp" at work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from prunec.compiler.recovery.regimes.filter_choice import Chooser, FilterChoice
from prunec.compiler.recovery.regimes.unit_parts import UnitParts
from prunec.compiler.recovery.running_hook import Attachment, Moment, RunningHook
from prunec.passes.criteria.learned import UNITS
from prunec.passes.criteria.protocol import Criterion
from prunec.passes.program import Program


@dataclass
class RunningSfp(RunningHook):
    """Zeroes filters at the end of epochs, and tells which; fields are the options of the hook."""

    criterion: str | Criterion

    def attach(self, form: Program) -> Attachment:
        self.chooser = Chooser.of(self.training, "sfp")
        self.parts = [UnitParts.of(self.training.program, group) for group in self.chooser.groups]
        self.choice = self.chooser.choose(self.criterion)
        self.regrown: list[int] = []
        return Attachment()

    @torch.no_grad()
    def end_epoch(self, moment: Moment) -> str | None:
        if moment.epoch > 1:
            self.regrown.append(self._regrown())
        self.choice = self.chooser.choose(self.criterion)
        for parts in self.parts:
            goes = ~self.choice.stays[parts.group.name]
            for slices in parts.filters:
                slices.parameter.masked_fill_(slices.spread(goes), 0.0)
        return None

    def _regrown(self) -> int:
        """How many of the units that were zeroed last aren't zero any more."""
        grown = 0
        for parts in self.parts:
            goes = ~self.choice.stays[parts.group.name]
            squares = sum((slices.squares().cpu() for slices in parts.filters), torch.zeros(parts.group.count))
            grown += int((squares[goes] > 0).sum())
        return grown

    def decided(self) -> Mapping[str, object]:
        """The scores by which the last zeroing chose."""
        return {UNITS: dict(self.choice.units)}

    def figures(self) -> Mapping[str, object]:
        units = sum(parts.group.count for parts in self.parts)
        return {"units": units, "zeroed": self.choice.taken, "regrown_before_each_zeroing": self.regrown}

    def state(self) -> Mapping[str, Any]:
        return {**self.choice.state(), "regrown": self.regrown}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.choice = FilterChoice(state["stays"], state["units"])
        self.regrown = list(state["regrown"])
