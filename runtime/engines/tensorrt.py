"""TensorRT and TensorRT-RTX: one builder for both, and a runner for a machine with the GPU.

What a library can do is asked of it, not of its version number. The runner needs a GPU and has not been run.
"""

import importlib
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunec.passes.errors import MissingDependencyError, UnsupportedModelError

#: Largest batch of an engine with a dynamic one.
MAX_BATCH = 32


def build_plan(
    library: ModuleType | str,
    onnx_path: Path,
    *,
    sparse: bool,
    compute_capabilities: Iterable[tuple[int, int]] = (),
    max_batch: int = MAX_BATCH,
) -> bytes:
    """Build a serialized engine from a typed ONNX model.

    Networks are strongly typed: precision is what the ONNX model says.

    Args:
        library: ``tensorrt`` or ``tensorrt_rtx``, or its name.
        onnx_path: model with a dynamic first dimension of its inputs, or none.
        sparse: let the builder use 2:4 kernels.
        compute_capabilities: for which to build ahead of time, without a GPU (TensorRT-RTX alone can); none for
            the GPU at hand.
        max_batch: largest batch of the optimisation profile; the smallest is 1, it is tuned for 8 at most.

    Raises:
        UnsupportedModelError: the library can't parse or build the model; its own messages say why.
        MissingDependencyError: it can't build for these compute capabilities.
    """
    trt = importlib.import_module(library) if isinstance(library, str) else library
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise _failed(trt, onnx_path, "parse", errors + logger.errors)
    config = builder.create_builder_config()
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    _set_compute_capabilities(trt, config, list(compute_capabilities))
    _add_profile(builder, network, config, max_batch)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed(trt, onnx_path, "build", logger.errors)
    return bytes(plan)


def _logger(trt: ModuleType) -> Any:
    """A logger that keeps errors for the exception and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Logger()


def _failed(trt: ModuleType, path: Path, what: str, errors: list[str]) -> UnsupportedModelError:
    said = "; ".join(errors[:3]) or "it gave no reason"
    return UnsupportedModelError(
        f"{trt.__name__} {trt.__version__} can't {what} {path.name}: {said}",
        hint="The messages are the library's own and name the ONNX node.",
    )


def _set_compute_capabilities(trt: ModuleType, config: Any, capabilities: list[tuple[int, int]]) -> None:
    if not capabilities:
        return
    known = getattr(trt, "ComputeCapability", None)
    members = [getattr(known, f"SM{major}{minor}", None) for major, minor in capabilities]
    if known is None or None in members:
        raise MissingDependencyError(
            f"{trt.__name__} {trt.__version__} can't build ahead of time for compute capability "
            f"{', '.join(f'{major}.{minor}' for major, minor in capabilities)}.",
            hint="Run `prunec build BUNDLE` on the device, with TensorRT installed.",
        )
    config.num_compute_capabilities = len(members)
    for index, member in enumerate(members):
        config.set_compute_capability(member, index)


def _add_profile(builder: Any, network: Any, config: Any, max_batch: int) -> None:
    """One optimisation profile for every input with a dynamic batch."""
    profile = builder.create_optimization_profile()
    dynamic = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            dynamic = True
            sizes = [tuple(batch if dim == -1 else dim for dim in shape) for batch in (1, min(8, max_batch), max_batch)]
            profile.set_shape(tensor.name, *sizes)
    if dynamic:
        config.add_optimization_profile(profile)


class TensorRTEngine:
    """A TensorRT plan on the GPU, through Polygraphy's runner. Not run so far: it needs the GPU.

    Args:
        path: engine.plan.

    Use as a context manager; calls take and give arrays in the order of the engine's inputs and outputs.
    """

    def __init__(self, path: Path) -> None:
        from polygraphy.backend.common import BytesFromPath
        from polygraphy.backend.trt import EngineFromBytes, TrtRunner

        self._runner = TrtRunner(EngineFromBytes(BytesFromPath(str(path))))
        self._stack = ExitStack()

    def __enter__(self) -> "TensorRTEngine":
        """Load the engine onto the GPU."""
        self._stack.enter_context(self._runner)
        return self

    def __exit__(self, *_: object) -> None:
        """Free it."""
        self._stack.close()

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """One inference, with the copies to the GPU and back."""
        names = list(self._runner.get_input_metadata())
        return list(self._runner.infer(dict(zip(names, inputs, strict=True))).values())

    def inference_ms(self, *inputs: NDArray[Any]) -> float:
        """Milliseconds of one inference as Polygraphy's runner times it."""
        self(*inputs)
        return 1000 * float(self._runner.last_inference_time())
