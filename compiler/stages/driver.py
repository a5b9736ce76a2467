"""The driver: from a program, a target and a pipeline to a bundle and its report."""

import os
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import RLock

from prunec.calibration.data import Data
from prunec.compiler.bundle.bundle_contents import write_report
from prunec.compiler.bundle.bundle_names import COSTS, MODEL_ONNX, PLAN, RECIPE
from prunec.compiler.bundle.bundle_writer import BundleWriter, refuse_states
from prunec.compiler.facts.outcome import NO_ENGINE_ASKED, Built, Exported, Outcome, Steps
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import StepInput, whole_plan
from prunec.compiler.gates.gate_catalogue import asked_gates
from prunec.compiler.gates.judging import judged
from prunec.compiler.machine.ranks import is_distributed, is_main
from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.compiler.pipeline.recipe import from_recipe, recipe_text
from prunec.compiler.recovery.objective import Objective
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.report.assemble import assemble
from prunec.compiler.report.report import Report
from prunec.compiler.stages.build_engine import build
from prunec.compiler.stages.control_arms import run_controls, run_seeds
from prunec.compiler.stages.cost_models import costs_of
from prunec.compiler.stages.dense_trainings import check_own_training, implied, own_training
from prunec.compiler.stages.early_checks import check_here, check_names
from prunec.compiler.stages.export_network import export, export_dense
from prunec.compiler.stages.low_rank_checks import check_decompositions
from prunec.compiler.stages.measurement import measure
from prunec.compiler.stages.plausible import check_plausible
from prunec.compiler.stages.precision_checks import check_precision
from prunec.compiler.stages.pretrain_step import own_dense
from prunec.compiler.stages.request_checks import (
    check_controls,
    check_limit,
    check_needs,
    check_patterns,
    check_pruning_files,
    check_recoveries,
    check_trained_choices,
)
from prunec.compiler.stages.step_runs import dense_fact, run_steps
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.errors import PrunecError, UsageError, did_you_mean
from prunec.passes.interruption import stop_if_asked, stopping_together
from prunec.passes.network_inputs import BATCH, varying_sizes
from prunec.passes.outputs import OutputForm
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.passes.whole_file import write_whole
from prunec.runtime.costs.cost_file import costs_json
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.network_ranges import with_told_ranges
from prunec.runtime.target import Target

#: What torch's exporter traces it keeps in the process: compiles of several threads go one after another.
_ONE_AT_A_TIME = RLock()


class HelperFinished(PrunecError):  # noqa: N818 - no error
    """This process helped another one to train and is done, which is no failure."""

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
) -> Report:
    """Compile a program for a target and write the bundle.

    Args:
        program: The dense program; not changed. One of another floating-point type is compiled in float32, with a
            warning.
        target: Target to compile for, "a100-2:4" or a `Target`.
        pipeline: The steps, as text or parsed; by default twice fewer MACs, 2:4 where the target has it, and a
            recovery finetune where there is data.
        data: Labelled data for recovery and accuracy; without it neither is there.
        output: The bundle's folder.
        objective: Loss and metric; cross-entropy and top-1 by default.
        settings: Seeds, measurements and gates.
        force: Whether an existing bundle is replaced.

    Returns:
        The report, also where a gate failed: see its status and exit code.

    While it trains, the state is kept beside the bundle, in a folder of its name with ``.state`` added; it is removed
    when the bundle is complete. Compiles of several threads go one after another. Under ``torchrun`` all processes call
    this; they train together.

    Raises:
        HelperFinished: The training is over; raised in all processes but the first.
        PrunecError: The compile can't be done; then no bundle is written.
    """
    target = Target.parse(target) if isinstance(target, str) else target
    steps = _pipeline(pipeline, target, data)
    dense = program.inference()
    single = dense.single()
    if single is not dense:
        warnings.warn("The network was converted to float32, in which prunec compiles.", stacklevel=2)
    request = Request(single, target, steps, data, objective or Objective(), settings or Settings())
    writer = BundleWriter(Path(output), force, seed=request.settings.seed, ends_training=True)
    refuse_states(writer.state_folder, resume=request.settings.resume, force=force)
    with writer if is_main() else nullcontext(), _ONE_AT_A_TIME:
        return compile_request(request, writer)


