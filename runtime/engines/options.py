"""How an engine is built, besides what its target says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prunec.passes.errors import UsageError
from prunec.runtime.engines.shapes import DEFAULT_RANGES, SizeRange
from prunec.runtime.target import Target

#: Compute capabilities that TensorRT-RTX builds for without a GPU.
AHEAD_OF_TIME = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0))


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        ranges: sizes by dynamic dimension, added to `DEFAULT_RANGES`.
        also_for: further devices that one engine, built ahead of time, shall run on.
        timing_cache: file of kernel timings for builds on the device.
    """

    ranges: Mapping[str, SizeRange] = field(default_factory=dict)
    also_for: tuple[str, ...] = ()
    timing_cache: Path | None = None

    @property
    def batch(self) -> SizeRange:
        """Batch sizes that the engine takes."""
        return self.ranges.get("batch", DEFAULT_RANGES["batch"])

    def check(self, target: Target) -> None:
        """Refuse what can't be built for a target.

        Raises:
            UsageError: a further device that has no such pattern or precision, or isn't built for ahead of time;
                options of NVIDIA engines for a CPU.
        """
        if not target.is_nvidia and (self.ranges or self.also_for or self.timing_cache):
            raise UsageError(
                f"Target {target}: ONNX Runtime takes any size, and its models run on any CPU.",
                hint="--dims, --also-for and --timing-cache are for engines of NVIDIA devices.",
            )
        for device in self.also_for:
            other = Target(device, target.pattern, target.precision)
            if other.info.compute_capability not in AHEAD_OF_TIME:
                raise UsageError(
                    f"--also-for {device}: no engine for {other.info.title} can be built ahead of time.",
                    hint=f"Compile for {other} into a bundle of its own.",
                )

    def compute_capabilities(self, target: Target) -> tuple[tuple[int, int], ...]:
        """Of the target and the further devices, each once."""
        infos = (target.info, *(Target(d, target.pattern, target.precision).info for d in self.also_for))
        return tuple(dict.fromkeys(i.compute_capability for i in infos if i.compute_capability is not None))
