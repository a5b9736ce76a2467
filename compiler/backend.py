"""The stages after the last pass: export to ONNX, build the engine, measure."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from prunec.compiler.compilation import EVALUATION_BATCH, Compilation
from prunec.passes.errors import MissingDependencyError
from prunec.runtime.engines import OnnxRuntimeEngine, build_engine, choose_builder
from prunec.runtime.evaluate import evaluate
from prunec.runtime.latency import LatencyComparison, compare_latency
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx, to_fp16
from torch import Tensor, from_numpy

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
    compilation.size_bytes["compiled_onnx"] = exported.stat().st_size
    if compilation.data is not None:
        compilation.progress.stage("accuracy, exported")
        predict = _predictor(OnnxRuntimeEngine(exported, threads=0))
        batches = compilation.data.test.batches(EVALUATION_BATCH)
        compilation.accuracy["exported"] = evaluate(predict, batches, compilation.objective.metric)


def _predictor(engine: Callable[..., list[np.ndarray]]) -> Callable[[Tensor], Tensor]:
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
    """Latency of the dense and the compiled network in interleaved runs, under ONNX Runtime on this CPU."""
    compilation.progress.stage("measure latency")
    with tempfile.TemporaryDirectory() as scratch:
        dense = Path(scratch) / "dense.onnx"
        export_onnx(compilation.dense.eval(), dense)
        compilation.size_bytes["dense_onnx"] = dense.stat().st_size
        comparison = _compare(compilation, dense, compilation.folder / MODEL_ONNX)
    if compilation.target.is_nvidia:
        compilation.latency_cpu = comparison
        no_device = f"needs the device ({compilation.target.info.title})."
        compilation.reasons["latency"] = compilation.reasons["accuracy.engine"] = no_device
    else:
        compilation.latency = comparison
        compilation.accuracy["engine"] = compilation.accuracy["exported"]
        compilation.reasons["latency_cpu"] = "the target is this CPU: see latency."


def _compare(compilation: Compilation, dense: Path, compiled: Path) -> LatencyComparison:
    settings = compilation.settings
    generator = np.random.default_rng(settings.seed)
    inputs = [
        generator.standard_normal((settings.latency_batch, *example.shape[1:])).astype(np.float32)
        for example in compilation.dense.example_inputs
    ]
    engines = [OnnxRuntimeEngine(path, threads=settings.threads) for path in (dense, compiled)]
    runs = [lambda engine=engine: engine(*inputs) for engine in engines]
    return compare_latency(runs[0], runs[1], runs=settings.latency_runs, seed=settings.seed)
