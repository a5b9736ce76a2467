"""How far the outputs of a network on grids are from those in floating point."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.passes.errors import NumericMismatchError
from prunec.passes.feeding import BatchInputs, feed
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program


class OutputError:
    """The error of a network's outputs, in whatever batches they come.

    Of a floating-point output it is the sum of squared differences over that of squares, and in all the mean over
    outputs, so that none counts for more because it is larger. Of a network that gives whole numbers alone, as the
    classes of pixels, it is the share of them that differ, likewise.

    Values that are infinite in floating point, as those of classes that are masked out, are to stay so. Where they
    don't, where others become infinite or NaN, and where an output differs that is all zero in floating point, the
    error is infinite.
    """

    def __init__(self) -> None:
        self._differences: list[float] = []
        self._sizes: list[float] = []

    def add(self, actual: Any, expected: Any) -> None:
        """Take in what the network gives for a batch, on grids and in floating point.

        Raises:
            NumericMismatchError: It gives NaN in floating point.
        """
        pairs = list(zip(_compared(actual), _compared(expected), strict=True))
        self._differences = self._differences or [0.0] * len(pairs)
        self._sizes = self._sizes or [0.0] * len(pairs)
        for place, pair in enumerate(pairs):
            difference, size = _sums(*pair)
            self._differences[place] += difference
            self._sizes[place] += size

    @property
    def value(self) -> float:
        """The error over all that was taken in; 0 where that is nothing."""
        sums = list(zip(self._differences, self._sizes, strict=True))
        errors = [difference / size if size else math.inf if difference else 0.0 for difference, size in sums]
        return sum(errors) / max(len(errors), 1)


def _compared(outputs: Any) -> list[Tensor]:
    """The floating-point outputs; all of them where there are none."""
    tensors = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return [tensor for tensor in tensors if tensor.is_floating_point()] or tensors


def _sums(actual: Tensor, expected: Tensor) -> tuple[float, float]:
    """The sums of squared differences and of squares; of whole numbers how many differ, and how many there are."""
    if expected.isnan().any():
        raise NumericMismatchError(
            "The network gives NaN in floating point, from which there is no difference.",
            hint="Look for them in the data, in how they are preprocessed, and in the checkpoint.",
        )
    if actual.shape != expected.shape:
        return math.inf, 1.0
    if not expected.is_floating_point():
        return float((actual != expected).sum()), float(expected.numel())
    a, b = actual.double(), expected.double()
    is_finite = b.isfinite()
    if not bool(torch.where(is_finite, a.isfinite(), a == b).all()):
        return math.inf, 1.0
    a, b = a[is_finite], b[is_finite]
    return float((a - b).square().sum()), float(b.square().sum())


@torch.no_grad()
def output_error(program: Program, batches: Sequence[BatchInputs], expected: Sequence[Any]) -> float:
    """The error of a program's outputs for some batches.

    Args:
        program: The program on grids.
        batches: The inputs.
        expected: What the network gives for each batch in floating point.

    Raises:
        NumericMismatchError: It gives NaN in floating point.
        InputError: The inputs are not those of the network.
    """
    error = OutputError()
    for inputs, outputs in zip(stoppable(batches), expected, strict=True):
        error.add(feed(program, inputs), outputs)
    return error.value
