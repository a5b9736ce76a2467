"""Sizes that a dynamic dimension may have. Imports no torch."""

from dataclasses import dataclass
from typing import Self

from prunec.passes.errors import UsageError


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
