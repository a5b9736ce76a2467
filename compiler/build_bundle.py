"""``prunec build``: the engine of a bundle that was compiled without one, on the device itself."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunec.compiler.artifacts import bundle_onnx, bundle_program, intact_bundle
from prunec.compiler.assemble import engine_part, latency_part
from prunec.compiler.backend import MODEL_ONNX, engine_accuracy, write_typed
from prunec.compiler.bundle import REPORT_NAME, Bundle, amend_bundle
from prunec.compiler.gates import GateCheck, accuracy_gate, engine_gate, exit_code, speedup_gate
from prunec.compiler.progress import Progress
from prunec.compiler.project import ModelOptions, Project, check_fit
from prunec.compiler.report import Gate, GpuState, Report, needed_reasons
from prunec.compiler.report_html import render_html
from prunec.compiler.report_text import layers_csv
from prunec.compiler.truth_table import FIELDS, engine_reasons, with_engine_facts
from prunec.compiler.verify_bundle import ENGINE_TOLERANCE, engine_error, same_source
from prunec.passes.errors import NumericMismatchError
from prunec.passes.program import Program
from prunec.runtime.engines.building import ENGINE_FILES, EngineInfo, build_engine, choose_builder
from prunec.runtime.engines.measuring import DeviceMeasurement, measure_on_device
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.shapes import SizeRange
from prunec.runtime.numerics import batch_sizes, random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.target import Target

_NO_SOURCE = "needs the dense network beside it: `prunec build BUNDLE --source CHECKPOINT` on the device."


@dataclass(frozen=True)
class Source:
    """The dense checkpoint that a bundle was compiled from, to compare with.

    Attributes:
        checkpoint: its file.
        config: project file; by default the one beside it.
        model: how to read it.
    """

    checkpoint: Path
    config: Path | None
    model: ModelOptions


@dataclass(frozen=True)
class _Built:
    """What building brought: the engine, and where its device is here, what was measured."""

    engine: EngineInfo
    measured: DeviceMeasurement | None = None
    accuracy: float | None = None
    batch: int = 1


def build_bundle(
    path: Path, *, source: Source | None = None, timing_cache: Path | None = None, progress: Progress
) -> Report:
    """Build the engine and write it and the amended report into the bundle, as a whole or not at all.

    An engine that runs here is compared with the compiled program first, then timed.

    Args:
        path: the bundle's folder.
        source: the dense network, for the speed-up and, where its project names data, the engine's accuracy.
        timing_cache: file of kernel timings.
        progress: told what goes on.

    Raises:
        PrunecError: no intact bundle, no builder for its target here, another source, or an engine that computes
            something else.
    """
    bundle = intact_bundle(path)
    target, request = Target.parse(bundle.report.target), bundle.report.engine_request
    ranges = {name: SizeRange.parse(text) for name, text in request.dimensions.items()}
    options = EngineOptions(ranges, request.also_for, timing_cache)
    choose_builder(target, options)
    with amend_bundle(path) as folder:
        progress.stage(f"build the {target} engine")
        for old in ENGINE_FILES.values():
            (folder / old).unlink(missing_ok=True)
        built = _Built(build_engine(target, bundle_onnx(folder), folder, options))
        if built.engine.run_on_device and target.is_nvidia:
            program = bundle_program(folder)
            progress.stage("compare the engine with torch")
            _check_engine(program, target, built.engine)
            progress.stage("measure on the device")
            built = _measured(bundle, program, built.engine, options, source)
        report = _amended(bundle.report, built)
        (folder / "layers.csv").write_text(layers_csv(report.layers))
        (folder / REPORT_NAME).write_text(report.to_json(), encoding="utf-8")
        (folder / "report.html").write_text(render_html(report), encoding="utf-8")
    return report


def _check_engine(program: Program, target: Target, engine: EngineInfo) -> None:
    error = engine_error(program, target, engine.path, engine.kind)
    limit = ENGINE_TOLERANCE[target.precision]
    if not error < limit:
        raise NumericMismatchError(
            f"The engine differs from torch by {error:.1e} (relative), allowed {limit:g} in {target.precision}.",
            hint="The bundle is left as it was.",
        )


def _measured(
    bundle: Bundle, program: Program, engine: EngineInfo, options: EngineOptions, source: Source | None
) -> _Built:
    """Measure an engine where it runs, with the batch and the runs of the CPU's figures."""
    target, seed, on_cpu = Target.parse(bundle.report.target), bundle.manifest.seed or 0, bundle.report.latency_cpu
    batch, runs = (1, 200) if on_cpu is None else (on_cpu.batch, on_cpu.runs)
    inputs = random_inputs(program, batch_sizes(program, (batch,))[0], seed)
    scratch = engine.path.parent / "dense"
    scratch.mkdir()
    try:
        dense, accuracy = None, None
        if source is not None:
            project = Project.find(source.checkpoint, source.config)
            network = project.load(source.checkpoint, source.model).program
            same_source(bundle, network)
            export_onnx(network.eval(), scratch / MODEL_ONNX)
            dense = write_typed(target, scratch / MODEL_ONNX, scratch)
            if (data := project.data(seed)) is not None:
                check_fit(network, data, project.objective())
                accuracy = engine_accuracy(engine, data, project.objective(), options.batch.largest)
        measured = measure_on_device(
            target, engine, bundle_onnx(engine.path.parent), inputs, dense_onnx=dense, options=options, runs=runs,
            seed=seed,
        )  # fmt: skip
    finally:
        for file in scratch.iterdir():
            file.unlink()
        scratch.rmdir()
    return _Built(engine, measured, accuracy, batch)


