"""Options of calibration: how a network's values are put on grids of whole numbers. Imports no torch."""

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, get_args

from prunec.passes.errors import UsageError
from prunec.passes.quantization.method_names import RANGE_METHODS, MethodName

#: "nearest"; "corrected", whose biases make up for the mean error; or "learned" (AdaRound).
WeightRounding = Literal["nearest", "corrected", "learned"]
ROUNDINGS: tuple[WeightRounding, ...] = get_args(WeightRounding)
#: What a limit is of: points of the metric that are lost, or the error of outputs (`output_error`).
LossMeasure = Literal["max_drop_points", "max_output_error"]
#: The method that tries settings, and takes those that the network's outputs lose least by on samples held back.
AUTO: Final = "auto"

#: Errors of outputs by these are those of channels that were neither equalized nor smoothed, or equalized and no more.
UNCHANGED, EQUALIZED = "unchanged channels", "equalized channels"
#: Stages of the ledger: what settings are chosen by, beside the one run over the images; what weights are rounded by.
SETTINGS_STAGE, ROUNDING_STAGE = "calibration-settings", "weight-rounding"


def setting_words(method: str, equalized: bool, *, corrected: bool = False) -> str:
    """Settings that are tried, in words."""
    return method + ", equalized" * equalized + ", biases corrected" * corrected


@dataclass(frozen=True)
class LossLimit:
    """A limit of what whole numbers lose on held-back samples, by the name of its option."""

    measure: LossMeasure
    most: float


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
        max_drop_points: Points of the metric that are lost at most on held-back samples; as few layers as that takes
            stay in higher precision. None for no limit.
        max_output_error: The same for the error of the network's outputs (`output_error`), which needs no labels.
    """

    method: MethodName | Literal["auto"] = "mse"
    percentile: float = 99.99
    samples: int = 256
    keep: tuple[str, ...] = ()
    keep_macs: float | None = None
    equalize: bool | None = None
    smooth: float | None = None
    rounding: WeightRounding | None = None
    max_drop_points: float | None = None
    max_output_error: float | None = None

    name: ClassVar[str] = "calibrate"

    @property
    def method_text(self) -> str:
        """The method with its option, for reports."""
        return f"{self.method} {self.percentile:g}" if self.method == "percentile" else self.method

    @property
    def limit(self) -> LossLimit | None:
        """The limit that layers stay in higher precision for; None where there is none."""
        if self.max_drop_points is not None:
            return LossLimit("max_drop_points", self.max_drop_points)
        return None if self.max_output_error is None else LossLimit("max_output_error", self.max_output_error)

    def __post_init__(self) -> None:
        if self.method not in (AUTO, *RANGE_METHODS):
            known = ", ".join((AUTO, *RANGE_METHODS))
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
        self._check_limit()

    def _check_limit(self) -> None:
        if self.max_drop_points is not None and self.max_output_error is not None:
            raise UsageError(
                "calibrate: max_drop_points and max_output_error are both given.",
                hint="Give the one that layers are to stay in higher precision for.",
            )
        if self.keep_macs is not None and self.limit is not None:
            raise UsageError(
                f"calibrate: keep_macs and {self.limit.measure} both choose the layers in higher precision.",
                hint="Give one of the two.",
            )
        if (limit := self.limit) is not None and not 0 <= limit.most < math.inf:
            raise UsageError(f"calibrate: {limit.measure} must be a number of at least 0, got {limit.most}.")
