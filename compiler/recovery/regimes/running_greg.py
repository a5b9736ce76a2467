"""The training hooks "greg-1" and "greg-2" at work."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunec.compiler.recovery.regimes.course import steps_done
from prunec.compiler.recovery.regimes.filter_choice import Chooser, FilterChoice
from prunec.compiler.recovery.regimes.penalty_course import PenaltyCourse
from prunec.compiler.recovery.regimes.unit_parts import UnitParts, UnitSlices
from prunec.compiler.recovery.running_hook import Attachment, Moment, RunningHook
from prunec.passes.criteria.learned import UNITS
from prunec.passes.program import Program

#: What filters are chosen by.
_CRITERION = "l1"
#: Share of the moving average of magnitudes that stays with every step.
_MOMENTUM = 0.9


@dataclass
class RunningGreg(RunningHook):
    """Shrinks filters after every step, and tells which.

    Attributes:
        name: Name of the hook.
        course: The penalty over the steps.
        ratio_limit: Magnitude of kept weights over that of pruned ones at which a group's penalty stops growing.
    """

    name: str
    course: PenaltyCourse
    ratio_limit: float

    def attach(self, form: Program) -> Attachment:
        self.chooser = Chooser.of(self.training, self.name)
        self.parts = [UnitParts.of(self.training.program, group) for group in self.chooser.groups]
        self.choice = self.chooser.choose(_CRITERION)
        self.is_picked = self.course.picking == 0
        self.ratios: dict[str, float] = {}
        self.stopped: dict[str, int] = {}
        # What momentum makes of a rate in the long run.
        self.long_run = 1 / (1 - (self.training.options.momentum or 0.0))
        return Attachment()

    @torch.no_grad()
    def after_update(self, moment: Moment) -> None:
        step = steps_done(self.training, moment) - 1
        if step < self.course.picking:
            share = self._share(moment, self.course.at(step))
            for parts in self.parts:
                _shrink(parts.filters, torch.full((parts.group.count,), share))
            return
        if not self.is_picked:
            self.choice, self.is_picked = self.chooser.choose(_CRITERION), True
        for parts in self.parts:
            self._push(parts, moment, step)

    def _push(self, parts: UnitParts, moment: Moment, step: int) -> None:
        """Shrink the units of a group that go, and what is left of the penalty of those that stay."""
        name = parts.group.name
        stays = self.choice.stays[name]
        pruned = self._share(moment, self.course.at(min(step, self.stopped.get(name, step))))
        kept = self._share(moment, self.course.of_kept(step))
        _shrink(parts.filters, torch.where(stays, kept, pruned))
        _shrink(parts.others, torch.where(stays, 0.0, pruned))
        if name not in self.stopped and not bool(stays.all()):
            magnitude, of_pruned = _magnitudes(parts, stays)
            now = magnitude / of_pruned if of_pruned else math.inf
            self.ratios[name] = ratio = _MOMENTUM * self.ratios.get(name, now) + (1 - _MOMENTUM) * now
            if ratio >= self.ratio_limit:
                self.stopped[name] = step

    def _share(self, moment: Moment, penalty: float) -> float:
        """The share of a weight that a penalty takes in the step under way."""
        return min(1.0, moment.learning_rate * self.long_run * penalty)

    def decided(self) -> Mapping[str, object]:
        """The scores by which filters were chosen, or would be now."""
        return {UNITS: dict(self.choice.units)}

    def figures(self) -> Mapping[str, object]:
        pairs = [(parts, self.choice.stays[parts.group.name]) for parts in self.parts]
        magnitudes = [_magnitudes(parts, stays) for parts, stays in pairs if not bool(stays.all())]
        return {
            "units": sum(parts.group.count for parts in self.parts),
            "pruned": self.choice.taken,
            "factor_of_the_papers_penalty": self.course.scale,
            "groups_whose_penalty_stopped_growing": len(self.stopped),
            "largest_magnitude_of_pruned_over_kept": max(
                (pruned / kept if kept else math.inf for kept, pruned in magnitudes), default=0.0
            ),
        }

    def state(self) -> Mapping[str, Any]:
        progress = {"is_picked": self.is_picked, "ratios": dict(self.ratios), "stopped": dict(self.stopped)}
        return {**self.choice.state(), **progress}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.choice = FilterChoice(state["stays"], state["units"])
        self.is_picked = state["is_picked"]
        self.ratios, self.stopped = dict(state["ratios"]), dict(state["stopped"])


def _shrink(parts: tuple[UnitSlices, ...], shares: Tensor) -> None:
    """Take a share of each unit (units,) from its weights."""
    for slices in parts:
        slices.parameter.mul_(1 - slices.spread(shares.to(slices.parameter.dtype)))


def _magnitudes(parts: UnitParts, stays: Tensor) -> tuple[float, float]:
    """Mean absolute weight of the filters that stay, and of those that go, but for one factor; each group has both."""
    magnitudes = sum((slices.magnitudes().cpu() for slices in parts.filters), torch.zeros(()))
    return float(magnitudes[stays].mean()), float(magnitudes[~stays].mean())
