"""The parts of a report that an engine and its measurements decide: `prunec compile` and `prunec build` put them in."""

import os
from pathlib import Path

from prunec.compiler.facts.outcome import Built, OnTarget, OnThisCpu
from prunec.compiler.machine.environment import find_gpus
from prunec.compiler.machine.file_hash import file_sha256
from prunec.compiler.machine.versions import installed_versions
from prunec.compiler.report.engine_parts import (
    EnginePart,
    EnvironmentPart,
    GpuStatePart,
    LatencyPart,
    LatencyRequestPart,
)
from prunec.compiler.report.network_parts import LayerPart
from prunec.compiler.report.report import Report
from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.size_range import SizeRange
from prunec.passes.unknown import Unknown, known
from prunec.runtime.engines.catalogue import load_engine, preferred_engine
from prunec.runtime.engines.layer_facts import LayerFacts, layer_facts
from prunec.runtime.engines.measuring import Measurement, MeasureSettings
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo, EngineKind
from prunec.runtime.processor import processor
from prunec.runtime.target import Target

NOT_ON_GPU = Unknown("nothing was measured on a GPU.")


def with_engine(report: Report, built: Built) -> Report:
    """The report with an engine in it, or the reason why there is none."""
    difference = {
        "engine_vs_torch_max_relative_error": built.difference_from_torch,
        "engine_vs_fp32_relative_error": built.from_fp32
        if isinstance(built.from_fp32, Unknown)
        else dict(sorted(built.from_fp32.items())),
    }
    return report.model_copy(
        update={
            "engine": built.engine if isinstance(built.engine, Unknown) else _engine_part(built.engine),
            "size_bytes": report.size_bytes.model_copy(update={"engine": built.size_bytes}),
            "numerics": report.numerics.model_copy(update=difference),
        }
    )


def with_layer_facts(report: Report, built: Built, measured: Measurement | Unknown) -> Report:
    """The report with what the engine's builder and measurements tell in every layer's row."""
    target, engine = Target.parse(report.target), known(built.engine)
    kind = engine_kind(report) if engine is None else load_engine(engine.kind)
    layers = [
        _with_facts(layer, layer_facts(kind, target, engine, known(measured), layer.onnx_nodes))
        if layer.is_compiled
        else layer
        for layer in report.layers
    ]
    return report.model_copy(update={"layers": tuple(layers)})


def with_target(report: Report, on_target: OnTarget) -> Report:
    """The report with what was measured of its engine where it runs."""
    gpu = NOT_ON_GPU if isinstance(on_target.engine, Unknown) else on_target.engine.gpu
    gpu_state = gpu if isinstance(gpu, Unknown) else GpuStatePart.of(gpu)
    return report.model_copy(
        update={
            "latency": latency_part(on_target),
            "accuracy": report.accuracy.model_copy(update={"engine": on_target.accuracy}),
            "environment": report.environment.model_copy(update={"gpu_state": gpu_state}),
        }
    )


def engine_options(report: Report) -> EngineOptions:
    """Options of the build that was asked for the report's engine."""
    request = report.engine_request
    ranges = {name: SizeRange.parse(text) for name, text in request.dimensions.items()}
    return EngineOptions(ranges, request.also_for, engine=request.kind)


def latency_request(report: Report) -> LatencyRequestPart:
    """How its engine is timed; of a report that doesn't tell, as its networks were timed on the CPU that wrote it."""
    if (asked := known(report.engine_request.latency)) is not None:
        return asked
    measured = known(report.latency_cpu) or known(report.latency)
    if measured is None:
        return LatencyRequestPart(batch=1, runs=MeasureSettings.runs, threads=MeasureSettings.threads)
    return LatencyRequestPart(batch=measured.batch, runs=measured.runs, threads=measured.threads or 1)


def target_and_engine(report: Report) -> tuple[Target, EngineKind]:
    """The report's target, and the kind of its engine, or of the one that was asked for or would be built here.

    Raises:
        MissingDependencyError: The package that brought the device or the engine isn't installed, or can't be used.
    """
    try:
        return Target.parse(report.target), engine_kind(report)
    except (UsageError, MissingDependencyError) as error:
        engine = known(report.engine)
        name = report.engine_request.kind if engine is None else engine.kind
        raise MissingDependencyError(
            f"The engine{f' {name!r}' if name else ''} of target {report.target} can't be loaded here: {error.message}",
            hint="Install the package that brings them; prunec doctor lists those that are there.",
        ) from error


def engine_kind(report: Report) -> EngineKind:
    """The kind of the report's engine, or of the one that would be built here."""
    if isinstance(report.engine, Unknown):
        return preferred_engine(Target.parse(report.target), engine_options(report))
    return load_engine(report.engine.kind)


def stored_engine(part: EnginePart, folder: Path) -> EngineInfo:
    """The engine of the bundle in a folder, as its report tells it."""
    sizes = known(part.dimensions) or {}
    return EngineInfo(
        kind=part.kind,
        path=folder / part.path,
        builder=known(part.builder) or "an unknown version",
        run_on_device=part.run_on_device,
        gpu=part.gpu,
        ranges={name: SizeRange.parse(text) for name, text in sizes.items()},
    )


def latency_part(measured: OnTarget | OnThisCpu) -> LatencyPart | Unknown:
    """A comparison of latencies as the report tells it."""
    latency = measured.latency
    if isinstance(latency, Unknown):
        return latency
    return LatencyPart.of(measured, latency, dense_ms=latency.dense, compiled_ms=latency.compiled)


def environment_part() -> EnvironmentPart:
    """The part on this machine, before anything was measured on a GPU."""
    return EnvironmentPart(
        versions=installed_versions(),
        processor=processor(),
        threads=os.cpu_count() or 1,
        gpu=", ".join(find_gpus()) or None,
        gpu_state=NOT_ON_GPU,
    )


def _engine_part(engine: EngineInfo) -> EnginePart:
    return EnginePart.of(
        engine,
        path=engine.path.name,
        sha256=file_sha256(engine.path),
        compute_capabilities=[f"{major}.{minor}" for major, minor in engine.compute_capabilities],
        dimensions={name: str(sizes) for name, sizes in engine.ranges.items()},
    )


def _with_facts(layer: LayerPart, facts: LayerFacts) -> LayerPart:
    sparsity = layer.sparsity
    if not isinstance(sparsity, Unknown):
        words = {name: getattr(facts, name) for name in ("found_by_builder", "chosen_by_builder")}
        if sparsity.reason:  # a layer that isn't 2:4 says why itself
            words = {name: known(word) for name, word in words.items()}
        sparsity = sparsity.model_copy(update=words)
    times = {"dense_ms": facts.dense_ms, "sparse_ms": facts.sparse_ms, "gain": facts.gain}
    return layer.model_copy(update={"sparsity": sparsity, **times})
