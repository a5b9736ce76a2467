"""ONNX Runtime on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from prunec.passes.errors import InputError, first_line


class OnnxRuntimeEngine:
    """A model loaded by ONNX Runtime, run in sequence on a fixed number of threads.

    Args:
        path: ONNX file.
        threads: of each operator; 0 for as many as ONNX Runtime likes.
        profile_prefix: turns its profiler on; where it writes.

    Raises:
        InputError: ONNX Runtime can't load the file.
    """

    def __init__(self, path: Path, threads: int = 1, *, profile_prefix: str | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(
                f"ONNX Runtime can't load {path}: {str(error).splitlines()[0]}",
                hint="Check that it is a valid ONNX file.",
            ) from error
        self.input_names = [item.name for item in self._session.get_inputs()]
        #: Sizes of each input; a dynamic one is its name.
        self.input_shapes = [tuple(item.shape) for item in self._session.get_inputs()]

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """One inference: inputs in the model's order, outputs likewise.

        Raises:
            InputError: ONNX Runtime can't run the model on them.
        """
        feed = dict(zip(self.input_names, inputs, strict=True))
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(None, feed)
        except Exception as error:
            raise InputError(f"ONNX Runtime can't run {self._path}: {first_line(error)}") from error
        return outputs

    def end_profiling(self) -> str:
        """Stop the profiler and give the path of what it wrote."""
        return str(self._session.end_profiling())
