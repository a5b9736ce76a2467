"""The step that puts a network's values on the grids of INT8 or FP8, or weights on those of INT4."""

from functools import cache, partial

import torch

from prunec.calibration.quantization.calibrate import AUTO, Calibrate
from prunec.calibration.quantization.observed_program import ObservedProgram
from prunec.calibration.quantization.observing import fitting
from prunec.calibration.quantization.parted import PartedSamples, parted
from prunec.calibration.quantization.range_methods import fallbacks
from prunec.calibration.quantization.sensitivity import relative_squared_error
from prunec.calibration.quantization.settings import few, rounded, settle
from prunec.compiler.facts.layer_choice import LayerChoice
from prunec.compiler.facts.pass_facts import Calibrated
from prunec.compiler.facts.step_facts import StepCost, StepInput, StepOutput
from prunec.compiler.stages.calibration_images import CalibrationImages
from prunec.compiler.stages.mixed_precision import booked, choose_layers
from prunec.compiler.stages.pass_steps import check_masks
from prunec.passes.base import Aim
from prunec.passes.feeding import feed
from prunec.passes.program import Program
from prunec.passes.quantization.placement import KEPT, NOT_LINEAR, SENSITIVE, Placement, place
from prunec.passes.quantization.preparation import prepared
from prunec.passes.quantization.quantizers import is_quantized
from prunec.runtime.int8_form import form_of

#: Images of which the ranges of values hang on single ones.
_FEW = 16


def calibrate(options: Calibrate, given: StepInput) -> StepOutput:
    """Fold batch norms, look at the values of training inputs, and put values and weights on grids."""
    progress = given.request.settings.progress
    progress.stage(f"calibrate by {options.method_text}, {options.samples} images")
    images = CalibrationImages(given.program, given, options.samples)
    form, precision = form_of(given.request.target), given.request.target.precision
    placement = place(prepared(given.program, equalized=False), options.keep, form=form)
    if not placement.weights:
        return StepOutput(given.program, modified=False, cost=StepCost(), aim=_aim(placement, options, precision))
    samples = parted(images, options.samples) if options.method == AUTO else PartedSamples(images)
    settled = settle(options, given.program, form, samples, progress.step)
    options, observed = settled.options, settled.observed
    finish = cache(partial(_finished, options, given, observed, samples))
    choice, kept = None, settled.kept
    if options.limit is not None:
        batches = list(fitting(observed.program, [few(observed.program, samples.looked_at)]))
        choice = choose_layers(options, given, observed, batches, lambda kept: finish(kept)[0])
        kept = choice.search.kept
    (quantized, errors), placement = finish(kept), observed.placement(kept)
    check_masks(quantized)
    fact = Calibrated(
        options=options,
        images=images.count,
        sha256=images.sha256,
        layers=placement.layers,
        fallbacks=fallbacks(placement, observed.histograms, form),
        output_errors=errors,
        tried=settled.tried,
        held_back=settled.held_back,
        choice=choice,
    )
    return StepOutput(
        quantized if placement.weights else given.program,
        modified=bool(placement.weights),
        fact=fact,
        cost=StepCost(samples=images.count),
        beside=() if choice is None else booked(choice, options, given),
        aim=_aim(placement, options, precision),
        note=_note(fact),
    )


def _finished(
    options: Calibrate, given: StepInput, observed: ObservedProgram, samples: PartedSamples, kept: tuple[str, ...]
) -> tuple[Program, dict[str, float]]:
    """The network on grids but for some layers, weights rounded as is asked for; errors as `Calibrated` has them."""
    nearest, rounding = observed.quantized(kept), options.rounding or "nearest"
    if rounding == "nearest" or not is_quantized(nearest.graph):
        return nearest, {}
    given.request.settings.progress.stage(f"round weights, {rounding}")
    inputs = few(observed.program, samples.looked_at)
    result = rounded(rounding, observed.program, nearest, inputs, given.seed)
    with torch.no_grad():
        expected = feed(observed.program, inputs)
        errors = {
            name: relative_squared_error(feed(each, inputs), expected)
            for name, each in (("nearest", nearest), (rounding, result))
        }
    return result, errors


def _aim(placement: Placement, options: Calibrate, precision: str) -> Aim:
    """The layers but those that were asked to stay in higher precision, and those of them that are on grids."""
    left_out = (KEPT, NOT_LINEAR) if options.keep_macs is None else (KEPT, NOT_LINEAR, SENSITIVE)
    asked = [layer for layer in placement.layers if layer.reason not in left_out]
    reasons = dict.fromkeys(layer.reason for layer in asked if layer.reason)
    return Aim(
        f"layers in {precision.upper()}", len(asked), sum(layer.is_quantized for layer in asked), ", ".join(reasons)
    )


def _note(fact: Calibrated) -> str:
    """What the user should know of the values that were looked at, in sentences."""
    asked, said = fact.options.samples, list[str]()
    if fact.images < min(asked, _FEW):
        said.append(f"{fact.images} images were calibrated on: ranges hang on single ones; {_FEW} or more tell better.")
    elif fact.images < asked:
        said.append(f"{fact.images} of {asked} images were there.")
    if fact.choice is not None and not fact.choice.is_met:
        said.append(_unmet(fact.choice, str(fact.options.rounding)))
    if fact.fallbacks:
        name, oddity = next(iter(fact.fallbacks.items()))
        said.append(f"{len(fact.fallbacks)} tensors tell no range, or hardly any ({name}: {oddity}).")
    return " ".join(said)


def _unmet(choice: LayerChoice, rounding: str) -> str:
    """That a limit isn't met, and why."""
    limit, search, unit = choice.limit, choice.search, " points" * (choice.loss.margin is not None)
    lost = f"{choice.loss.value:.3g}{unit} are lost on {search.samples} held-back samples"
    why = "even with every layer in higher precision, since products of activations stay on grids"
    if choice.is_judged_again and search.loss.value <= limit.most:
        why = f"with rounding={rounding}, {search.loss.value:.3g} with weights rounded to the nearest"
    return f"{limit.measure}={limit.most:g} isn't met: {lost} {why}."
