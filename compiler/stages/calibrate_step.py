"""The step that puts a network's values on the grids of INT8."""

from collections.abc import Iterable

import torch

from prunec.calibration.quantization.bias_correction import correct_biases
from prunec.calibration.quantization.calibrate import AUTO, Calibrate
from prunec.calibration.quantization.channel_maxima import channel_maxima
from prunec.calibration.quantization.learned_rounding import LearnedRounding
from prunec.calibration.quantization.observed import Observed
from prunec.calibration.quantization.observing import fitting, observe
from prunec.calibration.quantization.range_methods import fallbacks
from prunec.calibration.quantization.sensitivity import relative_squared_error
from prunec.calibration.quantization.settings import few, parted, range_method, settle
from prunec.compiler.facts.pass_facts import Calibrated
from prunec.compiler.facts.step_facts import StepCost, StepInput, StepOutput
from prunec.compiler.stages.calibration_images import CalibrationImages
from prunec.compiler.stages.pass_steps import check_masks
from prunec.passes.base import Aim
from prunec.passes.feeding import BatchInputs, feed
from prunec.passes.program import Program
from prunec.passes.quantization.placement import KEPT, SENSITIVE, Placement, place
from prunec.passes.quantization.preparation import prepared
from prunec.passes.quantization.smoothing import smooth
from prunec.runtime.int8_form import form_of

#: Images of which the ranges of values hang on single ones.
_FEW = 16


def calibrate(options: Calibrate, given: StepInput) -> StepOutput:
    """Fold batch norms, look at the values of training inputs, and put values and weights on grids."""
    progress = given.request.settings.progress
    progress.stage(f"calibrate by {options.method_text}, {options.samples} images")
    images = CalibrationImages(given.program, given, options.samples)
    placement = place(prepared(given.program, equalized=False), options.keep)
    if not placement.sites:
        return StepOutput(given.program, modified=False, cost=StepCost(), aim=_aim(placement))
    samples = parted(images, options.samples)
    looked_at: Iterable[BatchInputs] = samples if options.method == AUTO else images

    def observed_so(equalized: bool) -> Observed:
        program = _prepared(options, given, looked_at, equalized=equalized)
        histograms = observe(program, place(program, options.keep), looked_at)
        return Observed(program, options.keep, histograms, range_method(options), form_of(given.request.target))

    settled = settle(options, observed_so, samples, progress.step)
    observed = settled.observed
    quantized, errors = settled.program, dict[str, float]()
    placement = observed.placement(settled.kept)
    if options.rounding not in (None, "nearest"):
        progress.stage(f"round weights, {options.rounding}")
        quantized, errors = _rounded(options, given.seed, observed.program, quantized, looked_at)
    check_masks(quantized)
    oddities = fallbacks(placement, observed.histograms)
    fact = Calibrated(
        options=settled.options,
        images=images.count,
        sha256=images.sha256,
        layers=placement.layers,
        fallbacks=oddities,
        output_errors=errors,
        tried=settled.tried,
        held_back=settled.held_back,
    )
    cost = StepCost(samples=images.count)
    return StepOutput(quantized, fact=fact, cost=cost, aim=_aim(placement), note=_note(fact))


def _prepared(options: Calibrate, given: StepInput, samples: Iterable[BatchInputs], *, equalized: bool) -> Program:
    """The network in floating point, in the form that goes on grids."""
    program = prepared(given.program, equalized=equalized)
    if options.smooth is not None:
        maxima = channel_maxima(program, fitting(program, samples))
        program = smooth(program, maxima, options.smooth).program
    return program


def _rounded(
    options: Calibrate, seed: int, program: Program, nearest: Program, samples: Iterable[BatchInputs]
) -> tuple[Program, dict[str, float]]:
    """The quantized program with its weights as ``options`` ask, and the error of its outputs so and before."""
    inputs = few(program, samples)
    learn = LearnedRounding(seed=seed).learn if options.rounding == "learned" else correct_biases
    result = learn(program, nearest, inputs).program
    with torch.no_grad():
        expected = feed(program, inputs)
        errors = {
            name: relative_squared_error(feed(each, inputs), expected)
            for name, each in (("nearest", nearest), (str(options.rounding), result))
        }
    return result, errors


def _aim(placement: Placement) -> Aim:
    """The layers that weren't asked to stay in higher precision, and those of them that are on grids."""
    asked = [layer for layer in placement.layers if layer.reason not in (KEPT, SENSITIVE)]
    reasons = dict.fromkeys(layer.reason for layer in asked if layer.reason)
    return Aim("layers in INT8", len(asked), sum(layer.is_quantized for layer in asked), ", ".join(reasons))


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
