"""The common part of TensorRT and TensorRT-RTX as engine kinds."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.options import OPTION_FLAGS, EngineOptions
from prunec.runtime.engines.protocol import NO_WORD, EngineInfo, EngineKind
from prunec.runtime.engines.tensorrt_build import build_plan, parse_model
from prunec.runtime.engines.tensorrt_run import TensorRTSession, gpu_name
from prunec.runtime.target import Target

if TYPE_CHECKING:
    from prunec.runtime.gpu_state import GpuState

#: Compute capabilities that TensorRT-RTX builds for without a GPU.
AHEAD_OF_TIME = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0))


def has_device(target: Target) -> bool:
    """Whether a GPU of the target's compute capability is visible."""
    import torch

    if not torch.cuda.is_available():
        return False
    visible = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return target.info.compute_capability in visible


class NvidiaEngine(EngineKind):
    """An engine of one of NVIDIA's two libraries; the kind's name is the library's."""

    file_name: ClassVar[str]
    takes: ClassVar[frozenset[str]] = frozenset(OPTION_FLAGS)
    #: Stand-in for the builder's word on sparse kernels where its log has none.
    silence: ClassVar[Unknown] = NO_WORD

    def check(self, target: Target, options: EngineOptions, latency_batch: int) -> None:
        """Refuse further devices that no engine can be built for, and a latency batch that the engine doesn't take."""
        super().check(target, options, latency_batch)
        for device in options.also_for:
            other = replace(target, device=device)
            if other.info.compute_capability not in AHEAD_OF_TIME:
                raise UsageError(
                    f"--also-for {device}: no engine for {other.info.title} can be built ahead of time.",
                    hint=f"Compile for {other} into a bundle of its own.",
                )
        batch = options.batch
        if not batch.smallest <= latency_batch <= batch.largest:
            raise UsageError(
                f"Latency is measured at batch {latency_batch}, and the engine takes {batch} (smallest:tuned:largest).",
                hint="Give one of those sizes with --latency-batch, or a range with that size with --dims.",
            )

    def compute_capabilities(self, target: Target, options: EngineOptions) -> tuple[tuple[int, int], ...]:
        """Compute capabilities to build for ahead of time; empty to build for the GPU at hand."""
        return ()

    def notes(self, target: Target) -> tuple[str, ...]:
        """Sentences on an engine that users must know."""
        return ()

    def parse(self, onnx_path: Path, options: EngineOptions) -> str:
        return parse_model(self.name, onnx_path, options.ranges)

    def build(self, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
        started = time.perf_counter()
        capabilities = self.compute_capabilities(target, options)
        built = build_plan(
            self.name,
            onnx_path,
            sparse=target.sparse,
            ranges=options.ranges,
            compute_capabilities=capabilities,
            timing_cache=options.timing_cache,
        )
        path = folder / self.file_name
        path.write_bytes(built.plan)
        return EngineInfo(
            kind=self.name,
            path=path,
            builder=built.builder,
            run_on_device=False,
            compute_capabilities=capabilities,
            ranges=built.ranges,
            sparsity=built.sparsity or self.silence,
            notes=self.notes(target),
            outside_support=self.outside_support(target),
            seconds=time.perf_counter() - started,
        )

    def on_this_machine(self, target: Target, engine: EngineInfo) -> EngineInfo:
        """The engine with the GPU that it was built on, which torch knows, and the process that builds has none of."""
        return replace(
            engine, run_on_device=self.runs_here(target), gpu=None if engine.built_ahead_of_time else gpu_name()
        )

    def runs_here(self, target: Target) -> bool:
        return has_device(target)

    def open(self, engine: EngineInfo, threads: int = 1) -> TensorRTSession:
        """The engine, which is loaded onto the GPU when the session is entered."""
        return TensorRTSession(engine.path, self.name, engine.built_by)

    def hardware(self) -> str:
        return gpu_name() or ""

    def gpu_state(self) -> "GpuState | Unknown":
        from prunec.runtime import gpu_state

        try:
            return gpu_state.gpu_state()
        except MissingDependencyError as error:
            return Unknown(str(error).replace("\n", " "))

    def why_not_run(self, target: Target) -> str:
        return f"needs the device ({target.info.title}), which isn't here."

    def why_not_timed(self, target: Target) -> str:
        return "needs the target device: kernels are chosen and timed there."
