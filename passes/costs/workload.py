"""What each layer of a program has to do, as a function of the units that its groups keep.

An *operation* is one call of a layer with everything that follows it up to the next layer: activations, sums, pooling,
attention's products. Every size is an affine function of the units kept, so every count is a sum of products of such
sizes: exact at any widths, without pruning anything. `workload_of` counts them.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Operation:
    """One call of a layer with what follows it up to the next: what is the same at any widths.

    Attributes:
        name: Path of the layer, with ``#2`` for its second call; empty for what comes before the first layer.
        operator: ATen operator of the layer; empty before the first layer.
        weight: Name of its weight.
        kernel: Sizes of the weight behind its filters and inputs, such as (3, 3).
        is_grouped: Whether it is a convolution of several groups.
        tail: Operators that follow it and that engines run as kernels of their own, in the order of execution.
        source: Name of the operation that it reads from.
        joins: Names of the operations whose outputs pointwise operators behind it read, as a residual sum does.
        tail_of: Name of the operation that its tail followed before that went with a residual branch; empty where none
            did.
    """

    name: str
    operator: str = ""
    weight: str = ""
    kernel: tuple[int, ...] = ()
    is_grouped: bool = False
    tail: tuple[str, ...] = ()
    source: str = ""
    joins: tuple[str, ...] = ()
    tail_of: str = ""


@dataclass(frozen=True)
class Work:
    """What the operations do for one sample at some widths; every array is float64 (..., operations).

    Attributes:
        operations: The operations, in the order of execution.
        in_channels: Channels that a layer reads; 0 before the first layer.
        out_channels: Channels that it writes.
        macs: Multiply-accumulates with its weight (`prunec.passes.cost`).
        weights: Elements of its weight.
        reads: Elements of the activation that it reads.
        writes: Elements that it writes.
        joined: Elements of other activations that pointwise operators behind it read, as a residual sum does.
        tail_moves: Elements that the kernels of its tail read and write.
        tail_macs: Multiply-accumulates of two activations in its tail, as attention's.
        parameters: Trained scalars that it is the first to use, biases and norms that follow it included.
    """

    operations: tuple[Operation, ...]
    in_channels: NDArray[np.float64]
    out_channels: NDArray[np.float64]
    macs: NDArray[np.float64]
    weights: NDArray[np.float64]
    reads: NDArray[np.float64]
    writes: NDArray[np.float64]
    joined: NDArray[np.float64]
    tail_moves: NDArray[np.float64]
    tail_macs: NDArray[np.float64]
    parameters: NDArray[np.float64]


#: The counts of `Work`, in the order of a workload's cells.
COUNTS = tuple(each.name for each in fields(Work) if each.name != "operations")


@dataclass(frozen=True, eq=False)
class Workload:
    """The work of a program as a function of the units kept in each of its prunable groups.

    Attributes:
        operations: The operations, in the order of execution.
        owners: Position of the operation that a node of the graph belongs to, by the node's name.
        slopes: Channels per kept unit of each size, float64 (sizes, groups).
        constants: Channels of each size that stay anyway, float64 (sizes,); the last size is 1.
        scales: Factor of each product of sizes that no group changes, float64 (terms,).
        factors: Sizes that each product multiplies, int64 (terms, longest).
        cells: Cell of (counts, operations) that each product adds to, int64 (terms,).
    """

    operations: tuple[Operation, ...]
    owners: Mapping[str, int]
    slopes: NDArray[np.float64]
    constants: NDArray[np.float64]
    scales: NDArray[np.float64]
    factors: NDArray[np.int64]
    cells: NDArray[np.int64]

    def at(self, kept: NDArray[np.int64]) -> Work:
        """The work with ``kept`` units in each group, int64 (..., groups)."""
        rows = kept.reshape(math.prod(kept.shape[:-1]), kept.shape[-1])
        sizes = rows @ self.slopes.T + self.constants
        terms = self.scales * np.prod(sizes[:, self.factors], axis=-1)
        count = len(COUNTS) * len(self.operations)
        cells = self.cells + count * np.arange(len(rows))[:, None]
        totals = np.bincount(cells.ravel(), terms.ravel(), minlength=count * len(rows))
        by_count = np.moveaxis(totals.reshape(len(rows), len(COUNTS), len(self.operations)), 1, 0)
        return Work(self.operations, *by_count.reshape(len(COUNTS), *kept.shape[:-1], len(self.operations)))

    def only(self, counts: Collection[str]) -> "Workload":
        """The workload with some of the counts of `Work`, the others 0: faster where no more is asked for."""
        wanted = np.isin(self.cells // len(self.operations), [COUNTS.index(count) for count in counts])
        terms = {name: getattr(self, name)[wanted] for name in ("scales", "factors", "cells")}
        return replace(self, **terms)

    @property
    def touched(self) -> NDArray[np.bool_]:
        """Whether a group's width bears on an operation, bool (groups, operations)."""
        touched = np.zeros((self.slopes.shape[1], len(self.operations)), dtype=bool)
        for cell, sizes in zip(self.cells % max(len(self.operations), 1), self.factors, strict=True):
            touched[:, cell] |= (self.slopes[sizes] != 0).any(axis=0)
        return touched
