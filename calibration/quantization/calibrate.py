"""Options of calibration: how a network's values are put on grids of whole numbers. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar

from prunec.passes.errors import UsageError
from prunec.passes.quantization.method_names import METHODS, Method


@dataclass(frozen=True)
class Calibrate:
    """Put activations and weights on the grids of INT8, by the values that training inputs give.

    Attributes:
        method: How the range of a tensor follows from its histogram.
        percentile: Share of a tensor's values that its range holds, in percent, by the method "percentile".
        samples: Number of training inputs that are looked at.
        keep: Globs over layers, or roles, that stay in higher precision.
        equalize: Whether the channels between two layers are brought to one range first.
        smooth: Share of the difficulty of activations that goes to the weights of transformers, from 0 to 1
            (SmoothQuant); None for none.
        bias_correction: Whether biases make up for the mean error that rounding weights leaves.
        rounding: "nearest", or "learned" for AdaRound.
        max_drop: Points of the metric that may be lost; of the layers so few as meet it stay in higher precision.
    """

    method: Method = "mse"
    percentile: float = 99.99
    samples: int = 256
    keep: tuple[str, ...] = ()
    equalize: bool = True
    smooth: float | None = None
    bias_correction: bool = True
    rounding: str = "nearest"
    max_drop: float | None = None

    name: ClassVar[str] = "calibrate"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"calibrate: unknown method {self.method!r}.", hint=f"Known: {', '.join(METHODS)}.")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"calibrate: percentile must be above 50 and at most 100, got {self.percentile}.")
        if self.samples < 1:
            raise UsageError(f"calibrate: samples must be at least 1, got {self.samples}.")
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise UsageError(f"calibrate: smooth must be from 0 to 1, got {self.smooth}.")
        if self.rounding not in ("nearest", "learned"):
            raise UsageError(f"calibrate: unknown rounding {self.rounding!r}.", hint="Known: nearest, learned.")
        if self.max_drop is not None and self.max_drop < 0:
            raise UsageError(f"calibrate: max_drop must be at least 0, got {self.max_drop}.")
