"""Sizes that an engine's dynamic dimensions may have."""

from collections.abc import Mapping, Sequence

from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.size_range import SizeRange

Shape = tuple[int, ...]
#: Sizes of a tensor; a dynamic dimension has its name instead.
Dimensions = Sequence[int | str]


#: Ranges by dimension where nothing else is asked for.
DEFAULT_RANGES: Mapping[str, SizeRange] = {"batch": SizeRange(1, 8, 32)}


def dynamic_dimensions(inputs: Mapping[str, Dimensions]) -> list[str]:
    """Names of the dynamic dimensions of a model's inputs, in their order."""
    return list(dict.fromkeys(size for shape in inputs.values() for size in shape if isinstance(size, str)))


def used_ranges(inputs: Mapping[str, Dimensions], ranges: Mapping[str, SizeRange]) -> dict[str, SizeRange]:
    """The range of every dynamic dimension of the inputs: the given one, else that of `DEFAULT_RANGES`.

    Raises:
        UsageError: A dynamic dimension has no range, or a range belongs to none.
    """
    known, given = dynamic_dimensions(inputs), {**DEFAULT_RANGES, **ranges}
    for name in ranges:
        if name not in known:
            hint = did_you_mean(name, known) if known else "All its dimensions are fixed."
            raise UsageError(f"--dims {name}: the network has no dynamic dimension of this name.", hint=hint)
    for name in known:
        if name not in given:
            raise UsageError(
                f"The dynamic dimension {name!r} of the network's inputs has no range of sizes.",
                hint=f"Say which sizes the engine is for: --dims {name}=SMALLEST:TUNED:LARGEST",
            )
    return {name: given[name] for name in known}


def profile_shapes(
    inputs: Mapping[str, Dimensions], ranges: Mapping[str, SizeRange]
) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Smallest, tuned and largest shape of every input with a dynamic dimension, whose ranges are all given."""
    result = {}
    for name, shape in inputs.items():
        if any(isinstance(size, str) for size in shape):
            sizes = [ranges[size] if isinstance(size, str) else SizeRange(size, size, size) for size in shape]
            smallest, tuned, largest = zip(*((s.smallest, s.tuned, s.largest) for s in sizes), strict=True)
            result[name] = (smallest, tuned, largest)
    return result
