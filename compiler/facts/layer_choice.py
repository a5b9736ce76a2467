"""Facts on the layers that stay in higher precision so that a limit of what whole numbers lose is met."""

from collections.abc import Mapping
from dataclasses import dataclass

from prunec.calibration.quantization.calibrate import LossLimit
from prunec.calibration.quantization.sensitivity import LayerSensitivity
from prunec.compiler.facts.choice_stages import samples_run
from prunec.passes.costs.cost_model import CostSource


@dataclass(frozen=True)
class MeasuredLoss:
    """What a quantized network loses on held-back samples.

    Attributes:
        value: Points of the metric, or the error of outputs.
        margin: Half the width of the 95 % interval of points; None for an error of outputs.
    """

    value: float
    margin: float | None


@dataclass(frozen=True)
class Trial:
    """Layers that stayed in higher precision, and what was lost with them."""

    kept: tuple[str, ...]
    loss: MeasuredLoss


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
    def loss(self) -> MeasuredLoss:
        """What was lost with them when they were tried."""
        return next(trial.loss for trial in self.trials if trial.kept == self.kept)


@dataclass(frozen=True)
class LayerChoice:
    """The layers that stay in higher precision for a limit.

    Attributes:
        limit: The limit.
        search: Search by which the layers were chosen.
        loss: What the network loses that the step leaves.
        is_judged_again: Whether that network differs from the one that was tried, in how its weights are rounded.
    """

    limit: LossLimit
    search: LayerSearch
    loss: MeasuredLoss
    is_judged_again: bool

    @property
    def is_met(self) -> bool:
        """Whether the limit is met."""
        return self.loss.value <= self.limit.most

    @property
    def samples_run(self) -> Mapping[str, int]:
        """Samples that ran through the network, repeated ones counted again, by the stage of the ledger."""
        return samples_run(
            self.limit.measure,
            layers=len(self.search.sensitivities),
            images=self.search.images,
            judged=len(self.search.trials) + self.is_judged_again,
            samples=self.search.samples,
        )
