"""Sizes that an engine's dynamic dimensions may have."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import onnx

from prunec.passes.errors import UsageError, did_you_mean

Shape = tuple[int, ...]


@dataclass(frozen=True)
class SizeRange:
    """Sizes of one dynamic dimension: the smallest, the one that kernels are tuned for, the largest.

    >>> str(SizeRange.parse("1:8:32"))
    '1:8:32'
    """

    smallest: int
    tuned: int
    largest: int

    def __post_init__(self) -> None:
        """Refuse what is no range.

        Raises:
            UsageError: sizes below 1 or out of order.
        """
        if not 1 <= self.smallest <= self.tuned <= self.largest:
            raise UsageError(
                f"{self} is no range of sizes.", hint="Write smallest:tuned:largest, as in batch=1:8:32, or one size."
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1:8:32``, or ``8`` for that size alone.

        Raises:
            UsageError: it is neither.
        """
        sizes = text.split(":")
        if not all(size.isascii() and size.isdigit() for size in sizes) or len(sizes) not in (1, 3):
            raise UsageError(f"{text!r} is no range of sizes.", hint="Write smallest:tuned:largest, as in 1:8:32.")
        return cls(*map(int, sizes * 3 if len(sizes) == 1 else sizes))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.smallest}:{self.tuned}:{self.largest}"


#: Dimension -> range, where nothing else is asked for.
DEFAULT_RANGES: Mapping[str, SizeRange] = {"batch": SizeRange(1, 8, 32)}


def dynamic_dimensions(onnx_path: Path) -> list[str]:
    """Names of the dynamic dimensions of a model's inputs, in their order."""
    shapes = _input_dimensions(onnx_path).values()
    return list(dict.fromkeys(size for shape in shapes for size in shape if isinstance(size, str)))


def shape_ranges(onnx_path: Path, ranges: Mapping[str, SizeRange]) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Smallest, tuned and largest shape of every input with a dynamic dimension.

    Args:
        onnx_path: the model, whose dynamic dimensions have names.
        ranges: by dimension, added to `DEFAULT_RANGES`.

    Raises:
        UsageError: a dynamic dimension has no range, or a range belongs to none.
    """
    known, given = dynamic_dimensions(onnx_path), {**DEFAULT_RANGES, **ranges}
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
    result = {}
    for name, shape in _input_dimensions(onnx_path).items():
        if any(isinstance(size, str) for size in shape):
            sizes = [given[s] if isinstance(s, str) else SizeRange(s, s, s) for s in shape]
            result[name] = (
                tuple(size.smallest for size in sizes),
                tuple(size.tuned for size in sizes),
                tuple(size.largest for size in sizes),
            )
    return result


def _input_dimensions(onnx_path: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(onnx_path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return {
        item.name: [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in graph.input
        if item.name not in constants
    }
