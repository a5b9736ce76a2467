"""The stages after the last pass: export to ONNX, build the engine, measure."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, from_numpy

from prunec.calibration.data import Data
from prunec.compiler.compilation import EVALUATION_BATCH, Compilation
from prunec.compiler.objective import Objective
from prunec.passes.errors import MissingDependencyError
from prunec.runtime.engines.building import EngineInfo, build_engine, choose_builder
from prunec.runtime.engines.measuring import measure_on_device
from prunec.runtime.engines.onnxruntime import OnnxRuntimeEngine
from prunec.runtime.engines.tensorrt_run import TensorRTEngine
from prunec.runtime.evaluate import evaluate
from prunec.runtime.latency import compare_latency, wall_clock
from prunec.runtime.numerics import batch_sizes, onnx_vs_torch, random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_bf16, to_fp16
from prunec.runtime.target import Target

#: One inference: arrays in the order of the inputs, outputs likewise.
Engine = Callable[..., list[NDArray[Any]]]

MODEL_ONNX = "model.onnx"
MODEL_PT2 = "model.pt2"
#: Precision -> ONNX file that an engine of it is built from; of the others it is MODEL_ONNX.
TYPED_ONNX = {"fp16": "model.fp16.onnx", "bf16": "model.bf16.onnx"}
_CONVERTERS = {"fp16": to_fp16, "bf16": to_bf16}


def exported_file(compilation: Compilation) -> Path:
    """The ONNX file that an engine for the target is built from: typed as the target is."""
    return compilation.folder / typed_name(compilation.target)


def typed_name(target: Target) -> str:
    """Name of the ONNX file in a bundle that the target's engine is built from."""
    return TYPED_ONNX.get(target.precision, MODEL_ONNX)


def write_typed(target: Target, source: Path, folder: Path) -> Path:
    """Write the form of a float32 model that the target's precision asks for; for float32 it is the model itself."""
    if target.precision not in _CONVERTERS:
        return source
    destination = folder / typed_name(target)
    _CONVERTERS[target.precision](source, destination)
    return destination


def export(compilation: Compilation) -> None:
    """Write model.pt2 and the ONNX files; compare ONNX Runtime with torch."""
    compilation.progress.stage("export")
    folder, program, target = compilation.folder, compilation.program.eval(), compilation.target
    program.save(folder / MODEL_PT2)
    export_onnx(program, folder / MODEL_ONNX)
    compilation.onnx_vs_torch = onnx_vs_torch(program, folder / MODEL_ONNX, seed=compilation.settings.seed)
    exported = write_typed(target, folder / MODEL_ONNX, folder)
    compilation.size_bytes["compiled_onnx"] = (folder / MODEL_ONNX).stat().st_size
    if compilation.data is None:
        return
    if target.precision == "bf16":
        compilation.reasons["accuracy.exported"] = "ONNX Runtime has no bfloat16 convolutions on CPUs."
        return
    compilation.progress.stage("accuracy, exported")
    predict = _predictor(OnnxRuntimeEngine(exported, threads=0))
    batches = compilation.data.test.batches(EVALUATION_BATCH)
    compilation.accuracy["exported"] = evaluate(predict, batches, compilation.objective.metric)


def _predictor(engine: Engine) -> Callable[[Tensor], Tensor]:
    return lambda inputs: from_numpy(engine(inputs.numpy())[0])


def build(compilation: Compilation) -> None:
    """Build the engine, where this machine can; else say why not."""
    target, settings = compilation.target, compilation.settings
    if not settings.build_engine:
        compilation.reasons["engine"] = "no engine was asked for (--no-engine)."
        return
    compilation.progress.stage(f"build the {target} engine")
    try:
        choose_builder(target, settings.engine_options)
    except MissingDependencyError as error:
        compilation.reasons["engine"] = str(error).replace("\n", " ")
        return
    compilation.engine = build_engine(target, exported_file(compilation), compilation.folder, settings.engine_options)
    compilation.size_bytes["engine"] = compilation.engine.path.stat().st_size


def measure(compilation: Compilation) -> None:
    """Latency of the dense and the compiled network in interleaved runs, on this CPU and on the device if it is here.

    The CPU's figures are ONNX Runtime's on the float32 files, whatever the target.
    """
    compilation.progress.stage("measure latency")
    target, engine, settings = compilation.target, compilation.engine, compilation.settings
    batch = batch_sizes(compilation.dense, (settings.latency_batch,))[0]
    inputs = random_inputs(compilation.dense, batch, settings.seed)
    with tempfile.TemporaryDirectory() as scratch:
        dense = Path(scratch) / MODEL_ONNX
        export_onnx(compilation.dense.eval(), dense)
        compilation.size_bytes["dense_onnx"] = dense.stat().st_size
        timers = [
            wall_clock(partial(OnnxRuntimeEngine(path, settings.threads), *inputs))
            for path in (dense, compilation.folder / MODEL_ONNX)
        ]
        on_cpu = compare_latency(*timers, runs=settings.latency_runs, seed=settings.seed)
        if engine is not None and engine.run_on_device and target.is_nvidia:
            _measure_on_device(compilation, engine, inputs, write_typed(target, dense, dense.parent))
    if not target.is_nvidia:
        compilation.latency = on_cpu
        compilation.reasons["latency_cpu"] = "the target is this CPU: see latency."
        if engine is not None and "exported" in compilation.accuracy:
            compilation.accuracy["engine"] = compilation.accuracy["exported"]
        return
    compilation.latency_cpu = on_cpu
    if compilation.latency is None:
        compilation.reasons["latency"] = f"needs the device ({target.info.title}), which isn't here."


def _measure_on_device(compilation: Compilation, engine: EngineInfo, inputs: Sequence[Any], dense: Path) -> None:
    """Latency, time per layer and accuracy of an NVIDIA engine on its device. Needs the GPU; not run so far."""
    settings, exported = compilation.settings, exported_file(compilation)
    compilation.on_device = measure_on_device(
        compilation.target,
        engine,
        exported,
        inputs,
        dense_onnx=dense,
        options=settings.engine_options,
        runs=settings.latency_runs,
        seed=settings.seed,
    )
    compilation.latency = compilation.on_device.latency
    if compilation.data is not None:
        compilation.progress.stage("accuracy, engine")
        batch, objective = settings.engine_options.batch.largest, compilation.objective
        compilation.accuracy["engine"] = engine_accuracy(engine, compilation.data, objective, batch)


def engine_accuracy(engine: EngineInfo, data: Data, objective: Objective, batch: int) -> float:
    """Metric of an NVIDIA engine on the test data, run on its device in batches of a size."""
    with TensorRTEngine(engine.path, engine.kind, engine.builder) as compiled:
        return evaluate(_predictor(compiled), data.test.batches(batch), objective.metric)
