"""The training hook "quantize" at work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunec.compiler.recovery.running_hook import Attachment, Moment, RunningHook
from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.training_grids import round_in_training


@dataclass
class RunningQuantize(RunningHook):
    """Rounds in the training form, and tells the ranges that it ended with; fields are the options of the hook."""

    form: Form
    keep: tuple[str, ...]
    momentum: float

    def attach(self, form: Program) -> Attachment:
        device = self.training.processes.device
        self.grids = round_in_training(form, self.keep, self.form, self.momentum, device)
        if not any(layer.is_quantized for layer in self.grids.placement.layers):
            raise UsageError(
                "recover: the training hook quantize finds no layer that can compute on grids.",
                hint="Its option keep may leave none; recurrent layers have no such kernels.",
            )
        return Attachment()

    def end_epoch(self, moment: Moment) -> str | None:
        """Take over the first process's ranges, which others have seen other batches for."""
        held = {family: moving.bounds.cpu() for family, moving in self.grids.ranges.items()}
        self.restore({"bounds": self.training.processes.from_main(held)})
        return None

    def decided(self) -> Mapping[str, object]:
        """The range of each family of tensors, by the name of its first node once batch norms are folded."""
        ranges = {family: moving.range for family, moving in self.grids.ranges.items()}
        return {"ranges": {family: [range_.low, range_.high] for family, range_ in ranges.items()}}

    def figures(self) -> Mapping[str, object]:
        layers = self.grids.placement.layers
        return {"layers_on_grids": sum(layer.is_quantized for layer in layers), "layers": len(layers)}

    def state(self) -> Mapping[str, Any]:
        return {"bounds": {family: moving.bounds for family, moving in self.grids.ranges.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        for family, bounds in state["bounds"].items():
            self.grids.ranges[family].bounds.copy_(bounds)
