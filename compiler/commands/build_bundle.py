"""``prunec build``: the engine of a bundle that was compiled without one, on the device itself."""

from dataclasses import dataclass, replace
from pathlib import Path

from prunec.compiler.bundle.bundle_contents import write_report
from prunec.compiler.bundle.bundle_names import MODEL_ONNX
from prunec.compiler.bundle.bundle_reader import Bundle, bundle_onnx, bundle_program, intact_bundle
from prunec.compiler.bundle.bundle_writer import amend_bundle
from prunec.compiler.commands.verify_source import same_source
from prunec.compiler.facts.outcome import Built, OnTarget
from prunec.compiler.facts.progress import Progress
from prunec.compiler.gates.judging import gates_of, judged_anew
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Project, check_fit
from prunec.compiler.report.engine_facts import (
    engine_options,
    latency_request,
    target_and_engine,
    with_engine,
    with_layer_facts,
    with_target,
)
from prunec.compiler.report.report import Report
from prunec.compiler.stages.build_engine import build
from prunec.compiler.stages.export_network import write_typed
from prunec.compiler.stages.measurement import engine_accuracy
from prunec.passes.errors import MissingDependencyError
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.catalogue import choose_engine, load_engine
from prunec.runtime.engines.measuring import MeasureSettings, measure
from prunec.runtime.engines.onnxruntime import OnnxRuntime
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo
from prunec.runtime.numerics import batch_sizes, random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_signature import Signature
from prunec.runtime.target import Target


@dataclass(frozen=True)
class DenseCheckpoint:
    """The dense checkpoint that a bundle was compiled from; its project file is by default the one beside it."""

    checkpoint: Path
    config: Path | None
    model: ModelOptions


def build_bundle(
    path: Path, *, source: DenseCheckpoint | None = None, timing_cache: Path | None = None, progress: Progress
) -> Report:
    """Build the engine and write it and the new report into the bundle, as a whole or not at all.

    An engine that runs here is compared with the compiled program first, then timed.

    Args:
        path: The bundle's folder.
        source: The dense network, for the speed-up and, where its project names data, the engine's accuracy.
        timing_cache: File of kernel timings, for TensorRT.
        progress: Receiver of the stages.

    Raises:
        PrunecError: There is no intact bundle, no builder for its target here, another source, or the engine computes
            something else.
    """
    bundle = intact_bundle(path)
    report, gates = bundle.report, gates_of(bundle.report)
    target, _ = target_and_engine(report)
    options = replace(engine_options(report), timing_cache=timing_cache)
    choose_engine(target, options)
    with amend_bundle(bundle) as writer:
        folder = writer.folder
        progress.stage(f"build the {target} engine")
        if not isinstance(report.engine, Unknown) and not report.engine.path.endswith(".onnx"):
            (folder / report.engine.path).unlink(missing_ok=True)
        program = bundle_program(folder)
        built = build(target, options, bundle_onnx(folder), folder, program)
        if isinstance(built.engine, Unknown):
            raise MissingDependencyError(built.engine.reason, hint="The bundle is as it was.")
        report = with_engine(report, built)
        engine = built.engine
        if not engine.run_on_device or engine.kind == OnnxRuntime.name:
            report = with_layer_facts(report, built, Unknown("the engine was not run."))
        else:
            progress.stage("measure on the device")
            on_target = _measured(bundle, program, engine, options, source, progress, writer.scratch)
            report = _with_measurements(report, built, on_target)
        report = judged_anew(report, gates)
        write_report(folder, report)
    return report


def _measured(
    bundle: Bundle,
    program: Program,
    engine: EngineInfo,
    options: EngineOptions,
    source: DenseCheckpoint | None,
    progress: Progress,
    scratch: Path,
) -> OnTarget:
    """Measure an engine where it runs, with the batch and the runs that the compile asked for."""
    report, target, kind = bundle.report, Target.parse(bundle.report.target), load_engine(engine.kind)
    asked, seed = latency_request(report), bundle.manifest.seed or 0
    (batch,) = batch_sizes(program, (asked.batch,))
    inputs = random_inputs(program, batch, seed)
    settings, onnx = MeasureSettings(asked.runs, seed, asked.threads), bundle_onnx(engine.path.parent)
    dense_onnx, accuracy = None, report.accuracy.engine
    if source is not None:
        project = Project.find(source.checkpoint, source.config)
        network = project.load(source.checkpoint, source.model).program
        same_source(bundle, network)
        export_onnx(network, scratch / MODEL_ONNX)
        dense_onnx = write_typed(target, scratch / MODEL_ONNX, scratch)
        if (data := project.data(seed)) is not None:
            check_fit(network, data, project.objective())
            accuracy = engine_accuracy(kind, engine, Signature.of(program), data, project.objective(), progress)
    measured = measure(kind, target, engine, onnx, inputs, dense_onnx=dense_onnx, options=options, settings=settings)
    return OnTarget(measured.latency, measured, accuracy, batch, asked.threads if kind.uses_threads else None)


def _with_measurements(report: Report, built: Built, on_target: OnTarget) -> Report:
    """The report with new figures; a latency that was measured before stays where there is no new one."""
    earlier = report.latency
    report = with_target(with_layer_facts(report, built, on_target.engine), on_target)
    is_lost = isinstance(report.latency, Unknown) and not isinstance(earlier, Unknown)
    return report.model_copy(update={"latency": earlier}) if is_lost else report
