"""Options of an engine's build besides its target."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prunec.passes.size_range import SizeRange
from prunec.runtime.engines.shapes import DEFAULT_RANGES

#: Field of `EngineOptions` -> flag of the command line, of those that not every engine has a use for.
OPTION_FLAGS = {"ranges": "--dims", "also_for": "--also-for", "timing_cache": "--timing-cache"}


@dataclass(frozen=True)
class EngineOptions:
    """Choices of the user about an engine.

    Attributes:
        ranges: Sizes by dynamic dimension, added to `DEFAULT_RANGES`.
        also_for: Further devices that one engine, built ahead of time, shall run on.
        timing_cache: File of kernel timings for builds on the device.
        engine: Name of the engine kind; empty for the first that is available of those that the device names.
    """

    ranges: Mapping[str, SizeRange] = field(default_factory=dict)
    also_for: tuple[str, ...] = ()
    timing_cache: Path | None = None
    engine: str = ""

    @property
    def batch(self) -> SizeRange:
        """Batch sizes that the engine takes."""
        return self.ranges.get("batch", DEFAULT_RANGES["batch"])
