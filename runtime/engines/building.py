"""Which engine a target gets on this machine, and building it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch

from prunec.passes.errors import MissingDependencyError
from prunec.runtime.engines.options import AHEAD_OF_TIME, EngineOptions
from prunec.runtime.engines.shapes import SizeRange
from prunec.runtime.engines.sparsity_log import BuilderSparsity
from prunec.runtime.engines.tensorrt_build import build_plan
from prunec.runtime.engines.tensorrt_run import gpu_name
from prunec.runtime.target import Target

#: What loads an engine -> the engine's file.
ENGINE_FILES = {"tensorrt": "engine.plan", "tensorrt_rtx": "engine.rtx"}
#: Of the compute capabilities that can be built for ahead of time, the ones in the vendor's support matrix.
_SUPPORTED_BY_RTX = ((7, 5), (8, 6), (8, 9), (12, 0))


@dataclass(frozen=True)
class EngineInfo:
    """A built engine.

    Attributes:
        kind: "onnxruntime", "tensorrt" or "tensorrt_rtx": what loads it.
        path: its file.
        builder: library and version.
        gpu: that it was built on; None where it was built without.
        compute_capabilities: that it was built for ahead of time.
        ranges: sizes that it takes, by dynamic dimension; none where it takes any.
        run_on_device: whether it can be run here.
        sparsity: what the builder said of sparse kernels; None where it said nothing.
        notes: what a user must know of it, in words.
        seconds: that building took.
    """

    kind: str
    path: Path
    builder: str
    run_on_device: bool
    gpu: str | None = None
    compute_capabilities: tuple[tuple[int, int], ...] = ()
    ranges: Mapping[str, SizeRange] = field(default_factory=dict)
    sparsity: BuilderSparsity | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def built_ahead_of_time(self) -> bool:
        """Whether it was built without its device."""
        return bool(self.compute_capabilities)


def has_device(target: Target) -> bool:
    """Whether a GPU of the target's compute capability is visible."""
    if not torch.cuda.is_available():
        return False
    seen = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return target.info.compute_capability in seen


def choose_builder(target: Target, options: EngineOptions | None = None) -> str:
    """What builds the engine on this machine: "onnxruntime", "tensorrt" or "tensorrt_rtx".

    Raises:
        MissingDependencyError: nothing can; the hint is the line to run, here or on the device.
    """
    if not target.is_nvidia:
        return "onnxruntime"
    one_device = options is None or not options.also_for
    if one_device and has_device(target) and find_spec("tensorrt") is not None:
        return "tensorrt"
    if target.info.compute_capability in AHEAD_OF_TIME:
        if find_spec("tensorrt_rtx") is not None:
            return "tensorrt_rtx"
        raise MissingDependencyError(
            f"An engine for {target} needs TensorRT-RTX, which isn't installed.",
            hint="pip install tensorrt-rtx-cu12",
        )
    raise MissingDependencyError(
        f"An engine for {target} can only be built on the device ({target.info.title}), with TensorRT: "
        "TensorRT-RTX doesn't build for it ahead of time.",
        hint="Run `prunec build BUNDLE` on the device, or ask for no engine with --no-engine.",
    )


def build_engine(target: Target, onnx_path: Path, folder: Path, options: EngineOptions | None = None) -> EngineInfo:
    """Build the engine of a target.

    Args:
        target: what for.
        onnx_path: typed as the target asks; for a CPU it is the engine.
        folder: where ``engine.plan`` or ``engine.rtx`` goes; it is there whole or not at all.
        options: sizes, further devices, timing cache.

    Raises:
        MissingDependencyError: as `choose_builder`.
        UnsupportedModelError: the library refuses the model.
        UsageError: the options don't fit the model or the target.
    """
    options = options or EngineOptions()
    options.check(target)
    kind = choose_builder(target, options)
    if kind == "onnxruntime":
        import onnxruntime

        return EngineInfo(kind, onnx_path, f"onnxruntime {onnxruntime.__version__}", run_on_device=True)
    started = time.perf_counter()
    ahead = kind == "tensorrt_rtx"
    capabilities = options.compute_capabilities(target) if ahead else ()
    built = build_plan(
        kind,
        onnx_path,
        sparse=target.sparse,
        ranges=options.ranges,
        compute_capabilities=capabilities,
        timing_cache=options.timing_cache,
    )
    path = folder / ENGINE_FILES[kind]
    path.write_bytes(built.plan)
    return EngineInfo(
        kind=kind,
        path=path,
        builder=built.builder,
        run_on_device=has_device(target),
        gpu=None if ahead else gpu_name(),
        compute_capabilities=capabilities,
        ranges=built.ranges,
        sparsity=built.sparsity,
        notes=_ahead_of_time_notes(target) if ahead else (),
        seconds=time.perf_counter() - started,
    )


def _ahead_of_time_notes(target: Target) -> tuple[str, ...]:
    notes = ["Built ahead of time by TensorRT-RTX on the CPU; TensorRT itself can't load it."]
    if target.sparse:
        notes.append("Kernels are chosen on the device: whether sparse ones are used isn't known before it runs there.")
    if target.info.compute_capability not in _SUPPORTED_BY_RTX:
        notes.append(f"{target.info.title} is not in the vendor's support matrix of TensorRT-RTX.")
    return tuple(notes)
