"""Patterns of masks, as their text names them. Importing this module imports no torch."""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self

from prunec.passes.errors import UsageError, did_you_mean

#: What a mask makes faster: the kernels of sparse tensor cores, or nothing but a count of multiplications.
Speed = Literal["sparse tensor cores", "theoretical"]

TWO_FOUR: Final = "2:4"
ELEMENTS: Final = "elements"
_N_OF_M = re.compile(r"([1-9]\d{0,3}):([1-9]\d{0,3})")
_BLOCK = re.compile(r"block:([1-9]\d{0,4})x([1-9]\d{0,4})")
_REMOVED_FOR_GOOD = "stay in the network's shapes as zeros: prune-filters removes such for good"
#: Pattern -> why no kernel becomes faster by it.
_WHOLE_UNITS = {
    ELEMENTS: "kernels multiply with zeros as with other numbers",
    "rows": f"filters {_REMOVED_FOR_GOOD}",
    "channels": f"input channels {_REMOVED_FOR_GOOD}",
    "columns": "no operator of ONNX leaves out positions of an unfolded input",
}
_NO_BLOCKS = "no kernel of the engines leaves out blocks of zeros"
_NOT_READ = "sparse tensor cores read no other pattern than 2:4"
_NOT_ASKED = "the target asks for no sparse kernels"
_SPARSE_KERNELS = "sparse kernels skip the zeros, where the engine's builder finds them faster"
_KNOWN = (TWO_FOUR, "1:4", "4:8", *_WHOLE_UNITS, "block:4x4")


@dataclass(frozen=True)
class Pattern:
    """The units whose weights are masked together.

    A weight (K, C, ...) is read as the matrix K x CRS by which a convolution multiplies its unfolded input (im2col):
    a row is a filter, a column one position (c, r, s) of all filters, and the RS consecutive columns of one c are an
    input channel. A linear layer's is its weight, where columns are channels.

    >>> Pattern.parse("block:4x4").block
    (4, 4)

    Attributes:
        text: Its name. "N:M" keeps N of every M consecutive input channels, for each filter and kernel position on its
            own; "elements" are single weights; "rows", "channels" and "columns" those of the matrix; "block:4x4" are
            blocks of 4 rows and 4 columns, from the first of each on, those at the end smaller where no whole one fits.
        n_of_m: N and M; None for other patterns.
        block: Rows and columns of a block; None for other patterns.
    """

    text: str
    n_of_m: tuple[int, int] | None = None
    block: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The pattern of a name.

        Raises:
            UsageError: There is no such pattern.
        """
        if text in _WHOLE_UNITS:
            return cls(text)
        if match := _N_OF_M.fullmatch(text):
            kept, group = int(match[1]), int(match[2])
            if kept < group:
                return cls(text, n_of_m=(kept, group))
            raise UsageError(f"The pattern {text!r} masks nothing.", hint="N of N:M is less than M, as in 2:4.")
        if match := _BLOCK.fullmatch(text):
            return cls(text, block=(int(match[1]), int(match[2])))
        raise UsageError(f"Unknown sparsity pattern {text!r}.", hint=did_you_mean(text, _KNOWN))

    @property
    def counted(self) -> str:
        """What masking by it is asked for, in words."""
        return "weights masked" if self.n_of_m is None else f"layers made {self.text}"

    @property
    def violation(self) -> str:
        """What is the matter with a mask that doesn't have it, in words."""
        if self.n_of_m is None:
            return f"isn't made of whole units of {self.text}"
        return f"keeps more than {self.n_of_m[0]} weights of {self.n_of_m[1]} consecutive input channels"

    def gain(self, sparse_kernels: bool) -> tuple[Speed, str]:
        """What becomes faster on a target, and why.

        Args:
            sparse_kernels: Whether the target asks for the kernels of sparse tensor cores.
        """
        if self.n_of_m is None:
            return "theoretical", _NO_BLOCKS if self.block else _WHOLE_UNITS[self.text]
        if self.text != TWO_FOUR:
            return "theoretical", _NOT_READ
        return ("sparse tensor cores", _SPARSE_KERNELS) if sparse_kernels else ("theoretical", _NOT_ASKED)
