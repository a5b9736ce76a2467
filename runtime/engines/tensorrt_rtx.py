"""TensorRT-RTX: engines that are built ahead of time, without their device."""

from dataclasses import replace
from importlib.util import find_spec
from typing import ClassVar

from prunec.passes.errors import MissingDependencyError
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.nvidia import AHEAD_OF_TIME, NvidiaEngine
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.target import Target

#: Devices of `AHEAD_OF_TIME` that are in the vendor's support matrix.
_SUPPORTED = ((7, 5), (8, 6), (8, 9), (12, 0))


class TensorRTRTX(NvidiaEngine):
    """TensorRT-RTX, which builds on the CPU and chooses kernels when an engine is loaded on its device."""

    name: ClassVar[str] = "tensorrt_rtx"
    title: ClassVar[str] = "TensorRT-RTX"
    file_name: ClassVar[str] = "engine.rtx"
    silence: ClassVar[Unknown] = Unknown(
        "TensorRT-RTX chooses kernels when it loads an engine on the device, and says nothing of them before."
    )

    def unavailable(self, target: Target, options: EngineOptions) -> MissingDependencyError | None:
        if target.info.compute_capability not in AHEAD_OF_TIME:
            return MissingDependencyError(
                f"An engine for {target} can only be built on the device ({target.info.title}), with TensorRT: "
                "TensorRT-RTX doesn't build for it ahead of time.",
                hint="Run `prunec build BUNDLE` on the device, or ask for no engine with --no-engine.",
            )
        if find_spec("tensorrt_rtx") is None:
            return MissingDependencyError(
                f"An engine for {target} needs TensorRT-RTX, which isn't installed.",
                hint="pip install tensorrt-rtx-cu12",
            )
        return None

    def compute_capabilities(self, target: Target, options: EngineOptions) -> tuple[tuple[int, int], ...]:
        """The capabilities of the target and of the further devices, each once."""
        infos = (target.info, *(replace(target, device=device).info for device in options.also_for))
        return tuple(dict.fromkeys(i.compute_capability for i in infos if i.compute_capability is not None))

    def notes(self, target: Target) -> tuple[str, ...]:
        said = ["Built ahead of time by TensorRT-RTX on the CPU; TensorRT itself can't load it."]
        if target.sparse:
            said += ["Kernels are chosen on the device: whether sparse ones are used isn't known before it runs there."]
        if target.precision == "int8":
            said += ["The vendor's support matrix of TensorRT-RTX lists INT8 for products with weights alone."]
        if outside := self.outside_support(target):
            said += [outside]
        return tuple(said)

    def outside_support(self, target: Target) -> str:
        if target.info.compute_capability in _SUPPORTED:
            return ""
        return f"{target.info.title} is not in the vendor's support matrix of TensorRT-RTX."
