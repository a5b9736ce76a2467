"""The part of report.json that tells of layers in higher precision for a limit of what whole numbers lose."""

import math
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field

from prunec.calibration.quantization.calibrate import LossMeasure
from prunec.compiler.report.nulls import Maybe, NullMeans
from prunec.compiler.report.report_part import Count, Part
from prunec.passes.costs.cost_model import CostSource
from prunec.passes.unknown import Unknown

if TYPE_CHECKING:  # imports torch, which reading reports does without
    from prunec.compiler.facts.layer_choice import LayerChoice, Trial

_NO_ERROR = Unknown("the network's outputs are all zero in floating point, or not finite on grids.")
_Margin = Annotated[float | None, NullMeans("an error of outputs is no share of the samples")]
_Cost = Annotated[float, Field(ge=0)]


def _known(error: float) -> float | Unknown:
    return error if math.isfinite(error) else _NO_ERROR


class LayerSensitivityPart(Part):
    """A layer alone on grids: the error of the outputs, and the layer's cost."""

    layer: str
    error: Maybe[_Cost]
    cost: _Cost


class LayerTrialPart(Part):
    """Layers that stayed in higher precision in a trial, and what was lost; `margin` is half the 95 % interval."""

    kept: tuple[str, ...]
    lost: Maybe[float]
    margin: _Margin

    @classmethod
    def of_trial(cls, trial: "Trial") -> Self:
        """The part of a trial."""
        return cls(kept=trial.kept, lost=_known(trial.loss.value), margin=trial.loss.margin)


class LayerChoicePart(Part):
    """The layers that stay in higher precision so that INT8 loses no more than `limit`.

    `measure` is the option that asks for it: points of the metric, or the error of the outputs, on `samples` of the
    validation data. Layers are taken in the order of what each alone costs of outputs
    (`sensitivities`, on `images` training images) for a unit of its cost in floating point: milliseconds of the cost
    model, which is of `cost_source`. `kept` are those that were chosen, `trials` all that was tried, `lost` what the
    network loses that the step leaves: `is_judged_again` where its weights are rounded otherwise than in the trial.
    """

    measure: LossMeasure
    limit: float
    is_met: bool
    lost: float
    margin: _Margin
    samples: Count
    images: Count
    cost_source: Annotated[CostSource | None, NullMeans("there was no cost model: costs are multiply-accumulates")]
    sensitivities: tuple[LayerSensitivityPart, ...]
    kept: tuple[str, ...]
    trials: tuple[LayerTrialPart, ...]
    is_judged_again: bool

    @classmethod
    def of_choice(cls, choice: "LayerChoice") -> Self:
        """The part of a choice."""
        rows = [LayerSensitivityPart.of(each, error=_known(each.error)) for each in choice.search.sensitivities]
        return cls.of(
            choice.search,
            choice,
            measure=choice.limit.measure,
            limit=choice.limit.most,
            lost=choice.loss.value,
            margin=choice.loss.margin,
            sensitivities=rows,
            trials=[LayerTrialPart.of_trial(trial) for trial in choice.search.trials],
        )
