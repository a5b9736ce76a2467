"""Running and timing TensorRT and TensorRT-RTX engines on their GPU, through Polygraphy's runner.

It needs the GPU. Of all this only the copies to the GPU have run on one; tests use a fake of the runner's interface.
"""

import importlib
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from prunec.passes.errors import MissingDependencyError, first_line
from prunec.runtime.engines.inspector import EngineLayer, node_times, parse_engine_layers, sparse_kernels
from prunec.runtime.engines.protocol import Session
from prunec.runtime.engines.tensorrt_build import library_version, make_logger
from prunec.runtime.latency import Timer


class TensorRTSession(Session):
    """An engine on the GPU, in the ``with`` block.

    Args:
        path: The file engine.plan or engine.rtx.
        library: The library that built it, ``tensorrt`` or ``tensorrt_rtx``.
        built: Library, version and GPU that it was built with, in words, for the error.
    """

    def __init__(self, path: Path, library: str = "tensorrt", built: str = "") -> None:
        self._path, self._library, self._built = path, library, built
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Load the engine onto the GPU.

        Raises:
            MissingDependencyError: The library isn't installed, or another version or GPU built the engine.
        """
        said: list[str] = []
        try:
            self._runner = open_runner(self._path, self._library, said)
            self._stack.enter_context(self._runner)
        except Exception as error:
            built = f" It was built by {self._built}." if self._built else ""
            reason = "; ".join(said[:3]) or first_line(error)
            here = f"{_installed(self._library)} on {gpu_name() or 'a machine without a GPU'}"
            raise MissingDependencyError(
                f"{self._path.name} can't be loaded by {here}: {reason.rstrip('.')}.{built}",
                hint="An engine fits one version and one kind of GPU: run `prunec build BUNDLE` on this machine.",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Run one inference, with the copies to the GPU and back."""
        return [np.asarray(output) for output in self._runner.infer(self._named(inputs)).values()]

    def timer(self, *inputs: NDArray[Any]) -> Timer:
        """A function that runs one inference on inputs that are on the GPU, and returns its milliseconds.

        Outputs stay on the GPU too. The time is the runner's, from launch to the end of the stream.
        """
        feed = self._on_gpu(inputs)

        def run() -> float:
            self._runner.infer(feed, copy_outputs_to_host=False)
            return 1000 * float(self._runner.last_inference_time())

        return run

    def layers(self) -> list[EngineLayer]:
        """Layers of the engine, from its inspector."""
        trt = importlib.import_module(self._library)
        inspector = self._runner.engine.create_engine_inspector()
        return parse_engine_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def layer_times_ms(self, *inputs: NDArray[Any], runs: int) -> dict[str, float]:
        """Median milliseconds of every layer by name, from TensorRT's own profiler.

        The inputs of the inference lie on the GPU. A tenth of ``runs`` more come first and aren't counted.
        """
        feed, times = self._on_gpu(inputs), defaultdict[str, list[float]](list)
        profiler = _profiler(importlib.import_module(self._library), times)
        for _ in range(max(1, runs // 10)):
            self._runner.infer(feed, copy_outputs_to_host=False)
        self._runner.context.profiler = profiler
        for _ in range(runs):
            self._runner.infer(feed, copy_outputs_to_host=False)
        return {name: float(np.median(values)) for name, values in times.items()}

    def node_times_ms(self, inputs: Sequence[NDArray[Any]], nodes: Sequence[str], runs: int) -> dict[str, float]:
        return node_times(self.layers(), self.layer_times_ms(*inputs, runs=runs), nodes)

    def sparse_kernels(self, nodes: Sequence[str]) -> dict[str, bool]:
        return sparse_kernels(self.layers(), nodes)

    def _named(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self._runner.get_input_metadata(), inputs, strict=True))

    def _on_gpu(self, inputs: tuple[NDArray[Any], ...]) -> dict[str, Any]:
        return self._named(tuple(to_gpu(array) for array in inputs))


def open_runner(path: Path, library: str, errors: list[str]) -> Any:
    """Polygraphy's runner of an engine, not yet on the GPU; what the library says of errors goes into a list."""
    from polygraphy import config

    # Polygraphy looks at this once, when its TensorRT modules are first imported.
    config.USE_TENSORRT_RTX = library == "tensorrt_rtx"
    from polygraphy.backend.common import BytesFromPath
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    trt = importlib.import_module(library)
    logger = make_logger(trt)
    logger.errors = errors
    return TrtRunner(EngineFromBytes(BytesFromPath(str(path)), runtime=lambda: trt.Runtime(logger)))


def to_gpu(array: NDArray[Any]) -> Any:
    """An array on the GPU, as Polygraphy holds it."""
    from polygraphy.cuda import DeviceArray
    from polygraphy.datatype import DataType

    held = DeviceArray(array.shape, DataType.from_dtype(array.dtype))
    return held.copy_from(np.ascontiguousarray(array))


def _profiler(trt: Any, times: dict[str, list[float]]) -> Any:
    """A profiler that collects the milliseconds of every layer."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times[layer_name].append(ms)

    return Profiler()


def _installed(library: str) -> str:
    try:
        return library_version(importlib.import_module(library))
    except ImportError:
        return f"{library}, which isn't installed,"


def gpu_name() -> str | None:
    """Name of the GPU that engines run on; None where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
