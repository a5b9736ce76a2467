"""Refusals of grids that can't be asked for, from the request alone, before any work. Imports no torch."""

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.pipeline.own_steps import CALIBRATE
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.recovery.quantize_hook import Quantize
from prunec.compiler.recovery.recover_options import Recover
from prunec.passes.errors import UsageError
from prunec.runtime.grid_form import form_of
from prunec.runtime.target import Target


def check_precision(pipeline: Pipeline, target: Target) -> None:
    """Refuse before any work a target on grids that no step puts there, and the step for any other target.

    Raises:
        UsageError: One is there without the other, the step is there twice, or it has options that are for whole
            numbers of 8 bits. Or a training is on other grids than the target's.
    """
    calibrations = pipeline.of(Calibrate)
    count = len(calibrations)
    if count > 1:
        raise UsageError(f"The pipeline has {CALIBRATE} {count} times.", hint="Calibrate once, after all other steps.")
    if count and not target.on_grids:
        raise UsageError(
            f"The pipeline has {CALIBRATE}, and the target {target} computes in {target.precision}.",
            hint=f"Leave it out, or compile for {target.device}-{target.pattern}-int8 where prunec targets lists it.",
        )
    if target.precision != "int8" and any(options.rounding == "learned" for options in calibrations):
        raise UsageError(
            f"{CALIBRATE}: learned rounding chooses between two whole numbers of 8 bits, and {target} has none.",
            hint="Use rounding=nearest or rounding=corrected, or compile for int8.",
        )
    if target.precision == "fp8" and any(options.method == "entropy" for options in calibrations):
        raise UsageError(
            f"{CALIBRATE}: ranges by entropy suit whole numbers; those of {target} are denser near 0, and they clip "
            "far too much.",
            hint="Use method=mse, min-max or percentile.",
        )
    if not count and target.on_grids:
        raise UsageError(
            f"Target {target} computes on grids, and the pipeline has no {CALIBRATE}.",
            hint=f"Add {CALIBRATE} as its last step, or compile for another precision.",
        )
    if target.on_grids:
        _check_trained_grids(pipeline, target)


def _check_trained_grids(pipeline: Pipeline, target: Target) -> None:
    """Refuse weights that are trained to bear the grids of other kernels."""
    form = form_of(target)
    hooks = (hook for options in pipeline.of(Recover) for hook in load_hooks(options.hooks))
    for other in (hook.form for hook in hooks if isinstance(hook, Quantize)):
        if other != form:
            raise UsageError(
                f"recover: the training is on grids of the form {other}, and {target} computes on those of {form}.",
                hint="Leave the hook out: weights alone are on grids."
                if form == "int4"
                else f"Use {Quantize.name}{{form={form}}}.",
            )
