"""Facts on the layers that stay in higher precision so that a limit of what whole numbers lose is met."""

from collections.abc import Mapping
from dataclasses import dataclass

from prunec.calibration.quantization.calibrate import LossLimit
from prunec.calibration.quantization.sensitivity import LayerSensitivity
from prunec.passes.costs.cost_model import CostSource

#: Stages of the ledger: the sensitivity of layers on training data, and trials on held-back ones.
SENSITIVITY, MIXED_PRECISION = "sensitivity", "mixed-precision"
#: The part of the data that each of them looks at, in words.
SPLITS: Mapping[str, str] = {SENSITIVITY: "training data", MIXED_PRECISION: "validation data"}


@dataclass(frozen=True)
class Loss:
    """What a quantized network loses on held-back samples.

    Attributes:
        value: Points of the metric, or the squared error of outputs relative to that of their size.
        margin: Half the width of the 95 % interval of points; None for an error of outputs.
    """

    value: float
    margin: float | None


@dataclass(frozen=True)
class Trial:
    """Layers that stayed in higher precision, and what was lost with them."""

    kept: tuple[str, ...]
    loss: Loss


@dataclass(frozen=True)
class LayerSearch:
    """How layers were chosen.

    Attributes:
        cost_source: Where the cost model is from that tells milliseconds; None for costs in multiply-accumulates.
        images: Number of calibration images that the network ran on, once as it is and once for every layer.
        samples: Number of held-back samples that every trial was judged on.
        sensitivities: What each layer alone costs and brings.
        trials: What was tried, in order.
        kept: The layers that were chosen, the most sensitive first.
    """

    cost_source: CostSource | None
    images: int
    samples: int
    sensitivities: tuple[LayerSensitivity, ...]
    trials: tuple[Trial, ...]
    kept: tuple[str, ...]

    @property
    def loss(self) -> Loss:
        """What was lost with them when they were tried."""
        return next(trial.loss for trial in self.trials if trial.kept == self.kept)


@dataclass(frozen=True)
class LayerChoice:
    """The layers that stay in higher precision for a limit.

    Attributes:
        limit: The limit.
        search: How they were chosen.
        loss: What the network loses that the step leaves.
        is_judged_again: Whether that network differs from the one that was tried, in how its weights are rounded.
    """

    limit: LossLimit
    search: LayerSearch
    loss: Loss
    is_judged_again: bool

    @property
    def is_met(self) -> bool:
        """Whether the limit is met."""
        return self.loss.value <= self.limit.most

    @property
    def booked(self) -> Mapping[str, int]:
        """Samples that ran through the network, repeated ones counted again, by the stage of the ledger."""
        trials = len(self.search.trials) + self.is_judged_again
        # Points are compared with the scores of one run in floating point; outputs aren't kept, but run beside it.
        runs = trials + 1 if self.limit.measure == "max_drop_points" else 2 * trials
        layers = len(self.search.sensitivities) + 1
        return {SENSITIVITY: layers * self.search.images, MIXED_PRECISION: runs * self.search.samples}
