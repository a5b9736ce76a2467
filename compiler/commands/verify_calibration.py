"""What a report tells of values on grids, held against the program, whose graph has them, and against the pipeline."""

from collections.abc import Iterator

from prunec.calibration.quantization.calibrate import AUTO, ROUNDING_STAGE, SETTINGS_STAGE, Calibrate, setting_words
from prunec.compiler.commands.verify_claims import Claim, is_own, pipeline_of, rule
from prunec.compiler.facts.choice_stages import SPLITS, samples_run
from prunec.compiler.report.calibration_part import CalibrationPart, higher_precision, macs_share
from prunec.compiler.report.ledger_part import chain
from prunec.compiler.report.nulls import NOT_RECORDED
from prunec.compiler.report.report import Report
from prunec.passes.cost import layer_calls
from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.program import Program
from prunec.passes.quantization.placement import SENSITIVE
from prunec.passes.quantization.quantizers import is_quantized, precision_on_grids
from prunec.passes.unknown import Unknown, known
from prunec.runtime.devices import ON_GRIDS
from prunec.runtime.target import Target


def calibration_claims(report: Report, program: Program) -> Iterator[Claim]:
    """The claims on the calibration, and on what every layer computes in."""
    if report.calibration == NOT_RECORDED:
        return
    told, pipeline = known(report.calibration), pipeline_of(report)
    if is_own(pipeline) or is_quantized(program.graph):
        yield rule("calibration is told", told is not None or not is_quantized(program.graph))
    if told is None:
        yield from _aim_claims(report, 0)
        return
    yield from _layer_claims(report, told, program)
    yield Claim("calibration.layers_in_higher_precision", told.layers_in_higher_precision, _count(told))
    yield Claim("calibration.higher_precision_macs", told.higher_precision_macs, macs_share(told.layers))
    yield from _choice_claims(report, told)
    yield rule("calibration.layers: a reason stands where a layer isn't on grids", _are_explained(told))
    for options in pipeline.of(Calibrate) if pipeline is not None else ():
        yield from _setting_claims(told, options)
        yield from _entry_claims(report, told)


def _layer_claims(report: Report, told: CalibrationPart, program: Program) -> Iterator[Claim]:
    """What each layer computes in by the program's graph; their order and names are those of their calls."""
    try:
        higher = Target.parse(report.target).float_precision
    except (UsageError, MissingDependencyError):
        return
    calls = layer_calls(program.graph, program.samples_of_shapes)
    computed = [(layer.operator, precision_on_grids(call) or higher, layer.macs) for call, layer in calls]
    layers = [(layer.operator, layer.precision, layer.macs) for layer in told.layers]
    yield Claim("calibration.layers", layers, computed)


def _setting_claims(told: CalibrationPart, options: Calibrate) -> Iterator[Claim]:
    """The settings: those that were asked for, and where they were to be tried the best of what was."""
    tried, equalized = known(told.tried), told.equalized
    # A network in which nothing can be smoothed isn't.
    smooth = None if told.smoothing is None else options.smooth
    yield Claim("calibration.smoothing", told.smoothing, smooth)
    if options.method != AUTO:
        yield Claim("calibration.method", told.method, options.method_text)
        yield Claim("calibration.equalized", equalized, options.equalize is True)
        yield Claim("calibration.rounding", told.rounding, options.rounding or "nearest")
        return
    yield rule("calibration.tried is told", bool(tried))
    if tried:
        words = setting_words(
            told.method, equalized, corrected=options.rounding is None and told.rounding == "corrected"
        )
        yield Claim("calibration.method, of what was tried", words, min(tried, key=tried.__getitem__))
    if options.equalize is not None:
        yield Claim("calibration.equalized", equalized, options.equalize)
    if options.rounding is not None:
        yield Claim("calibration.rounding", told.rounding, options.rounding)


