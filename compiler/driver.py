"""The driver: from a program, a target and a pipeline to a bundle and its report."""

import os
from pathlib import Path

from prunec.calibration.data import Data
from prunec.compiler import backend
from prunec.compiler.assemble import assemble
from prunec.compiler.bundle import REPORT_NAME, BundleWriter
from prunec.compiler.compilation import Compilation, Settings
from prunec.compiler.control_arms import check_controls, run_controls, run_seeds
from prunec.compiler.objective import Objective
from prunec.compiler.pipeline import Pipeline, default_recipe, from_recipe, parse_pipeline
from prunec.compiler.progress import Progress, Silent
from prunec.compiler.ranks import is_main
from prunec.compiler.recovery_stage import check_recoveries, remove_states
from prunec.compiler.report import Report
from prunec.compiler.report_html import render_html
from prunec.compiler.report_text import layers_csv
from prunec.compiler.stages import run_step
from prunec.passes.errors import PrunecError, UsageError
from prunec.passes.program import Program
from prunec.runtime.target import Target


class HelperFinished(PrunecError):  # noqa: N818 - no error
    """This process helped another to train and is done; no failure."""

    exit_code = 0


def compile_model(
    program: Program,
    target: str | Target = "cpu",
    pipeline: str | Pipeline | None = None,
    data: Data | None = None,
    output: str | Path = "model.bundle",
    *,
    objective: Objective | None = None,
    settings: Settings | None = None,
    force: bool = False,
    recipe: str = "",
    progress: Progress | None = None,
) -> Report:
    """Compile a program for a target and write the bundle.

    Args:
        program: the dense program; not changed.
        target: what to compile for, "a100-2:4" or a `Target`.
        pipeline: the steps, as text or parsed; by default twice fewer MACs, 2:4 where the target has it, and a
            recovery finetune where there is data.
        data: labelled data for recovery and accuracy; without it neither is there.
        output: the bundle's folder.
        objective: loss and metric; cross-entropy and top-1 by default.
        settings: seed, measurement and gates.
        force: replace an existing bundle.
        recipe: text of recipe.toml in the bundle; by default the pipeline alone.
        progress: told what goes on.

    Returns:
        The report, also where a gate failed: see its status and exit code.

    While it trains, the state is kept beside the bundle, in a folder of its name with ``.state`` added; it is removed
    when the bundle is complete. Under ``torchrun`` all processes call this; they train together.

    Raises:
        HelperFinished: in all processes but the first, when the training is over.
        PrunecError: the compile can't be done; then no bundle is written.
    """
    target = Target.parse(target) if isinstance(target, str) else target
    settings = settings or Settings()
    steps = _steps(pipeline, target, data)
    _check_target(target, settings)
    _check_dimensions(program, settings)
    check_recoveries(steps, settings)
    check_controls(steps, settings, data is not None)
    compilation = Compilation(
        dense=program.eval(),
        target=target,
        data=data,
        objective=objective or Objective(),
        settings=settings,
        folder=Path(output),
        program=program,
        progress=progress or Silent(),
        state_folder=Path(f"{output}.state"),
    )
    if not is_main():
        _run_steps(compilation, steps)
        raise HelperFinished(f"Process {os.environ['RANK']} has helped to train; process 0 writes the bundle.")
    with BundleWriter(Path(output), force, seed=settings.seed) as folder:
        compilation.folder = folder
        report = _run(compilation, steps)
        (folder / "plan.json").write_text(compilation.plan.to_json())
        (folder / "recipe.toml").write_text(recipe or f"[recipe]\npipeline = {str(steps)!r}\n")
        (folder / "layers.csv").write_text(layers_csv(report.layers))
        (folder / REPORT_NAME).write_text(report.to_json(), encoding="utf-8")
        (folder / "report.html").write_text(render_html(report), encoding="utf-8")
    remove_states(compilation.state_folder)
    return report


def _check_target(target: Target, settings: Settings) -> None:
    if target.precision == "int8":
        raise UsageError(
            f"Target {target}: int8 needs calibration, which this version doesn't have.",
            hint="Compile in fp32, or on NVIDIA devices in fp16 or bf16.",
        )
    settings.engine_options.check(target)
    batch = settings.engine_options.batch
    if target.is_nvidia and not batch.smallest <= settings.latency_batch <= batch.largest:
        raise UsageError(
            f"Latency is measured at batch {settings.latency_batch}, and the engine takes {batch} "
            "(smallest:tuned:largest).",
            hint="Give one of those sizes with --latency-batch, or a range with that size with --dims.",
        )


def _check_dimensions(program: Program, settings: Settings) -> None:
    """Refuse early what would fail after all the work; other dimensions than the batch are named by the export."""
    varying = {dim for dims in program.dynamic_shapes or () for dim in dims}
    known = {"batch"} if program.batch_is_dynamic else set()
    for name in settings.engine_options.ranges:
        if name not in known and varying <= {0}:
            raise UsageError(
                f"--dims {name}: the network has no dynamic dimension of this name.",
                hint=f"Its only one is {known.pop()!r}." if known else "All its dimensions are fixed.",
            )


def _steps(pipeline: str | Pipeline | None, target: Target, data: Data | None) -> Pipeline:
    if isinstance(pipeline, Pipeline):
        return pipeline
    if pipeline is None:
        return from_recipe(default_recipe(has_data=data is not None), target)
    return parse_pipeline(pipeline)


def _run(compilation: Compilation, pipeline: Pipeline) -> Report:
    _run_steps(compilation, pipeline)
    backend.export(compilation)
    backend.build(compilation)
    backend.measure(compilation)
    compilation.progress.stage("report")
    return assemble(compilation, pipeline)


def _run_steps(compilation: Compilation, pipeline: Pipeline) -> None:
    compilation.measure_accuracy("dense")
    compilation.record_step("dense", compilation.accuracy.get("dense"))
    for step in pipeline.steps:
        compilation.record_step(str(step), run_step(compilation, step.options))
    run_seeds(compilation, pipeline)
    run_controls(compilation, pipeline)
