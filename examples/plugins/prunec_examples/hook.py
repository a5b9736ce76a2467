"""A training hook with a proximal step: gains of batch norms are drawn to zero, so that their filters can go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.recovery import TrainingHook
from prunec.passes.places import RETRAINING

if TYPE_CHECKING:
    from prunec.compiler.recovery import RunningHook, TrainingContext


@dataclass(frozen=True)
class Slimming(TrainingHook):
    """L1 penalty on the gains of batch norms (Liu et al., "Network Slimming", ICCV 2017), as a proximal step.

    Attributes:
        strength: Factor of the penalty.
    """

    strength: float = 1e-4

    name: ClassVar[str] = "slimming"
    places: ClassVar[Mapping[str, str]] = {"strength": RETRAINING}

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        import torch
        from torch import Tensor, nn

        from prunec.compiler.recovery import Moment, RunningHook
        from prunec.passes.graphs import arguments, calls

        strength = self.strength

        class Running(RunningHook):
            """Soft thresholds after every update, by the learning rate of the step."""

            def gains(self) -> list[Tensor]:
                """Gains of all batch norms that have any."""
                nodes = [arguments(node)["weight"] for node in calls(self.training.program.graph, "batch_norm")]
                parameters = self.training.program.parameters()
                return [parameters[str(node.target)] for node in nodes if node is not None]

            @torch.no_grad()
            def after_update(self, moment: Moment) -> None:
                for gain in self.gains():
                    gain.copy_(nn.functional.softshrink(gain, moment.learning_rate * strength))

            def figures(self) -> Mapping[str, object]:
                zeros = [(gain == 0).float().mean().item() for gain in self.gains()]
                return {"zero_gains": sum(zeros) / max(len(zeros), 1)}

        return Running(training)
