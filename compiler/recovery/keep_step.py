"""The training hook that keeps the weights of one step, to go back to them later."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.course import steps_done
from prunec.compiler.recovery.running_hook import Moment, RunningHook, TrainingContext
from prunec.compiler.recovery.tensors import snapshot

#: Name of the weights in what the hook decided.
KEPT = "kept"


@dataclass(frozen=True)
class KeepStep(TrainingHook):
    """Keep all tensors as they are after some steps; the training is the same without it."""

    name: ClassVar[str] = "keep-step"

    step: int

    def start(self, training: TrainingContext) -> RunningHook:
        """The hook at work in one training."""
        return RunningKeepStep(training, self.step)


@dataclass
class RunningKeepStep(RunningHook):
    """Keeps the tensors by name; none before the step."""

    step: int
    kept: dict[str, Tensor] = field(default_factory=dict)

    def after_update(self, moment: Moment) -> None:
        if steps_done(self.training, moment) == self.step:
            self.kept = snapshot(self.training.program)

    def decided(self) -> Mapping[str, object]:
        return {KEPT: self.kept}

    def state(self) -> Mapping[str, Any]:
        return {KEPT: self.kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.kept = dict(state[KEPT])
