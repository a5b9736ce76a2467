"""Sizes that an engine's dynamic dimensions may have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from prunec.passes.errors import UsageError, did_you_mean

Shape = tuple[int, ...]
#: Sizes of a tensor; a dynamic dimension has its name instead.
Dimensions = Sequence[int | str]


@dataclass(frozen=True)
class SizeRange:
    """Sizes of one dynamic dimension: the smallest, the one that kernels are tuned for, the largest.

    >>> str(SizeRange.parse("1:8:32"))
    '1:8:32'

    Raises:
        UsageError: A size is below 1, or they are out of order.
    """

    smallest: int
    tuned: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.tuned <= self.largest:
            raise UsageError(
                f"{self} is no range of sizes.", hint="Write smallest:tuned:largest, as in batch=1:8:32, or one size."
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1:8:32``, or ``8`` for that size alone.

        Raises:
            UsageError: The text is neither.
        """
        sizes = text.split(":")
        if not all(size.isascii() and size.isdigit() for size in sizes) or len(sizes) not in (1, 3):
            raise UsageError(f"{text!r} is no range of sizes.", hint="Write smallest:tuned:largest, as in 1:8:32.")
        return cls(*map(int, sizes * 3 if len(sizes) == 1 else sizes))

    def nearest(self, size: int) -> int:
        """The size of the range that is nearest to another one."""
        return min(max(size, self.smallest), self.largest)

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"{self.smallest}:{self.tuned}:{self.largest}"


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
