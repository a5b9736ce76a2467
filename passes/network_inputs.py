"""The inputs of a network: one description of each, which project files, data, programs and measurements share.

Imports no torch. `prunec.passes.feeding` is what draws such inputs and gives them to a network.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from prunec.passes.boundary import shortened
from prunec.passes.size_range import SizeRange

#: Largest size of a dimension that every library takes.
MAX_SIZE = 2**31 - 1
#: Values of one sample: 1 GiB of float32.
MAX_VALUES = 2**28
#: Name of the dimension that samples lie along.
BATCH = "batch"
#: Whole numbers that a type holds: the least, and the first that is too large.
WHOLE = {
    "uint8": (0, 2**8),
    "int8": (-(2**7), 2**7),
    "int16": (-(2**15), 2**15),
    "int32": (-(2**31), 2**31),
    "int64": (-(2**63), 2**63),
    "bool": (0, 2),
}
DTYPES = ("float16", "bfloat16", "float32", "float64", *WHOLE)
_LONGEST_NAME = 200
#: The largest number of float32.
_LARGEST = (2 - 2**-23) * 2.0**127


def check_samples_size(shape: Iterable[int]) -> None:
    """ValueError where one sample of a shape would take more memory than any network's inputs do."""
    if (values := math.prod(shape)) > MAX_VALUES:
        raise ValueError(f"one sample would have {values} values; at most {MAX_VALUES} are taken")


@dataclass(frozen=True)
class VaryingSize:
    """A dimension whose size varies.

    Attributes:
        name: Its name, which is the same wherever sizes must be equal.
        example: Its size in examples.
        smallest: The smallest size.
        largest: The largest size; None where none is known.

    Raises:
        ValueError: It has the name of the batch, or no name at all, or the sizes are out of order or too large.
    """

    name: str
    example: int
    smallest: int = 1
    largest: int | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or len(self.name) > _LONGEST_NAME or self.name == BATCH:
            raise ValueError(f"{shortened(repr(self.name))} can't be the name of a dimension beside the batch")
        if not 0 <= self.smallest <= self.example <= (MAX_SIZE if self.largest is None else self.largest) <= MAX_SIZE:
            raise ValueError(f"sizes of {self.name} are out of order, or above {MAX_SIZE}")

    @classmethod
    def of(cls, name: str, sizes: SizeRange) -> Self:
        """The dimension of a range, whose tuned size is that of examples."""
        return cls(name, sizes.tuned, sizes.smallest, sizes.largest)

    @property
    def sizes(self) -> SizeRange | None:
        """The sizes that engines are built for; None where the largest isn't known."""
        return None if self.largest is None else SizeRange(max(1, self.smallest), self.example, self.largest)

    def takes(self, size: int) -> bool:
        """Whether it may have a size."""
        return self.smallest <= size <= (MAX_SIZE if self.largest is None else self.largest)


