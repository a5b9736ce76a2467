"""The step that puts a network's values on the grids of INT8 or FP8, or weights on those of INT4."""

import torch

from prunec.calibration.one_shot import calibration_inputs
from prunec.calibration.quantization.bias_correction import correct_biases
from prunec.calibration.quantization.calibrate import Calibrate
from prunec.calibration.quantization.channel_maxima import channel_maxima
from prunec.calibration.quantization.learned_rounding import LearnedRounding
from prunec.calibration.quantization.observing import observe
from prunec.calibration.quantization.range_methods import RangeMethod, fallbacks, ranges_of
from prunec.calibration.quantization.sensitivity import relative_squared_error
from prunec.compiler.facts.pass_facts import Calibrated
from prunec.compiler.facts.step_facts import StepCost, StepInput, StepOutput
from prunec.compiler.stages.calibration_images import CalibrationImages
from prunec.compiler.stages.pass_steps import check_masks
from prunec.passes.base import Aim
from prunec.passes.feeding import feed, sample_count
from prunec.passes.program import Program
from prunec.passes.quantization.placement import KEPT, NOT_LINEAR, Placement, place
from prunec.passes.quantization.preparation import prepared
from prunec.passes.quantization.quantizers import quantize
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
    placement = place(program, options.keep, form)
    aim = _aim(placement, given.request.target.precision)
    if not placement.weights:
        return StepOutput(given.program, modified=False, cost=StepCost(), aim=aim)
    histograms = observe(program, placement, images)
    count, sha256 = images.count, images.sha256
    ranges = ranges_of(placement, histograms, RangeMethod(options.method, options.percentile), form)
    quantized = quantize(program, placement, ranges, form)
    errors: dict[str, float] = {}
    if options.rounding != "nearest":
        progress.stage(f"round weights, {options.rounding}")
        quantized, errors = _rounded(options, given.seed, program, quantized, images)
    check_masks(quantized)
    oddities = fallbacks(placement, histograms, form)
    fact = Calibrated(options, count, sha256, placement.layers, oddities, errors)
    return StepOutput(quantized, fact=fact, cost=StepCost(samples=count), aim=aim, note=_note(fact))


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


def _aim(placement: Placement, precision: str) -> Aim:
    """The layers that weren't kept by name and could be on grids, and those of them that are."""
    asked = [layer for layer in placement.layers if layer.reason not in (KEPT, NOT_LINEAR)]
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
    if fact.fallbacks:
        name, oddity = next(iter(fact.fallbacks.items()))
        said.append(f"{len(fact.fallbacks)} tensors tell no range, or hardly any ({name}: {oddity}).")
    return " ".join(said)