def compile_request(request: Request, writer: BundleWriter) -> Report:
    """Compile what was asked for into the folder of a bundle's writer, which is entered in the first process.

    Raises:
        HelperFinished: The training is over; raised in all processes but the first.
        PrunecError: The compile can't be done.
    """
    request = _with_known_ranges(request)
    settings = implied(request.settings, request.pipeline, has_data=request.data is not None)
    request = replace(request, settings=settings)
    _check(request)
    with stopping_together() if is_distributed() else nullcontext():
        request, steps = _run_all_steps(request, writer.state_folder)
    if not is_main():
        raise HelperFinished(f"Process {os.environ['RANK']} has helped to train; process 0 writes the bundle.")
    outcome = _finished(request, steps, writer)
    settings.progress.stage("report")
    costs = outcome.steps.costs
    if costs is not None and isinstance(costs.model, FittedCosts):
        write_whole(writer.folder / COSTS, costs_json(costs.model))
    report = judged(assemble(request, outcome), asked_gates(settings), settings.allow_unknown, settings.strict)
    (writer.folder / PLAN).write_text(whole_plan(outcome.steps.history).to_json())
    (writer.folder / RECIPE).write_text(recipe_text(request.pipeline, settings.seed), encoding="utf-8")
    write_report(writer.folder, report)
    return report


def _pipeline(pipeline: str | Pipeline | None, target: Target, data: Data | None) -> Pipeline:
    if pipeline is None:
        return from_recipe({}, target, has_data=data is not None)
    return parse_pipeline(pipeline) if isinstance(pipeline, str) else pipeline


def _check(request: Request) -> None:
    """Refuse early what would fail after all the work."""
    settings, has_data = request.settings, request.data is not None
    Processes.join()
    for check in (check_names, check_here):
        check(request.pipeline, request.target, settings, has_data)
    _check_dimensions(request.dense, settings)
    OutputForm.of(request.dense.graph).check()
    check_own_training(request.pipeline, settings.module is not None)
    check_recoveries(request.pipeline, settings, settings.optimizers, settings.early)
    check_needs(request.pipeline, has_data)
    check_trained_choices(request.pipeline)
    check_decompositions(request.pipeline)
    check_patterns(request.pipeline, request.target)
    check_precision(request.pipeline, request.target)
    check_limit(request.pipeline, 0 if request.data is None else len(request.data.validation))
    check_pruning_files(request.pipeline, settings)
    check_controls(request.pipeline, settings, has_data, settings.optimizers)


def _check_dimensions(program: Program, settings: Settings) -> None:
    """Refuse sizes of dimensions that aren't there."""
    known = [BATCH] * program.batch_is_dynamic + list(varying_sizes(program.inputs))
    for name in settings.engine_options.ranges:
        if name not in known:
            hint = did_you_mean(name, known) if known else "All its dimensions are fixed."
            raise UsageError(f"--dims {name}: the network has no dynamic dimension of this name.", hint=hint)


def _with_known_ranges(request: Request) -> Request:
    """The request with the sizes that the network's description tells, where nothing else is asked for."""
    options = request.settings.engine_options
    engine = preferred_engine(request.target, options)
    with ENGINES.blame(engine.name):
        told = with_told_ranges(engine, request.dense, options)
    return request if told is options else replace(request, settings=replace(request.settings, engine_options=told))


def _run_all_steps(request: Request, state_folder: Path) -> tuple[Request, Steps]:
    """The compile's own steps, then further seeds and control arms; all processes take all of them together.

    Returns:
        The request, with the dense network that the run trained itself where it does, and the results.
    """
    is_own = own_training(request.pipeline) is not None
    request, dense = own_dense(request, state_folder) if is_own else (request, dense_fact(request))
    plausibility = check_plausible(request, dense)
    costs = costs_of(request, state_folder)
    seed = request.settings.seed
    start = StepInput(request.dense, request, seed, (dense,), state_folder=state_folder, costs=costs)
    main = run_steps(start, request.pipeline)
    steps = Steps(main.program, main.history, *run_seeds(main), run_controls(main), plausibility, main.costs)
    return request, steps


def _finished(request: Request, steps: Steps, writer: BundleWriter) -> Outcome:
    """Export, build and measure what the steps have made."""
    settings, dense_onnx = request.settings, writer.scratch / MODEL_ONNX
    stop_if_asked()
    settings.progress.stage("export")
    exported = export(request, steps.program, writer.folder)
    dense_bytes = export_dense(request, dense_onnx)
    stop_if_asked()
    built = _built(request, exported, writer.folder, steps.program)
    stop_if_asked()
    return Outcome(steps, dense_bytes, exported, built, *measure(request, exported, built, dense_onnx))


def _built(request: Request, exported: Exported, folder: Path, program: Program) -> Built:
    if not request.settings.build_engine:
        return Built.nothing(NO_ENGINE_ASKED)
    if isinstance(exported.typed_onnx, Unknown):
        return Built.nothing(exported.typed_onnx.reason)
    request.settings.progress.stage(f"build the {request.target} engine")
    return build(request.target, request.settings.engine_options, exported.typed_onnx, folder, program)
