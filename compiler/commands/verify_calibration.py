"""What a report tells of values on grids, held against the program, whose graph has them, and against the pipeline."""

from collections.abc import Iterator

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.commands.verify_claims import Claim, is_own, pipeline_of, rule
from prunec.compiler.report.calibration_part import CalibrationPart, higher_precision, macs_share
from prunec.compiler.report.ledger_part import chain
from prunec.compiler.report.nulls import NOT_RECORDED
from prunec.compiler.report.report import Report
from prunec.passes.cost import layer_calls
from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.program import Program
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
        yield Claim("calibration is told", told is not None, is_quantized(program.graph))
    if told is None:
        return
    yield from _layer_claims(report, told, program)
    yield Claim("calibration.layers_in_higher_precision", told.layers_in_higher_precision, _count(told))
    yield Claim("calibration.higher_precision_macs", told.higher_precision_macs, macs_share(told.layers))
    yield rule("calibration.layers: a reason stands where a layer isn't on grids", _are_explained(told))
    for options in pipeline.of(Calibrate) if pipeline is not None else ():
        yield Claim("calibration.method", told.method, options.method_text)
        yield from _entry_claims(report, told)


def _layer_claims(report: Report, told: CalibrationPart, program: Program) -> Iterator[Claim]:
    """What each layer computes in by the program's graph; their order and names are those of their calls."""
    try:
        higher = Target.parse(report.target).float_precision
    except (UsageError, MissingDependencyError):
        return
    calls = layer_calls(program.graph, program.samples_of_shapes)
    found = [(layer.operator, precision_on_grids(call) or higher, layer.macs) for call, layer in calls]
    layers = [(layer.operator, layer.precision, layer.macs) for layer in told.layers]
    yield Claim("calibration.layers", layers, found)


def _entry_claims(report: Report, told: CalibrationPart) -> Iterator[Claim]:
    if isinstance(report.ledger, Unknown):
        return
    for entry in chain(report.ledger):
        if entry.stage == Calibrate.name:
            yield Claim("calibration.images", told.images, entry.samples)
    rows, on_grids = known(report.steps) or (), len(told.layers) - _count(told)
    for number, row in enumerate(rows):
        if row.name.startswith(Calibrate.name) and row.aim is not None and not isinstance(row.aim, Unknown):
            yield Claim(f"steps.{number}.aim.got", row.aim.got, float(on_grids))


def _count(told: CalibrationPart) -> int:
    return len(higher_precision(told.layers))


def _are_explained(told: CalibrationPart) -> bool:
    return all((layer.precision in ON_GRIDS) != bool(layer.reason) for layer in told.layers)