@dataclass(frozen=True)
class NetworkInput:
    """One input tensor of a network.

    Attributes:
        name: Its name: that of the argument of ``forward()``, by which ONNX files and data know it.
        shape: Sizes of one sample, without the batch.
        dtype: Its type, as in "float32" or "int64".
        low: The least value that is drawn; None where no range is known.
        high: The bound of the values that are drawn, itself not among them; None where no range is known.
        optional: Whether what feeds the network may leave it out; ones stand for it then, a mask that masks nothing.
        example: The file that holds examples of it, in project files alone; empty for none.
        has_batch: Whether its first dimension is the batch, which ``shape`` leaves out.

    Raises:
        ValueError: The name, the type, a size or the range can't be.
    """

    name: str
    shape: tuple[int | VaryingSize, ...]
    dtype: str = "float32"
    low: float | None = None
    high: float | None = None
    optional: bool = False
    example: str = ""
    has_batch: bool = True

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > _LONGEST_NAME or not self.name.isprintable():
            raise ValueError(f"{shortened(repr(self.name))} can't be the name of an input")
        if self.dtype not in DTYPES:
            raise ValueError(f"the type {shortened(repr(self.dtype))} is unknown; known are {', '.join(DTYPES)}")
        fixed = [size for size in self.shape if isinstance(size, int)]
        if not all(0 <= size <= MAX_SIZE for size in fixed):
            raise ValueError(f"sizes must be at least 1 and at most {MAX_SIZE}, got {fixed}")
        check_samples_size(self.example_shape)
        self._check_range()

    def _check_range(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low and high of {self.name} belong together")
        if self.low is None or self.high is None:
            return
        if not -_LARGEST <= self.low < self.high <= _LARGEST:
            got = " and ".join(shortened(repr(bound)) for bound in (self.low, self.high))
            raise ValueError(f"low of {self.name} must be below its high, both in the range of float32, got {got}")
        if self.dtype in WHOLE:
            least, bound = WHOLE[self.dtype]
            if not (
                isinstance(self.low, int) and isinstance(self.high, int) and least <= self.low < self.high <= bound
            ):
                raise ValueError(
                    f"low and high of {self.name} must be whole numbers that {self.dtype} holds, "
                    f"got {self.low} and {self.high}"
                )

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers or truth values."""
        return self.dtype in WHOLE

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of an example's sample."""
        return tuple(size if isinstance(size, int) else size.example for size in self.shape)

    @property
    def varying(self) -> dict[int, VaryingSize]:
        """The varying dimensions by their axis in the input tensor, the batch left out."""
        first = 1 if self.has_batch else 0
        return {axis: size for axis, size in enumerate(self.shape, first) if isinstance(size, VaryingSize)}

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a sample of this shape is one of this input."""
        return len(shape) == len(self.shape) and all(map(_takes, self.shape, shape))

    def sizes(self) -> tuple[int | str, ...]:
        """The sizes of its tensor, the batch first, those that vary by their names."""
        return (BATCH,) * self.has_batch + tuple(s if isinstance(s, int) else s.name for s in self.shape)

    def words(self) -> str:
        """Name, shape and type, as a table shows them."""
        return f"{self.name} ({', '.join(map(str, self.sizes()))}) {self.dtype}"

    def sample_words(self) -> str:
        """The shape of a sample, as in "[3, t] (t from 8 to 128)"."""
        names = [size if isinstance(size, int) else size.name for size in self.shape]
        known = [size for size in self.varying.values() if size.largest is not None]
        ranges = ", ".join(f"{size.name} from {size.smallest} to {size.largest}" for size in known)
        return f"[{', '.join(map(str, names))}]" + f" ({ranges})" * bool(ranges)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without the example file."""
        return {
            "name": self.name,
            "shape": [size if isinstance(size, int) else asdict(size) for size in self.shape],
            "dtype": self.dtype,
            "low": self.low,
            "high": self.high,
            "optional": self.optional,
            "has_batch": self.has_batch,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
                ValueError: It isn't of that form; TypeError and KeyError have the same cause.
        """
        fields = {key: document[key] for key in ("name", "dtype", "low", "high", "optional", "has_batch")}
        kinds: dict[str, Any] = {"name": str, "dtype": str, "optional": bool, "has_batch": bool}
        if not all(isinstance(fields[key], kind) for key, kind in kinds.items()):
            raise ValueError("an input of the network is described by values of other types")
        if not all(fields[key] is None or type(fields[key]) in (int, float) for key in ("low", "high")):
            raise ValueError("a range of the network's inputs is no pair of numbers")
        return cls(shape=tuple(map(_read_size, document["shape"])), **fields)


def _takes(size: int | VaryingSize, given: int) -> bool:
    return size == given if isinstance(size, int) else size.takes(given)


def _read_size(size: Any) -> int | VaryingSize:
    if type(size) is int:
        return size
    whole = [size[key] for key in ("example", "smallest", "largest")]
    if not isinstance(size["name"], str) or not all(type(value) is int for value in whole[:2]):
        raise ValueError("a varying dimension of the network's inputs has no name, or no whole sizes")
    return VaryingSize(size["name"], *whole)


def varying_sizes(inputs: Iterable[NetworkInput]) -> dict[str, VaryingSize]:
    """The varying dimensions of inputs, by name, in their order; the batch is left out."""
    return {size.name: size for each in inputs for size in each.varying.values()}
