"""The training hook "quantize": quantization-aware training. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.passes.errors import UsageError
from prunec.passes.places import RETRAINING

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext


@dataclass(frozen=True)
class Quantize(TrainingHook):
    """Train with weights and activations on the grids of INT8 or FP8 (Jacob et al., CVPR 2018).

    The network stays in floating point and gets weights that bear rounding; calibration quantizes it afterwards. Masks
    hold: grids of weights have zeros. Batch norms train as without the hook. Derivatives pass straight through within
    the range of a grid.

    Attributes:
        form: Form of the grids of activations: "symmetric" for NVIDIA's engines, "affine" for CPUs, "float8" for FP8.
        keep: Globs over layers, or roles, that stay in higher precision.
        momentum: Share of the moving average of a tensor's least and most value that stays with every batch.
    """

    form: Literal["symmetric", "affine", "float8"] = "symmetric"
    keep: tuple[str, ...] = ()
    momentum: float = 0.99

    name: ClassVar[str] = "quantize"
    places: ClassVar[Mapping[str, str]] = {"form": RETRAINING, "keep": RETRAINING, "momentum": RETRAINING}

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise UsageError(f"quantize: momentum must be at least 0 and below 1, got {self.momentum}.")

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.running_quantize import RunningQuantize

        return RunningQuantize(training, self.form, self.keep, self.momentum)
