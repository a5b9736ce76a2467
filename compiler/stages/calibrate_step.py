"""The step that puts a network's values on the grids of INT8 or FP8, or weights on those of INT4."""

from prunec.calibration.quantization.calibrate import (
    AUTO,
    EQUALIZED,
    ROUNDING_STAGE,
    SETTINGS_STAGE,
    UNCHANGED,
    Calibrate,
)
from prunec.calibration.quantization.observing import fitting
from prunec.calibration.quantization.parted import PartedSamples, parted
from prunec.calibration.quantization.range_methods import fallbacks, weight_fallbacks
from prunec.calibration.quantization.settings import ChannelChanges, Settled, few, settle
from prunec.compiler.facts.choice_stages import SENSITIVITY
from prunec.compiler.facts.layer_choice import LayerChoice
from prunec.compiler.facts.pass_facts import Calibrated
from prunec.compiler.facts.step_facts import Beside, StepCost, StepInput, StepOutput
from prunec.compiler.stages.calibration_images import CalibrationImages
from prunec.compiler.stages.mixed_precision import booked, choose_layers
from prunec.compiler.stages.pass_steps import check_masks
from prunec.compiler.stages.weight_rounding import WeightRounder
from prunec.passes.base import Aim
from prunec.passes.quantization.placement import KEPT, NOT_LINEAR, SENSITIVE, Placement, place
from prunec.passes.quantization.preparation import prepared
from prunec.runtime.grid_form import form_of

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
        aim = _aim(placement, options, precision)
        note = _nothing_done(placement, options, precision)
        return StepOutput(given.program, modified=False, cost=StepCost(), aim=aim, note=note)
    samples = parted(images, options.samples) if options.method == AUTO else PartedSamples(images)
    settled = settle(options, given.program, form, samples, progress.step)
    asked, options, observed = options, settled.options, settled.observed
    rounder = WeightRounder(given, settled, samples)
    choice, kept = None, settled.kept
    if options.limit is not None:
        batches = list(fitting(observed.program, [few(observed.program, samples.looked_at)]))
        choice = choose_layers(options, given, observed, batches, rounder)
        kept = choice.search.kept
    quantized, placement = rounder(kept), observed.placement(kept)
    check_masks(quantized)
    fact = Calibrated(
        options=options,
        images=images.count,
        sha256=images.sha256,
        layers=placement.layers,
        fallbacks={**fallbacks(placement, observed.histograms, form), **weight_fallbacks(placement, quantized, form)},
        output_errors=rounder.errors(kept),
        tried=settled.tried,
        held_back=settled.held_back,
        choice=choice,
        largest_factor=settled.channels.largest_factor if settled.channels.equalized else None,
    )
    said = (_note(fact, images), _channel_note(asked, settled.channels, fact), _judged_note(rounder))
    return StepOutput(
        quantized if placement.weights else given.program,
        modified=bool(placement.weights),
        fact=fact,
        cost=StepCost(samples=images.count),
        beside=(*_booked(settled, rounder, images, given), *(() if choice is None else booked(choice, options, given))),
        aim=_aim(placement, options, precision),
        note=" ".join(filter(None, (*said, _nothing_done(placement, options, precision)))),
    )


def _booked(
    settled: Settled, rounder: WeightRounder, images: CalibrationImages, given: StepInput
) -> tuple[Beside, ...]:
    """What ran beside the one run over the images, for the ledger."""
    costs: dict[str, StepCost | None] = {
        SETTINGS_STAGE: _run(settled.samples_run - images.count),
        SENSITIVITY: _run(settled.samples_for_sensitivity),
        ROUNDING_STAGE: rounder.cost,
    }
    weights = given.history[-1].weights
    return tuple(Beside(stage, settled.options, cost, weights) for stage, cost in costs.items() if cost is not None)


def _run(samples: int) -> StepCost | None:
    return StepCost(samples=samples) if samples > 0 else None


