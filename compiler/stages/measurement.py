"""The stage that measures: the engine on its target, and on request the float32 files on this CPU beside it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from prunec.calibration.data import Data
from prunec.compiler.facts.outcome import NO_CPU_LATENCY_ASKED, Built, Exported, OnTarget, OnThisCpu
from prunec.compiler.facts.progress import Progress
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import NO_DATA
from prunec.compiler.recovery.objective import Objective
from prunec.compiler.stages.export_network import write_typed
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.engines.measuring import Measurement, MeasureSettings, not_run_here
from prunec.runtime.engines.measuring import measure as measure_engine
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.onnxruntime import OnnxRuntime
from prunec.runtime.engines.protocol import EngineInfo, EngineKind
from prunec.runtime.engines.remote import RemoteSession, open_onnx, survived
from prunec.runtime.evaluate import EVALUATION_BATCH, evaluate, predictor
from prunec.runtime.latency import LatencyComparison
from prunec.runtime.numerics import batch_sizes, random_inputs
from prunec.runtime.onnx_signature import Signature
from prunec.runtime.target import Target


def measure(request: Request, exported: Exported, built: Built, dense_onnx: Path) -> tuple[OnTarget, OnThisCpu]:
    """Latency of the dense and the compiled network in interleaved runs, and accuracy and layer times of the engine.

    The typed form of the dense network goes beside its float32 file, ``dense_onnx``.
    """
    settings, target = request.settings, request.target
    inputs = random_inputs(request.dense, batch_sizes(request.dense, (settings.latency_batch,))[0], settings.seed)
    timing = MeasureSettings(settings.latency_runs, settings.seed, settings.threads)
    kind = preferred_engine(target, settings.engine_options)
    is_this_cpu = kind.name == OnnxRuntime.name
    on_cpu: LatencyComparison | Unknown = NO_CPU_LATENCY_ASKED
    if is_this_cpu or settings.cpu_latency:
        settings.progress.stage("measure latency on this CPU")
        on_cpu = survived(partial(_latency_on_cpu, dense_onnx, exported.onnx, inputs, timing))
    unmeasured = _why_unmeasured(kind, target, built)
    threads = settings.threads if kind.uses_threads else None
    on_target = partial(OnTarget, batch=settings.latency_batch, threads=threads)
    on_this_cpu = partial(OnThisCpu, batch=settings.latency_batch, threads=settings.threads)
    if is_this_cpu:
        accuracy = built.engine if isinstance(built.engine, Unknown) else exported.accuracy
        accuracy = accuracy if request.data is not None else NO_DATA
        return on_target(on_cpu, unmeasured, accuracy), on_this_cpu(Unknown("the target is this CPU: see latency."))
    if isinstance(built.engine, Unknown) or not built.engine.run_on_device:
        missing = built.engine if isinstance(built.engine, Unknown) else unmeasured
        return on_target(unmeasured, unmeasured, missing if request.data is not None else NO_DATA), on_this_cpu(on_cpu)
    engine, typed_onnx = built.engine, exported.typed_onnx
    assert not isinstance(typed_onnx, Unknown)  # the engine was built from it

    def measured() -> Measurement:
        dense = write_typed(target, dense_onnx, dense_onnx.parent)
        options = settings.engine_options
        return measure_engine(
            kind, target, engine, typed_onnx, inputs, dense_onnx=dense, options=options, settings=timing
        )

    settings.progress.stage("measure latency")
    figures = survived(measured)
    network = Signature.of(request.dense)  # inputs and outputs stay as they are
    judged = partial(engine_accuracy, kind, engine, network, request.data, request.objective, settings.progress)
    accuracy = survived(judged)
    latency = figures if isinstance(figures, Unknown) else figures.latency
    return on_target(latency, figures, accuracy), on_this_cpu(on_cpu)


def engine_accuracy(
    kind: EngineKind,
    engine: EngineInfo,
    signature: Signature,
    data: Data | None,
    objective: Objective,
    progress: Progress,
) -> float | Unknown:
    """Metric on the test data of an engine that runs here, in the largest batches that it takes.

    ``signature`` tells of the inputs and outputs of the network that it was built from.
    """
    if data is None:
        return NO_DATA
    progress.stage("accuracy, engine")
    batch = engine.ranges["batch"].largest if "batch" in engine.ranges else EVALUATION_BATCH
    with ENGINES.blame(kind.name), RemoteSession(engine, kind.title, threads=0) as session:
        predict = predictor(session, signature.inputs, signature.outputs)
        return evaluate(predict, data.test.batches(batch), objective.metric)


def _why_unmeasured(kind: EngineKind, target: Target, built: Built) -> Unknown:
    """Why nothing was measured on the target, where that is so."""
    with ENGINES.blame(kind.name):
        if kind.runs_here(target):
            return built.engine if isinstance(built.engine, Unknown) else Unknown(kind.why_not_timed(target))
    return not_run_here(kind, target)


def _latency_on_cpu(
    dense: Path, compiled: Path, inputs: Sequence[NDArray[Any]], timing: MeasureSettings
) -> LatencyComparison:
    with open_onnx(dense, timing.threads) as first, open_onnx(compiled, timing.threads) as second:
        return second.compared_with(first, inputs, timing.runs, timing.seed)
