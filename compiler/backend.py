"""The stages after the last pass: export to ONNX, build the engine, measure."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, from_numpy

from prunec.compiler.compilation import EVALUATION_BATCH, Compilation
from prunec.passes.errors import MissingDependencyError
from prunec.runtime.engines.building import EngineInfo, build_engine, choose_builder
from prunec.runtime.engines.onnxruntime import OnnxRuntimeEngine
from prunec.runtime.engines.tensorrt import MAX_BATCH, TensorRTEngine
from prunec.runtime.evaluate import evaluate
from prunec.runtime.latency import LatencyComparison, compare_latency
from prunec.runtime.numerics import batch_sizes, onnx_vs_torch, random_inputs
from prunec.runtime.onnx_export import export_onnx, to_fp16

#: One inference: arrays in the order of the inputs, outputs likewise.
Engine = Callable[..., list[NDArray[Any]]]

MODEL_ONNX = "model.onnx"
MODEL_FP16_ONNX = "model.fp16.onnx"
MODEL_PT2 = "model.pt2"


def exported_file(compilation: Compilation) -> Path:
    """The ONNX file that an engine for the target is built from: fp16-typed where the target is."""
    return compilation.folder / (MODEL_FP16_ONNX if compilation.target.precision == "fp16" else MODEL_ONNX)


def export(compilation: Compilation) -> None:
    """Write model.pt2 and the ONNX files; compare ONNX Runtime with torch."""
    compilation.progress.stage("export")
    folder, program = compilation.folder, compilation.program.eval()
    program.save(folder / MODEL_PT2)
    export_onnx(program, folder / MODEL_ONNX)
    compilation.onnx_vs_torch = onnx_vs_torch(program, folder / MODEL_ONNX, seed=compilation.settings.seed)
    exported = exported_file(compilation)
    if compilation.target.precision == "fp16":
        to_fp16(folder / MODEL_ONNX, exported)
    compilation.size_bytes["compiled_onnx"] = (folder / MODEL_ONNX).stat().st_size
    if compilation.data is not None:
        compilation.progress.stage("accuracy, exported")
        predict = _predictor(OnnxRuntimeEngine(exported, threads=0))
        batches = compilation.data.test.batches(EVALUATION_BATCH)
        compilation.accuracy["exported"] = evaluate(predict, batches, compilation.objective.metric)


def _predictor(engine: Engine) -> Callable[[Tensor], Tensor]:
    return lambda inputs: from_numpy(engine(inputs.numpy())[0])


def build(compilation: Compilation) -> None:
    """Build the engine, where this machine can; else say why not."""
    target = compilation.target
    if not compilation.settings.build_engine:
        compilation.reasons["engine"] = "no engine was asked for (--no-engine)."
        return
    compilation.progress.stage(f"build the {target} engine")
    try:
        choose_builder(target)
    except MissingDependencyError as error:
        compilation.reasons["engine"] = str(error).replace("\n", " ")
        return
    compilation.engine = build_engine(target, exported_file(compilation), compilation.folder)
    compilation.size_bytes["engine"] = compilation.engine.path.stat().st_size


def measure(compilation: Compilation) -> None:
    """Latency of the dense and the compiled network in interleaved runs, on this CPU and on the device if it is here.

    The CPU's figures are ONNX Runtime's on the float32 files, whatever the target.
    """
    compilation.progress.stage("measure latency")
    target, engine = compilation.target, compilation.engine
    with tempfile.TemporaryDirectory() as scratch:
        dense = Path(scratch) / "dense.onnx"
        export_onnx(compilation.dense.eval(), dense)
        compilation.size_bytes["dense_onnx"] = dense.stat().st_size
        threads = compilation.settings.threads
        pair = [OnnxRuntimeEngine(path, threads) for path in (dense, compilation.folder / MODEL_ONNX)]
        on_cpu = _compare(compilation, pair[0], pair[1])
        if engine is not None and engine.kind == "tensorrt":
            measure_on_gpu(compilation, engine, dense)
    if not target.is_nvidia:
        compilation.latency = on_cpu
        compilation.reasons["latency_cpu"] = "the target is this CPU: see latency."
        if engine is not None and "exported" in compilation.accuracy:
            compilation.accuracy["engine"] = compilation.accuracy["exported"]
        return
    compilation.latency_cpu = on_cpu
    if compilation.latency is None:
        compilation.reasons["latency"] = f"needs the device ({target.info.title}), which isn't here."


def measure_on_gpu(compilation: Compilation, engine: EngineInfo, dense: Path) -> None:
    """Accuracy and latency of the TensorRT engine on its device, against a dense engine of the same precision.

    Needs the GPU; not run so far.
    """
    target = compilation.target
    typed = dense
    if target.precision == "fp16":
        typed = dense.with_name("dense.fp16.onnx")
        to_fp16(dense, typed)
    plan = build_engine(replace(target, pattern="dense"), typed, dense.parent)
    with TensorRTEngine(plan.path) as reference, TensorRTEngine(engine.path) as compiled:
        compilation.latency = _compare(compilation, reference, compiled)
        if compilation.data is not None:
            batches = compilation.data.test.batches(MAX_BATCH)
            metric = compilation.objective.metric
            compilation.accuracy["engine"] = evaluate(_predictor(compiled), batches, metric)


def _compare(compilation: Compilation, dense: Engine, compiled: Engine) -> LatencyComparison:
    settings = compilation.settings
    batch = batch_sizes(compilation.dense, (settings.latency_batch,))[0]
    inputs = random_inputs(compilation.dense, batch, settings.seed)
    return compare_latency(
        lambda: dense(*inputs), lambda: compiled(*inputs), runs=settings.latency_runs, seed=settings.seed
    )
