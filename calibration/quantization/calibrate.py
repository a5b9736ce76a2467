"""Options of calibration: how a network's values are put on grids of whole numbers. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, get_args

from prunec.passes.errors import UsageError
from prunec.passes.quantization.method_names import METHODS, Method

#: "nearest"; "corrected", whose biases make up for the mean error; or "learned" (AdaRound).
WeightRounding = Literal["nearest", "corrected", "learned"]
ROUNDINGS: tuple[WeightRounding, ...] = get_args(WeightRounding)
#: The method that tries settings, and takes those that the network's outputs lose least by on samples held back.
AUTO: Final = "auto"


def setting_words(method: str, equalized: bool, *, corrected: bool = False) -> str:
    """Settings that are tried, in words."""
    return method + ", equalized" * equalized + ", biases corrected" * corrected


@dataclass(frozen=True)
class Calibrate:
    """Put activations and weights on the grids of INT8, by the values that training inputs give.

    Attributes:
        method: How the range of a tensor follows from its histogram; "auto" to try all ways, and equalization and
            corrected biases where these are left open.
        percentile: Share of a tensor's values that its range holds, in percent, by the method "percentile".
        samples: Number of training inputs that are looked at.
        keep: Globs over layers, or roles, that stay in higher precision.
        keep_macs: Share of the multiply-accumulates that may stay in higher precision: the layers that whole numbers
            cost most for what they make cheaper. None for no others than `keep` names.
        equalize: Whether the channels between layers are brought to equal ranges first; None leaves it to "auto", and
            is no for other methods.
        smooth: Share of the outliers behind layer norms that goes into the weights of transformers, from 0 to 1; None
            for none.
        rounding: How weights are rounded; None leaves "nearest" or "corrected" to "auto", and is "nearest" for others.
    """

    method: Method | Literal["auto"] = "mse"
    percentile: float = 99.99
    samples: int = 256
    keep: tuple[str, ...] = ()
    keep_macs: float | None = None
    equalize: bool | None = None
    smooth: float | None = None
    rounding: WeightRounding | None = None

    name: ClassVar[str] = "calibrate"

    @property
    def method_text(self) -> str:
        """The method with its option, for reports."""
        return f"{self.method} {self.percentile:g}" if self.method == "percentile" else self.method

    def __post_init__(self) -> None:
        if self.method not in (AUTO, *METHODS):
            known = ", ".join((AUTO, *METHODS))
            raise UsageError(f"calibrate: unknown method {self.method!r}.", hint=f"Known: {known}.")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"calibrate: percentile must be above 50 and at most 100, got {self.percentile}.")
        if self.samples < 1:
            raise UsageError(f"calibrate: samples must be at least 1, got {self.samples}.")
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise UsageError(f"calibrate: smooth must be from 0 to 1, got {self.smooth}.")
        if self.keep_macs is not None and not 0 <= self.keep_macs <= 1:
            raise UsageError(f"calibrate: keep_macs must be from 0 to 1, got {self.keep_macs}.")
        if self.rounding not in (None, *ROUNDINGS):
            raise UsageError(f"calibrate: unknown rounding {self.rounding!r}.", hint=f"Known: {', '.join(ROUNDINGS)}.")
