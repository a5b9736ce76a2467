"""TensorRT: engines that are built on their device."""

from importlib.util import find_spec
from typing import ClassVar

from prunec.passes.errors import MissingDependencyError
from prunec.runtime.engines.nvidia import NvidiaEngine
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.target import Target


class TensorRT(NvidiaEngine):
    """TensorRT 10 or 11, with the GPU at hand."""

    name: ClassVar[str] = "tensorrt"
    title: ClassVar[str] = "TensorRT"
    file_name: ClassVar[str] = "engine.plan"

    def unavailable(self, target: Target, options: EngineOptions) -> MissingDependencyError | None:
        if options.also_for:
            return MissingDependencyError(
                f"TensorRT builds for one device; an engine for {target} and {', '.join(options.also_for)} needs "
                "TensorRT-RTX.",
                hint="Leave out --also-for, or ask for the engine tensorrt_rtx.",
            )
        if not self.runs_here(target):
            return MissingDependencyError(
                f"TensorRT builds an engine for {target} on the device only ({target.info.title}), which isn't here.",
                hint="Run `prunec build BUNDLE` on the device, or ask for no engine with --no-engine.",
            )
        if find_spec("tensorrt") is None:
            return MissingDependencyError(
                f"An engine for {target} needs TensorRT, which isn't installed.", hint="pip install 'prunec[tensorrt]'"
            )
        return None
