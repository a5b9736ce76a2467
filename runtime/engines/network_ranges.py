"""Sizes of a network's dynamic dimensions that an engine of it is built for."""

from collections.abc import Mapping
from dataclasses import replace

from prunec.passes.network_inputs import BATCH, varying_sizes
from prunec.passes.program import Program
from prunec.passes.size_range import SizeRange
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineKind
from prunec.runtime.engines.shapes import DEFAULT_RANGES


def with_network_ranges(kind: EngineKind, program: Program, options: EngineOptions) -> EngineOptions:
    """The options with the size of every dynamic dimension: as given, as the network's description tells, by default.

    Where an engine takes any sizes, and for dimensions that nothing tells of, they stay as they are.
    """
    told = with_told_ranges(kind, program, options)
    if told is options or not program.batch_is_dynamic:
        return told
    return replace(told, ranges={BATCH: DEFAULT_RANGES[BATCH], **told.ranges})


def with_told_ranges(kind: EngineKind, program: Program, options: EngineOptions) -> EngineOptions:
    """The options with the sizes that the network's description tells, where nothing else is asked for."""
    if "ranges" not in kind.takes:
        return options
    told = {name: size.sizes for name, size in varying_sizes(program.inputs).items() if size.sizes is not None}
    return replace(options, ranges={**told, **options.ranges})


def ranges_words(ranges: Mapping[str, SizeRange]) -> str:
    """The ranges as ``--dims`` takes them, as in "batch=1:8:32, sequence=8:128:512"."""
    return ", ".join(f"{name}={sizes}" for name, sizes in sorted(ranges.items()))
