"""What a report says of INT8, FP8 and INT4, in words, shared by the terminal summary and the HTML page."""

from prunec.calibration.quantization.calibrate import EQUALIZED, UNCHANGED
from prunec.compiler.report.calibration_part import CalibrationPart, higher_precision
from prunec.compiler.report.headline_figures import percent
from prunec.compiler.report.layer_choice_words import choice_rows, precision_title
from prunec.compiler.report.report import Report
from prunec.passes.unknown import known

#: Layers that a line names.
_NAMED = 3


def precision_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of every line on INT8, FP8 or INT4; none where the network has no values on grids."""
    part = known(report.calibration)
    if part is None:
        return []
    precision = precision_title(report)
    return [
        (precision, _layers_words(part)),
        *([] if precision == "INT4" else [("Ranges", f"{part.method} over {part.images} training images")]),
        *_tried(part),
        *choice_rows(report),
        *_rounding(part),
        *_errors(report),
    ]


def _layers_words(part: CalibrationPart) -> str:
    """How many layers compute on grids, and which don't."""
    others = higher_precision(part.layers)
    words = f"{len(part.layers) - len(others)} of {len(part.layers)} layers"
    if not others:
        return words
    names = ", ".join(f"{layer.layer} ({layer.reason})" for layer in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    share = percent(part.higher_precision_macs)
    return f"{words}; {share} of the MACs in {others[0].precision}: {names}{more}"


def _rounding(part: CalibrationPart) -> list[tuple[str, str]]:
    """What was done to weights, and what it brought; nothing where they are rounded to the nearest alone."""
    factor = known(part.largest_factor)
    done = [
        *(["channels equalized" + (f" by up to {factor:.3g}" if factor else "")] if part.equalized else []),
        *([] if part.smoothing is None else [f"outliers smoothed by {part.smoothing:g}"]),
        *([] if part.rounding == "nearest" else [f"rounding {part.rounding}"]),
    ]
    forms = dict.fromkeys((UNCHANGED, EQUALIZED, "nearest", part.rounding))
    errors = ", ".join(f"{name} {part.output_errors[name]:.2g}" for name in forms if name in part.output_errors)
    words = ", ".join(done) + (f": error of the outputs, {errors}" if errors else "")
    return [("Weights", words)] if words else []


def _tried(part: CalibrationPart) -> list[tuple[str, str]]:
    """What was tried, the best first."""
    tried = known(part.tried)
    if not tried:
        return []
    errors = [f"{words} {error:.2g}" for words, error in sorted(tried.items(), key=lambda item: item[1])]
    more = f" and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    what = f"error of the outputs on {known(part.held_back)} images held back"
    return [("Tried", f"{what}: {', '.join(errors[:_NAMED])}{more}")]


def _errors(report: Report) -> list[tuple[str, str]]:
    """How far the engine's outputs are from those of the network without grids."""
    by_output = known(report.numerics.engine_vs_fp32_relative_error)
    if not by_output:
        return []
    named = sorted(by_output.items(), key=lambda item: -item[1])[:_NAMED]
    more = f" and {len(by_output) - _NAMED} more" if len(by_output) > _NAMED else ""
    return [("Engine against fp32", ", ".join(f"{name} {percent(error)}" for name, error in named) + more)]
