"""The step that puts a network's values on the grids of INT8."""

from functools import cache, partial

import torch

from prunec.calibration.one_shot import calibration_inputs
from prunec.calibration.quantization.bias_correction import correct_biases
from prunec.calibration.quantization.calibrate import Calibrate
from prunec.calibration.quantization.channel_maxima import channel_maxima
from prunec.calibration.quantization.learned_rounding import LearnedRounding
from prunec.calibration.quantization.observed_program import ObservedProgram
from prunec.calibration.quantization.observing import observe
from prunec.calibration.quantization.range_methods import RangeMethod, fallbacks
from prunec.calibration.quantization.sensitivity import relative_squared_error
from prunec.compiler.facts.layer_choice import LayerChoice
from prunec.compiler.facts.pass_facts import Calibrated
from prunec.compiler.facts.step_facts import StepCost, StepInput, StepOutput
from prunec.compiler.stages.calibration_images import CalibrationImages
from prunec.compiler.stages.mixed_precision import booked, choose_layers
from prunec.compiler.stages.pass_steps import check_masks
from prunec.passes.base import Aim
from prunec.passes.feeding import BatchInputs, feed, sample_count
from prunec.passes.program import Program
from prunec.passes.quantization.placement import KEPT, Placement, place
from prunec.passes.quantization.preparation import prepared
from prunec.passes.quantization.quantizers import is_quantized
from prunec.passes.quantization.smoothing import smooth
from prunec.runtime.int8_form import form_of

#: Images whose values are in memory at once where weights are chosen, and where the error of outputs is measured.
_TOGETHER = 64
#: Images of which the ranges of values hang on single ones.
_FEW = 16


def calibrate(options: Calibrate, given: StepInput) -> StepOutput:
    """Fold batch norms, look at the values of training inputs, and put values and weights on grids."""
    progress = given.request.settings.progress
    progress.stage(f"calibrate by {options.method_text}, {options.samples} images")
    program, form = prepared(given.program, equalized=options.equalize), form_of(given.request.target)
    images = CalibrationImages(program, given, options.samples)
    if options.smooth is not None:
        program = smooth(program, channel_maxima(program, images), options.smooth).program
    whole = place(program, options.keep)
    if not whole.sites:
        return StepOutput(given.program, modified=False, cost=StepCost(), aim=_aim(whole))
    histograms = observe(program, whole, images)
    count, sha256 = images.count, images.sha256
    observed = ObservedProgram(program, options.keep, histograms, RangeMethod(options.method, options.percentile), form)
    finish = cache(partial(_finished, options, given, observed, images))
    choice = None
    if options.limit is not None:
        choice = choose_layers(options, given, observed, _few_batches(images), lambda kept: finish(kept)[0])
    kept = choice.search.kept if choice is not None else ()
    (quantized, errors), placement = finish(kept), observed.placement(kept)
    check_masks(quantized)
    oddities = fallbacks(placement, histograms)
    fact = Calibrated(options, count, sha256, placement.layers, oddities, errors, choice)
    return StepOutput(
        quantized if placement.sites else given.program,
        modified=bool(placement.sites),
        fact=fact,
        cost=StepCost(samples=count),
        beside=() if choice is None else booked(choice, options, given),
        aim=_aim(placement),
        note=_note(fact),
    )


def _finished(
    options: Calibrate, given: StepInput, observed: ObservedProgram, images: CalibrationImages, kept: tuple[str, ...]
) -> tuple[Program, dict[str, float]]:
    """The network on grids but for some layers, its weights rounded as is asked for; errors as in `Calibrated`."""
    quantized = observed.quantized(kept)
    if options.rounding == "nearest" or not is_quantized(quantized.graph):
        return quantized, {}
    given.request.settings.progress.stage(f"round weights, {options.rounding}")
    return _rounded(options, given.seed, observed.program, quantized, images)


def _few_batches(images: CalibrationImages) -> list[BatchInputs]:
    """The first batches of the images, for what runs the network many times."""
    found: list[BatchInputs] = []
    for batch in images:
        found.append(batch)
        if sum(map(sample_count, found)) >= _TOGETHER:
            break
    return found


def _rounded(
    options: Calibrate, seed: int, program: Program, nearest: Program, images: CalibrationImages
) -> tuple[Program, dict[str, float]]:
    """The quantized program with its weights as ``options`` ask, and the error of its outputs so and before."""
    whole = next(iter(images))
    inputs = calibration_inputs(((batch, None) for batch in images), max(_TOGETHER, sample_count(whole)))
    learn = LearnedRounding(seed=seed).learn if options.rounding == "learned" else correct_biases
    result = learn(program, nearest, inputs).program
    with torch.no_grad():
        expected = feed(program, inputs)
        errors = {
            name: relative_squared_error(feed(each, inputs), expected)
            for name, each in (("nearest", nearest), (options.rounding, result))
        }
    return result, errors


def _aim(placement: Placement) -> Aim:
    """The layers that weren't kept by name, and those of them that are on grids."""
    asked = [layer for layer in placement.layers if layer.reason != KEPT]
    reasons = dict.fromkeys(layer.reason for layer in asked if layer.reason)
    return Aim("layers in INT8", len(asked), sum(layer.is_quantized for layer in asked), ", ".join(reasons))


def _note(fact: Calibrated) -> str:
    """What the user should know of the values that were looked at, in sentences."""
    asked, said = fact.options.samples, list[str]()
    if fact.images < min(asked, _FEW):
        said.append(f"{fact.images} images were calibrated on: ranges hang on single ones; {_FEW} or more tell better.")
    elif fact.images < asked:
        said.append(f"{fact.images} of {asked} images were there.")
    if fact.choice is not None and not fact.choice.is_met:
        said.append(_unmet(fact.choice, fact.options.rounding))
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
