"""Which engine a target gets on this machine, and building it."""

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from prunec.passes.errors import MissingDependencyError
from prunec.runtime.engines.tensorrt import build_plan
from prunec.runtime.target import Target

#: Compute capabilities that TensorRT-RTX builds for without a GPU.
AHEAD_OF_TIME = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0))
#: Of those, the ones in the vendor's support matrix.
_SUPPORTED_BY_RTX = ((7, 5), (8, 6), (8, 9), (12, 0))


@dataclass(frozen=True)
class EngineInfo:
    """A built engine.

    Attributes:
        kind: "onnxruntime", "tensorrt" or "tensorrt_rtx": what loads it.
        path: its file.
        built_ahead_of_time: whether it was built without its device.
        run_on_device: whether it can be run here.
        notes: what a user must know of it, in words.
        seconds: that building took.
    """

    kind: str
    path: Path
    built_ahead_of_time: bool
    run_on_device: bool
    notes: tuple[str, ...]
    seconds: float


def has_device(target: Target) -> bool:
    """Whether a GPU of the target's compute capability is visible."""
    if not torch.cuda.is_available():
        return False
    seen = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return target.info.compute_capability in seen


def choose_builder(target: Target) -> str:
    """What builds the engine on this machine: "onnxruntime", "tensorrt" or "tensorrt_rtx".

    Raises:
        MissingDependencyError: nothing can; the hint is the line to run, here or on the device.
    """
    if not target.is_nvidia:
        return "onnxruntime"
    if has_device(target) and find_spec("tensorrt") is not None:
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


def build_engine(target: Target, onnx_path: Path, folder: Path) -> EngineInfo:
    """Build the engine of a target.

    Args:
        target: what for.
        onnx_path: typed as the target asks; for a CPU it is the engine.
        folder: where ``engine.plan`` or ``engine.rtx`` goes; it is there whole or not at all.

    Raises:
        MissingDependencyError: as `choose_builder`.
        UnsupportedModelError: the library refuses the model.
    """
    kind = choose_builder(target)
    if kind == "onnxruntime":
        return EngineInfo(kind, onnx_path, False, True, (), 0.0)
    started = time.perf_counter()
    ahead = kind == "tensorrt_rtx"
    capability = target.info.compute_capability
    assert capability is not None
    plan = build_plan(kind, onnx_path, sparse=target.sparse, compute_capabilities=[capability] if ahead else [])
    path = folder / ("engine.rtx" if ahead else "engine.plan")
    path.write_bytes(plan)
    notes = _ahead_of_time_notes(target) if ahead else ()
    return EngineInfo(kind, path, ahead, not ahead, notes, time.perf_counter() - started)


def _ahead_of_time_notes(target: Target) -> tuple[str, ...]:
    notes = ["Built ahead of time by TensorRT-RTX on the CPU; TensorRT itself can't load it."]
    if target.sparse:
        notes.append("Kernels are chosen on the device: whether sparse ones are used isn't known before it runs there.")
    if target.info.compute_capability not in _SUPPORTED_BY_RTX:
        notes.append(f"{target.info.title} is not in the vendor's support matrix of TensorRT-RTX.")
    return tuple(notes)