def _aim(placement: Placement, options: Calibrate, precision: str) -> Aim:
    """The layers but those that were asked to stay in higher precision, and those of them that are on grids.

    Where none is on a grid, whoever asked for it, all layers count as asked for: nothing was done.
    """
    left_out = (KEPT, NOT_LINEAR) if options.keep_macs is None else (KEPT, NOT_LINEAR, SENSITIVE)
    asked = [layer for layer in placement.layers if layer.reason not in left_out or not placement.weights]
    reasons = dict.fromkeys(layer.reason for layer in asked if layer.reason)
    return Aim(
        f"layers in {precision.upper()}",
        len(asked) if placement.weights else max(len(asked), 1),
        sum(layer.is_quantized for layer in asked),
        ", ".join(reasons) or "the network has no layers" * (not asked),
    )


def _nothing_done(placement: Placement, options: Calibrate, precision: str) -> str:
    """That no layer is on a grid, and what was asked for that explains it; empty where some are."""
    if placement.weights:
        return ""
    words = [f"No layer is in {precision.upper()}: the network stays as it is."]
    kept = sum(layer.reason == KEPT for layer in placement.layers)
    if kept:
        words.append(f"keep=[{','.join(options.keep)}] holds {kept} of {len(placement.layers)} layers back.")
    return " ".join(words)


def _note(fact: Calibrated, images: CalibrationImages) -> str:
    """What the user should know of the values that were looked at, in sentences."""
    asked, said = fact.options.samples, list[str]()
    if fact.images < min(asked, _FEW):
        said.append(f"{fact.images} images were calibrated on: ranges hang on single ones; {_FEW} or more tell better.")
    elif images.there < asked:
        said.append(f"{images.there} of {asked} images were there.")
    if fact.images < images.there:
        said.append(f"{fact.images} of {images.there} images were looked at: {images.at_once} run together.")
    if fact.choice is not None and not fact.choice.is_met:
        said.append(_unmet(fact.choice, str(fact.options.rounding)))
    if fact.fallbacks:
        name, oddity = next(iter(fact.fallbacks.items()))
        said.append(f"{len(fact.fallbacks)} tensors tell no range, or hardly any ({name}: {oddity}).")
    return " ".join(said)


def _channel_note(asked: Calibrate, channels: ChannelChanges, fact: Calibrated) -> str:
    """What equalization and smoothing found nothing to do, or made worse."""
    said = []
    if asked.smooth is not None and not channels.smoothed:
        said.append("smooth did nothing: no layer norm is followed by layers alone.")
    if asked.equalize and not channels.equalized:
        said.append("equalize did nothing: no channels lie between layers alone.")
    done = ["equalize"] * bool(channels.equalized) + ["smooth"] * bool(channels.smoothed)
    without = {UNCHANGED: done, EQUALIZED: ["smooth"]}
    if channels.equalized and not asked.equalize:  # it was chosen by trying
        del without[UNCHANGED]
    errors = {form: fact.output_errors[form] for form in without if form in fact.output_errors}
    after, least = fact.output_errors.get("nearest", 0.0), min(errors, key=errors.__getitem__, default=None)
    if least is not None and errors[least] < after:
        names, less = " and ".join(without[least]), errors[least]
        said.append(f"{names} raised the error of the outputs from {less:.2g} to {after:.2g}: leave out {names}.")
    return " ".join(said)


def _judged_note(rounder: WeightRounder) -> str:
    """Where errors aren't those of images that nothing was learned from."""
    if not rounder.learns_from_judged:
        return ""
    return "Errors of the outputs are those on the images that weights were rounded by: there are no others."


def _unmet(choice: LayerChoice, rounding: str) -> str:
    """A sentence that says that a limit isn't met, and why."""
    limit, search, unit = choice.limit, choice.search, " points" * (choice.loss.margin is not None)
    lost = f"{choice.loss.value:.3g}{unit} are lost on {search.samples} held-back samples"
    why = "even with every layer in higher precision, since products of activations stay on grids"
    if choice.is_judged_again and search.loss.value <= limit.most:
        why = f"with rounding={rounding}, {search.loss.value:.3g} with weights rounded to the nearest"
    return f"{limit.measure}={limit.most:g} isn't met: {lost} {why}."
