"""What a network's layers are at full width, by which a cost model tells its own network from others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from prunec.passes.costs.workload import Work
from prunec.passes.errors import InputError


@dataclass(frozen=True)
class DenseLayer:
    """An operation of the dense network; counts are of one sample, as in `Work`.

    Attributes:
        name: Name of the layer.
        operator: ATen operator of the layer; empty before the first layer.
        kernel: Sizes of the weight behind its filters and inputs.
        in_channels: Channels that it reads.
        out_channels: Channels that it writes.
        weights: Elements of its weight.
        reads: Elements of the activation that it reads.
        writes: Elements that it writes.
    """

    name: str
    operator: str
    kernel: tuple[int, ...]
    in_channels: int
    out_channels: int
    weights: int
    reads: int
    writes: int


#: What pruning makes smaller.
SIZES = ("in_channels", "out_channels", "weights", "reads", "writes")


def layers_of(work: Work) -> tuple[DenseLayer, ...]:
    """The operations of some work without leading axes."""
    sizes = np.stack([getattr(work, name) for name in SIZES], axis=-1).round().astype(np.int64).tolist()
    pairs = zip(work.operations, sizes, strict=True)
    return tuple(DenseLayer(each.name, each.operator, each.kernel, *of_each) for each, of_each in pairs)


def check_dense(measured: Sequence[DenseLayer], work: Work) -> None:
    """Refuse a cost model's layers where they aren't those of a dense network.

    Raises:
        InputError: A layer is missing on either side, or differs.
    """
    layers = layers_of(work)
    _check(measured, layers, lambda _, got, expected: got == expected)
    if gone := {each.name for each in measured} - {each.name for each in layers}:
        raise _another(f"the network has no layer {min(gone)!r}, which was measured")


def check_pruned(measured: Sequence[DenseLayer], work: Work) -> None:
    """Refuse a cost model's layers where a network can't have been pruned out of them.

    Raises:
        InputError: A layer wasn't measured, has another operator or kernel, or is larger than the measured one.
    """
    _check(measured, layers_of(work), lambda name, got, expected: got <= expected if name in SIZES else got == expected)


def _check(measured: Sequence[DenseLayer], layers: Sequence[DenseLayer], fits: Callable[[str, Any, Any], bool]) -> None:
    by_name = {each.name: each for each in measured}
    for layer in layers:
        if layer.name not in by_name:
            raise _another(f"it knows nothing of the layer {layer.name!r}")
        for each in fields(DenseLayer):
            got, expected = getattr(layer, each.name), getattr(by_name[layer.name], each.name)
            if not fits(each.name, got, expected):
                where = f"the layer {layer.name!r}" if layer.name else "what comes before the first layer"
                raise _another(f"{where} has {each.name} {got!r} here, expected {expected!r}")


def _another(reason: str) -> InputError:
    return InputError(
        f"The cost model was measured on another network: {reason}.",
        hint="Measure this network: prunec measure-costs CHECKPOINT --target TARGET -o FILE.",
    )
