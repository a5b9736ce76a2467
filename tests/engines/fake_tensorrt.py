"""Thin fakes of TensorRT 10, TensorRT 11 and Polygraphy's runner: nothing here has seen a GPU.

They have the calls that prunec makes and no others, so that a call that a version doesn't have fails. What the builder
says is recorded: TensorRT's own lines, with other layer names.
"""

import json
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime

#: Lines of TensorRT's log, from 8.6's and 10's builders; {} is a list of layers.
FOUND = {
    8: "(Sparsity) Layers eligible for sparse math: {}",
    10: "(Sparsity) Found {n} layer(s) eligible to use sparse tactics: {}",
}
CHOSE = {
    8: "(Sparsity) TRT inference plan picked sparse implementation for layers: {}",
    10: "(Sparsity) Chose {n} layer(s) using sparse tactics: {}",
}
SPARSE_KERNEL = "sm80_xmma_fprop_sparse_conv_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x128x64"
DENSE_KERNEL = "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x64"


def fake_tensorrt(version: str, *, lines: Sequence[str] = (), fails: str = "") -> ModuleType:
    """A fake ``tensorrt`` module.

    Args:
        version: "10.x" has the flag STRONGLY_TYPED, from "11" on it is gone.
        lines: Lines that the builder logs.
        fails: a message with which building fails.
    """
    trt = ModuleType("tensorrt")
    trt.__spec__ = ModuleSpec("tensorrt", None)  # torch._dynamo looks for it when it is first imported
    major = int(version.partition(".")[0])
    built: list[SimpleNamespace] = []

    class ILogger:
        ERROR, INTERNAL_ERROR, INFO = "error", "internal error", "info"

    class Profile(dict[str, Any]):
        def set_shape(self, name: str, *sizes: tuple[int, ...]) -> None:
            self[name] = sizes

    class Config:
        def __init__(self) -> None:
            self.flags: set[str] = set()
            self.profiles: list[Profile] = []
            self.timings = b""
            self.profiling_verbosity = None

        def set_flag(self, flag: str) -> None:
            self.flags.add(flag)

        def add_optimization_profile(self, profile: Profile) -> None:
            self.profiles.append(profile)

        def create_timing_cache(self, earlier: bytes) -> bytes:
            return earlier

        def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
            self.timings = cache
            return ignore_mismatch or cache != b"of another GPU"

        def get_timing_cache(self) -> SimpleNamespace:
            return SimpleNamespace(serialize=lambda: self.timings + b"+")

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> SimpleNamespace:
            return SimpleNamespace(flags=flags)

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
            if fails:
                self.logger.log(ILogger.ERROR, fails)
                return None
            for line in lines:
                self.logger.log(ILogger.INFO, line)
            built.append(SimpleNamespace(network=network, config=config))
            return (b"sparse" if "SPARSE_WEIGHTS" in config.flags else b"dense") + b"|" + network.model

    class OnnxParser:
        num_errors = 0

        def __init__(self, network: Any, logger: Any) -> None:
            self.network = network

        def parse_from_file(self, path: str) -> bool:
            self.network.path = path
            self.network.model = Path(path).read_bytes()
            inputs = [FakeInput(item) for item in onnx.load_from_string(self.network.model).graph.input]
            self.network.num_inputs, self.network.get_input = len(inputs), inputs.__getitem__
            return True

    class IProfiler:
        pass

    flags = SimpleNamespace(STRONGLY_TYPED=1) if major == 10 else SimpleNamespace()
    trt.__dict__.update(
        __version__=version,
        ILogger=ILogger,
        Builder=Builder,
        OnnxParser=OnnxParser,
        IProfiler=IProfiler,
        NetworkDefinitionCreationFlag=flags,
        BuilderFlag=SimpleNamespace(SPARSE_WEIGHTS="SPARSE_WEIGHTS"),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        built=built,
    )
    return trt


class FakeInput:
    """An input of a parsed network."""

    def __init__(self, info: onnx.ValueInfoProto) -> None:
        self.name, self._dims = info.name, info.type.tensor_type.shape.dim
        self.shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in self._dims)

    def get_dimension_name(self, index: int) -> str:
        return str(self._dims[index].dim_param)


class FakeRunner:
    """What prunec uses of Polygraphy's TrtRunner, computing with ONNX Runtime on the engine's ONNX model.

    Sparse engines take 1 ms, others 2 ms; every weighted node takes as many; those named in ``fused`` are one layer.
    """

    def __init__(self, path: Path, library: str, errors: list[str], fused: Sequence[str] = ()) -> None:
        assert library == "tensorrt"
        kind, bar, self._model = path.read_bytes().partition(b"|")
        if not bar:
            errors.append("The engine plan file is not compatible with this version of TensorRT")
            raise RuntimeError("Could not deserialize engine. See log for details.")
        self._sparse = kind == b"sparse"
        nodes = onnx.load_from_string(self._model).graph.node
        self._nodes = [node.name for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
        self._fused, self._ms = list(fused), 1.0 if self._sparse else 2.0
        self.context = SimpleNamespace(profiler=None)
        self.engine = SimpleNamespace(create_engine_inspector=lambda: self)

    def __enter__(self) -> "FakeRunner":
        self._session = onnxruntime.InferenceSession(self._model, providers=["CPUExecutionProvider"])
        return self

    def __exit__(self, *_: object) -> None:
        del self._session

    def get_input_metadata(self) -> dict[str, None]:
        return dict.fromkeys(item.name for item in self._session.get_inputs())

    def infer(self, feed: dict[str, Any], copy_outputs_to_host: bool = True) -> dict[str, Any]:
        if self.context.profiler is not None:
            for name, _ in self._layers():
                self.context.profiler.report_layer_time(name, self._ms)
        outputs = self._session.run(None, {name: np.asarray(value) for name, value in feed.items()})
        return {str(index): output for index, output in enumerate(outputs)}

    def last_inference_time(self) -> float:
        return self._ms / 1000

    def get_engine_information(self, form: str) -> str:
        assert form == "json"
        kernel = SPARSE_KERNEL if self._sparse else DENSE_KERNEL
        return json.dumps(
            {
                "Layers": [
                    {
                        "Name": name,
                        "TacticName": kernel,
                        "Metadata": "\u001f".join(f"[ONNX Layer: {node}]" for node in nodes),
                    }
                    for name, nodes in self._layers()
                ]
            }
        )

    def _layers(self) -> list[tuple[str, list[str]]]:
        alone = [(f"{node} + Relu", [node]) for node in self._nodes if node not in self._fused]
        return alone + ([(" + ".join(self._fused), self._fused)] if self._fused else [])