def _choice_claims(report: Report, told: CalibrationPart) -> Iterator[Claim]:
    """The layers in higher precision for a limit, held against the table, the pipeline and the ledger."""
    path, pipeline, choice = "calibration.choice", pipeline_of(report), known(told.choice)
    if told.choice == NOT_RECORDED:
        return
    for options in pipeline.of(Calibrate) if pipeline is not None else ():
        asked = None if options.limit is None else (options.limit.measure, options.limit.most)
        yield Claim(f"{path}, the limit", None if choice is None else (choice.measure, choice.limit), asked)
    kept = {layer.layer for layer in told.layers if layer.reason == SENSITIVE}
    budgets = [options.keep_macs for options in pipeline.of(Calibrate)] if pipeline is not None else []
    if kept and choice is None and budgets and budgets[0] is not None:
        yield rule("calibration.higher_precision_macs <= keep_macs", told.higher_precision_macs <= budgets[0])
        return
    yield Claim(f"{path}.kept", set() if choice is None else set(choice.kept), kept)
    if choice is None:
        return
    tried = {frozenset(trial.kept): (trial.lost, trial.margin) for trial in choice.trials}
    yield Claim(f"{path}.is_met", choice.is_met, choice.lost <= choice.limit)
    yield rule(f"{path}.kept was tried", frozenset(choice.kept) in tried)
    if not choice.is_judged_again:
        yield Claim(f"{path}.lost", (choice.lost, choice.margin), tried.get(frozenset(choice.kept)))
    on_grids = {layer.layer for layer in told.layers if layer.precision in ON_GRIDS}
    yield Claim(f"{path}.sensitivities", {each.layer for each in choice.sensitivities}, on_grids | kept)
    run = samples_run(
        choice.measure,
        layers=len(choice.sensitivities),
        images=choice.images,
        judged=len(choice.trials) + choice.is_judged_again,
        samples=choice.samples,
    )
    if not isinstance(report.ledger, Unknown):
        beside = {entry.stage: entry for entry in report.ledger if not entry.run and entry.weights_out is None}
        booked = {stage: (beside[stage].samples, beside[stage].split) for stage in run.keys() & beside.keys()}
        yield Claim(f"{path}, the ledger", booked, {stage: (count, SPLITS[stage]) for stage, count in run.items()})


def _entry_claims(report: Report, told: CalibrationPart) -> Iterator[Claim]:
    if isinstance(report.ledger, Unknown):
        return
    for entry in chain(report.ledger):
        if entry.stage == Calibrate.name:
            yield Claim("calibration.images", told.images, entry.samples)
    yield from _aim_claims(report, len(told.layers) - _count(told))
    if told.largest_factor == NOT_RECORDED:  # nor is what ran beside it, in reports from before
        return
    booked = {entry.stage for entry in report.ledger if not entry.run and entry.weights_out is None}
    if told.output_errors:
        yield rule("calibration.output_errors, the ledger has what they ran", ROUNDING_STAGE in booked)
    if told.tried != NOT_RECORDED and told.tried:
        yield rule("calibration.tried, the ledger has what it ran", SETTINGS_STAGE in booked)
    factor = known(told.largest_factor)
    yield rule("calibration.largest_factor is one of equalization", factor is None or (told.equalized and factor >= 1))


def _aim_claims(report: Report, on_grids: int) -> Iterator[Claim]:
    """What the step reached is the number of layers that are on grids."""
    for number, row in enumerate(known(report.steps) or ()):
        if row.name.startswith(Calibrate.name) and row.aim is not None and not isinstance(row.aim, Unknown):
            yield Claim(f"steps.{number}.aim.got", row.aim.got, float(on_grids))


def _count(told: CalibrationPart) -> int:
    return len(higher_precision(told.layers))


def _are_explained(told: CalibrationPart) -> bool:
    return all((layer.precision in ON_GRIDS) != bool(layer.reason) for layer in told.layers)
