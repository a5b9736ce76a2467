"""ONNX Runtime on the CPU; the ONNX file is the engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from prunec.passes.errors import InputError, first_line
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo, EngineKind, Session
from prunec.runtime.target import Target

_AS_WRITTEN = {TensorProto.FLOAT8E4M3FN, TensorProto.INT4}
_NOT_TIMED = "layers are not timed on CPUs here; `prunec profile` times them."


class OnnxRuntimeSession(Session):
    """A model loaded by ONNX Runtime, which runs one operator after the other on a fixed number of threads.

    Args:
        path: ONNX file.
        threads: Number of threads of each operator; 0 for as many as ONNX Runtime likes.
        profile_prefix: Start of the path that ONNX Runtime's profiler writes to; None turns it off.
        optimized_path: File that gets the graph that is really run, after all fusions; None for none.
        as_written: Whether the graph is run as the file has it: a quantized one in floating point between its grids.
            One with weights in FP8 or INT4 always is: ONNX Runtime 1.32 takes away the Relus of the first, as if its
            grids had no sign, and rounds what the second multiplies to 8 bits. One of INT8 with scales in float16 is
            spared what its optimizations make of grids: they round biases to steps that are products of two such
            scales, which become zero, and concatenations to an operator that has no float16.

    Raises:
        InputError: ONNX Runtime can't load the file.
    """

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        *,
        profile_prefix: str | None = None,
        optimized_path: Path | None = None,
        as_written: bool = False,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        types, has_half_grids = _kinds(path)
        if has_half_grids:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if as_written or types & _AS_WRITTEN:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_deadly_optimizers(types)
            )
        except Exception as error:
            raise InputError(
                f"ONNX Runtime can't load {path}: {first_line(error)}", hint="Check that it is a valid ONNX file."
            ) from error
        self.input_names = [item.name for item in self._session.get_inputs()]
        #: Sizes of each input; a dynamic one is its name.
        self.input_shapes = [tuple(item.shape) for item in self._session.get_inputs()]

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Run one inference.

        Raises:
            InputError: ONNX Runtime can't run the model on these inputs.
        """
        feed = dict(zip(self.input_names, inputs, strict=True))
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(None, feed)
        except Exception as error:
            raise InputError(f"ONNX Runtime can't run {self._path}: {first_line(error)}") from error
        return outputs

    def node_times_ms(
        self, inputs: Sequence[NDArray[Any]], nodes: Sequence[str], runs: int
    ) -> Mapping[str, float] | Unknown:
        return Unknown(_NOT_TIMED)

    def end_profiling(self) -> str:
        """Stop the profiler and return the path of what it wrote."""
        return str(self._session.end_profiling())


def _kinds(path: Path) -> tuple[set[int], bool]:
    """The types of a file's weights, and whether the file has grids with scales in float16."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:
        raise InputError(
            f"ONNX Runtime can't load {path}: {first_line(error)}", hint="Check that it is a valid ONNX file."
        ) from error
    constants = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    types = {name: tensor.data_type for name, tensor in constants.items()}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    scales = {types.get(node.input[1]) for node in graph.node if node.op_type == "DequantizeLinear"}
    return {tensor.data_type for tensor in graph.initializer}, TensorProto.FLOAT16 in scales


def _deadly_optimizers(types: set[int]) -> list[str]:
    """Optimizations that ONNX Runtime 1.32 dies of: of float16, which CPUs emulate, the one of memory layouts."""
    return ["NchwcTransformer"] if TensorProto.FLOAT16 in types else []


class OnnxRuntime(EngineKind):
    """ONNX Runtime on the CPU."""

    name: ClassVar[str] = "onnxruntime"
    title: ClassVar[str] = "ONNX Runtime"
    uses_threads: ClassVar[bool] = True
    is_profiled: ClassVar[bool] = True

    def parse(self, onnx_path: Path, options: EngineOptions) -> str:
        OnnxRuntimeSession(onnx_path)
        return f"onnxruntime {onnxruntime.__version__}"

    def build(self, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
        return EngineInfo(self.name, onnx_path, f"onnxruntime {onnxruntime.__version__}", run_on_device=True)

    def open(self, engine: EngineInfo, threads: int = 1) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(engine.path, threads)

    def why_not_timed(self, target: Target) -> str:
        return _NOT_TIMED

    def why_no_sparse_kernels(self, target: Target) -> str:
        return "CPUs have no sparse kernels."
