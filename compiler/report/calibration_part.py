"""The part of report.json that tells of grids: what they follow from, and what every layer computes in."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from prunec.calibration.quantization.calibrate import WeightRounding
from prunec.compiler.report.layer_choice_part import LayerChoicePart
from prunec.compiler.report.nulls import NOT_RECORDED, Maybe, NullMeans
from prunec.compiler.report.report_part import Count, Fraction, Part, SortedDict
from prunec.runtime.devices import ON_GRIDS, FloatPrecision, GridPrecision
from prunec.runtime.target import Target

if TYPE_CHECKING:  # imports torch, which reading reports does without
    from prunec.compiler.facts.pass_facts import Calibrated
    from prunec.passes.quantization.placement import LayerPrecision


class LayerPrecisionPart(Part):
    """What one call of a layer computes in, and why not on grids; `macs` are for one sample."""

    layer: str
    operator: str
    precision: Literal[GridPrecision, FloatPrecision]
    reason: str
    macs: Count

    @classmethod
    def of_layer(cls, layer: "LayerPrecision", target: Target) -> Self:
        """The part of a layer of a network for a target."""
        return cls.of(layer, precision=target.precision if layer.is_quantized else target.float_precision)


class CalibrationPart(Part):
    """The calibration for INT8, FP8 or INT4: how ranges follow from training inputs, and what layers run in.

    `images` training inputs were looked at, without augmentation; `sha256` is the hash of them as the network sees
    them, one after the other. `higher_precision_macs` is the share of the multiply-accumulates that are computed in
    higher precision, and `layers` has every call of a layer in the order of execution. `fallbacks` are tensors whose
    values tell no range or hardly any, with what is the matter: constant ones, and those that are all zero. `rounding`
    is that of the weights, and `output_errors` the error of the network's outputs on some of the images: the sum of
    squared differences over that of squares, the mean over outputs. It is told with unchanged channels where they were
    equalized or smoothed, with equalized ones where they were both, with weights rounded to the nearest, and so; empty
    where all of that is the same. Weights were rounded by others than these images, where there are any.
    `largest_factor` is that of an equalized channel, or the inverse of one. `tried` has the same error for all settings
    that were tried and gave a finite one, on `held_back` of the images, on which nothing else hangs; empty where none
    were.
    `choice` tells of layers that stay in higher precision for a limit.
    """

    method: str
    images: Count
    sha256: str
    layers_in_higher_precision: Count
    higher_precision_macs: Fraction
    layers: tuple[LayerPrecisionPart, ...]
    fallbacks: SortedDict[str]
    equalized: bool
    smoothing: float | None
    rounding: WeightRounding
    output_errors: SortedDict[float]
    tried: Maybe[SortedDict[float]] = NOT_RECORDED
    held_back: Maybe[Count] = NOT_RECORDED
    choice: Annotated[Maybe[LayerChoicePart] | None, NullMeans("no limit was asked for")] = NOT_RECORDED
    largest_factor: Annotated[Maybe[float] | None, NullMeans("no channel was equalized")] = NOT_RECORDED

    @classmethod
    def of_fact(cls, fact: "Calibrated", target: Target) -> Self:
        """The part of what a calibration left."""
        layers = tuple(LayerPrecisionPart.of_layer(layer, target) for layer in fact.layers)
        return cls(
            method=fact.options.method_text,
            images=fact.images,
            sha256=fact.sha256,
            layers_in_higher_precision=len(higher_precision(layers)),
            higher_precision_macs=macs_share(layers),
            layers=layers,
            fallbacks=dict(fact.fallbacks),
            equalized=fact.options.equalize is True,
            smoothing=fact.options.smooth,
            rounding=fact.options.rounding or "nearest",
            output_errors=dict(fact.output_errors),
            tried=dict(fact.tried),
            held_back=fact.held_back,
            choice=None if fact.choice is None else LayerChoicePart.of_choice(fact.choice),
            largest_factor=fact.largest_factor,
        )


def higher_precision(layers: tuple[LayerPrecisionPart, ...]) -> list[LayerPrecisionPart]:
    """The layers that don't compute on grids."""
    return [layer for layer in layers if layer.precision not in ON_GRIDS]


def macs_share(layers: tuple[LayerPrecisionPart, ...]) -> float:
    """Share of the multiply-accumulates that are computed in higher precision; 0 where there are none."""
    return sum(layer.macs for layer in higher_precision(layers)) / max(sum(layer.macs for layer in layers), 1)