def _amended(report: Report, built: _Built) -> Report:
    """The report with the engine in it, its gates judged anew, and the exit code that follows."""
    engine, measured, target = built.engine, built.measured, Target.parse(report.target)
    document: dict[str, Any] = report.model_dump(mode="json", by_alias=True)
    layers = with_engine_facts(report.layers, engine, measured)
    gone = {"engine", "size_bytes.engine", *FIELDS}
    reasons = needed_reasons(engine_reasons(target, engine, measured), layers, "layers")
    document["engine"] = engine_part(engine).model_dump(mode="json")
    document["size_bytes"]["engine"] = engine.path.stat().st_size
    document["layers"] = [layer.model_dump(mode="json") for layer in layers]
    if measured is not None:
        if measured.latency is not None:
            document["latency"] = latency_part(measured.latency, built.batch, None).model_dump(mode="json")
            gone.add("latency")
        elif report.latency is None:
            reasons["latency"] = _NO_SOURCE
        if measured.gpu is not None:
            document["environment"]["gpu_state"] = GpuState(**asdict(measured.gpu)).model_dump(mode="json")
            gone.add("environment.gpu_state")
        elif report.environment.gpu_state is None:
            reasons["environment.gpu_state"] = measured.gpu_reason
    if built.accuracy is not None:
        document["accuracy"]["engine"] = built.accuracy
        gone.add("accuracy.engine")
    checks = _judged(report, built)
    document["gates"] = [check.gate.model_dump(mode="json") for check in checks]
    for index, check in enumerate(checks):
        gone.add(f"gates.{index}.value")
        if check.reason is not None:
            reasons[f"gates.{index}.value"] = check.reason
    kept = {key: reason for key, reason in document["reasons"].items() if key not in gone}
    document["reasons"] = {**kept, **reasons}
    document["exit_code"] = exit_code(checks)
    document["status"] = "FAILED" if document["exit_code"] else "PASSED"
    return Report.model_validate(document)


def _judged(report: Report, built: _Built) -> list[GateCheck]:
    """The report's gates in their order, each with what is known now; the engine's is there in any case."""
    checks = [_judge(gate, index, report, built) for index, gate in enumerate(report.gates)]
    if all(gate.name != "engine" for gate in report.gates):
        checks.append(engine_gate(built=True))
    return checks


def _judge(gate: Gate, index: int, report: Report, built: _Built) -> GateCheck:
    latency = built.measured.latency if built.measured is not None else None
    if gate.name == "engine":
        check = engine_gate(built=True)
    elif gate.name == "min_speedup" and latency is not None:
        check = speedup_gate(gate.limit, latency.speedup)
    elif gate.name == "max_drop_points" and built.accuracy is not None:
        check = accuracy_gate(gate.limit, report.accuracy.dense, built.accuracy)
    else:
        return GateCheck(gate, report.reasons.get(f"gates.{index}.value"))
    return check.allowing_unknown() if gate.allow_unknown else check
