"""Building with TensorRT 10, TensorRT 11 and TensorRT-RTX: one way for all three.

Networks are strongly typed: the ONNX model says the precision, and no flag names it. What a library can do is told by
the names that it has, not by its version number.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from prunec.passes.errors import MissingDependencyError, UnsupportedModelError
from prunec.passes.size_range import SizeRange
from prunec.runtime.engines.shapes import Dimensions, Shape, profile_shapes, used_ranges
from prunec.runtime.engines.sparsity_log import MARK, BuilderSparsity, parse_sparsity


@dataclass(frozen=True)
class BuiltPlan:
    """A serialized engine.

    Attributes:
        plan: The engine's bytes, in a buffer of the library.
        ranges: Sizes that the engine takes, by dynamic dimension.
        sparsity: The builder's word on sparse kernels; None where it said nothing.
        builder: Library and version.
    """

    plan: Any
    ranges: Mapping[str, SizeRange]
    sparsity: BuilderSparsity | None
    builder: str


def build_plan(
    library: ModuleType | str,
    onnx_path: Path,
    *,
    sparse: bool,
    ranges: Mapping[str, SizeRange],
    compute_capabilities: Sequence[tuple[int, int]] = (),
    timing_cache: Path | None = None,
) -> BuiltPlan:
    """Build a serialized engine from a typed ONNX model.

    Args:
        library: The module ``tensorrt`` or ``tensorrt_rtx``, or its name.
        onnx_path: The model.
        sparse: Whether the builder may use 2:4 kernels.
        ranges: Sizes by dynamic dimension of the inputs, added to `DEFAULT_RANGES`.
        compute_capabilities: Capabilities to build for ahead of time, without a GPU, which TensorRT-RTX alone can;
            empty for the GPU at hand.
        timing_cache: File of kernel timings, which is read where it exists, and written. Building ahead of time has no
            use for it.

    Raises:
        UnsupportedModelError: The library can't parse or build the model; its own messages say why.
        MissingDependencyError: The library can't build for these compute capabilities.
        UsageError: A dynamic dimension has no range, or a range belongs to none.
    """
    trt = importlib.import_module(library) if isinstance(library, str) else library
    logger = make_logger(trt)
    builder, network, _parser = _parsed(trt, logger, onnx_path)
    inputs = _input_dimensions(network)
    used = used_ranges(inputs, ranges)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    _set_compute_capabilities(trt, config, compute_capabilities)
    _add_profile(builder, config, profile_shapes(inputs, used))
    timings = None if compute_capabilities else timing_cache
    if timings is not None:
        _load_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed(trt, onnx_path, "build", logger.errors)
    if timings is not None:
        timings.write_bytes(bytes(config.get_timing_cache().serialize()))
    return BuiltPlan(plan, used, parse_sparsity(logger.sparsity), library_version(trt))


def parse_model(library: str, onnx_path: Path, ranges: Mapping[str, SizeRange]) -> str:
    """Have a library read a model as `build_plan` does, which tells the arguments; name and version of the library.

    Raises:
        UnsupportedModelError: The library can't parse the model.
        UsageError: A dynamic dimension has no range, or a range belongs to none.
    """
    trt = importlib.import_module(library)
    _builder, network, _parser = _parsed(trt, make_logger(trt), onnx_path)
    used_ranges(_input_dimensions(network), ranges)
    return library_version(trt)


def _parsed(trt: ModuleType, logger: Any, onnx_path: Path) -> tuple[Any, Any, Any]:
    """Builder, network and parser of a model; each needs those before it, and weights live in the parser."""
    builder = trt.Builder(logger)
    # TensorRT 10 needs the flag of strong typing; later libraries know no other typing and may lack the flag.
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise _failed(trt, onnx_path, "parse", errors + logger.errors)
    return builder, network, parser


def library_version(trt: ModuleType) -> str:
    """Name and version of a library, as in "tensorrt 10.13.0.35"."""
    return f"{trt.__name__} {trt.__version__}"


def make_logger(trt: ModuleType) -> Any:
    """A logger that keeps errors for the exception and lines on sparsity, and prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.sparsity: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            if MARK in message:
                self.sparsity.append(message)

    return Logger()


def _failed(trt: ModuleType, path: Path, what: str, errors: list[str]) -> UnsupportedModelError:
    said = "; ".join(errors[:3]) or "it gave no reason"
    return UnsupportedModelError(
        f"{library_version(trt)} can't {what} {path.name}: {said}",
        hint="The messages are the library's own and name the ONNX node.",
    )


def _set_compute_capabilities(trt: ModuleType, config: Any, capabilities: Sequence[tuple[int, int]]) -> None:
    if not capabilities:
        return
    known = getattr(trt, "ComputeCapability", None)
    members = [getattr(known, f"SM{major}{minor}", None) for major, minor in capabilities]
    if known is None or None in members:
        raise MissingDependencyError(
            f"{library_version(trt)} can't build ahead of time for compute capability "
            f"{', '.join(f'{major}.{minor}' for major, minor in capabilities)}.",
            hint="Run `prunec build BUNDLE` on the device, with TensorRT installed.",
        )
    config.num_compute_capabilities = len(members)
    for index, member in enumerate(members):
        config.set_compute_capability(member, index)


def _input_dimensions(network: Any) -> dict[str, Dimensions]:
    """Dimensions of every input by name; a dynamic one has the name that the ONNX model gives it."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {
        tensor.name: [tensor.get_dimension_name(i) if size == -1 else size for i, size in enumerate(tensor.shape)]
        for tensor in inputs
    }


def _add_profile(builder: Any, config: Any, shapes: Mapping[str, tuple[Shape, Shape, Shape]]) -> None:
    """Add one optimisation profile for all inputs with a dynamic dimension."""
    if not shapes:
        return
    profile = builder.create_optimization_profile()
    for name, sizes in shapes.items():
        profile.set_shape(name, *sizes)
    config.add_optimization_profile(profile)


def _load_timings(config: Any, path: Path) -> None:
    """Give the builder the timings of a file; it starts anew where they belong to another GPU or version."""
    earlier = path.read_bytes() if path.exists() else b""
    if not config.set_timing_cache(config.create_timing_cache(earlier), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
