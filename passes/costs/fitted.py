"""Cost models that are fitted to measurements: per layer a law of its widths, as plain numbers.

An engine computes in blocks of channels, so that its time is linear in what whole blocks have to do. A convolution
whose input isn't made of whole blocks is run by other kernels, which follow another law. The three regimes are those of
ONNX Runtime's blocked convolutions (NCHWc; `onnxruntime/core/optimizer/nchwc_transformer.cc`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from prunec.passes.costs.cost_model import CostKey, CostSource
from prunec.passes.costs.layers import DenseLayer
from prunec.passes.costs.workload import Operation, Work
from prunec.passes.errors import InputError

#: What the coefficients of a law multiply (`features`).
FEATURES = ("one", "reads", "writes", "macs", "repeats", "alone", "reordered", "joined", "tail_moves", "tail_macs")
#: Which kernels run an operation: those of whole blocks, those of an input narrower than a block, those without blocks.
REGIMES = ("blocked", "narrow", "plain")
_BLOCKED, _NARROW, _PLAIN = range(len(REGIMES))


@dataclass(frozen=True)
class Blocks:
    """How an engine's kernels divide channels.

    Attributes:
        size: Channels of a block.
        per_set: Blocks of output channels that one reading of the input yields.
        multiple: Input channels of a blocked convolution are a multiple of it, or fewer than a block.
    """

    size: int
    per_set: int
    multiple: int


@dataclass(frozen=True, eq=False)
class FittedCosts:
    """Milliseconds of a network's layers by laws that were fitted to measured variants of it.

    Attributes:
        key: What it holds for.
        error: Mean relative error on variants that it was not fitted to (`CostModel`).
        blocks: How the engine's kernels divide channels.
        layers: The operations of the dense network, which is the one that it holds for (`check_dense`).
        laws: Milliseconds per unit of each of `FEATURES`, float64 (regimes, operations, features).
        network: Milliseconds of one inference beside those of its layers, and for each of theirs.
        two_four_gain: Time of the whole network without 2:4 and INT8 over that with them, as the laws are; 1 where they
            are of neither.
    """

    key: CostKey
    error: Mapping[str, float]
    blocks: Blocks
    layers: tuple[DenseLayer, ...]
    laws: NDArray[np.float64]
    network: tuple[float, float] = (0.0, 1.0)
    two_four_gain: float = 1.0
    source: CostSource = field(default="measured", init=False)

    @property
    def plain(self) -> "FittedCosts":
        """`CostModel.plain`: every time by the gain that the whole network has, which is all that was measured."""
        if self.two_four_gain == 1:
            return self
        beside, factor = self.network
        network = beside * self.two_four_gain, factor
        return replace(self, laws=self.laws * self.two_four_gain, network=network, two_four_gain=1.0)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each operation in the laws, by its name."""
        return {layer.name: row for row, layer in enumerate(self.layers)}

    @property
    def untimed(self) -> tuple[str, ...]:
        """Layers that no kernel was found for: they count as no time, theirs as that of the layers before."""
        return tuple(name for name, row in self.rows.items() if name and not self.laws[:, row].any())

    def layer_ms(self, work: Work) -> NDArray[np.float64]:
        """`CostModel.layer_ms`.

        Where an operation took over what followed another one, its own law may know nothing of a tail: the law of the
        two that takes longer holds.
        """
        rows, regime, counts = self._rows(work), regimes(work, self.blocks), features(work, self.blocks)
        own = np.asarray(np.einsum("...f,...f->...", counts, self.laws[regime, rows]))
        for at, operation in enumerate(work.operations):
            if not operation.tail_of or (row := self.rows.get(operation.tail_of)) is None:
                continue
            former = np.einsum("...f,...f->...", counts[..., at, :], self.laws[regime[..., at], row])
            own[..., at] = np.maximum(own[..., at], former)
        return own

    def network_ms(self, work: Work) -> NDArray[np.float64]:
        """Milliseconds of the whole network (`CostModel.network_ms`)."""
        beside, factor = self.network
        return np.asarray(beside + factor * self.layer_ms(work).sum(axis=-1))

    def _rows(self, work: Work) -> NDArray[np.int64]:
        """Row of each operation; the network may have lost some of those that were measured.

        Raises:
            InputError: An operation wasn't measured.
        """
        if missing := [operation.name for operation in work.operations if operation.name not in self.rows]:
            raise InputError(
                f"The cost model knows nothing of the layer {missing[0]!r}: it was measured on another network.",
                hint="Measure this network: prunec measure-costs CHECKPOINT --target TARGET -o FILE.",
            )
        return np.array([self.rows[operation.name] for operation in work.operations], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Kinds:
    """What is the same of operations at any widths, as arrays (operations,)."""

    is_convolution: NDArray[np.bool_]
    is_spatial: NDArray[np.bool_]
    is_grouped: NDArray[np.bool_]
    has_tail: NDArray[np.bool_]
    areas: NDArray[np.float64]
    sources: NDArray[np.int64]
    joined: tuple[tuple[int, int], ...]


@lru_cache(maxsize=64)
def _kinds(operations: tuple[Operation, ...]) -> _Kinds:
    """The kinds of operations: allocations ask for the same ones thousands of times."""
    rows = {operation.name: row for row, operation in enumerate(operations)}
    return _Kinds(
        is_convolution=np.array([operation.operator.startswith("conv") for operation in operations], dtype=bool),
        is_spatial=np.array([operation.operator == "conv2d" for operation in operations], dtype=bool),
        is_grouped=np.array([operation.is_grouped for operation in operations], dtype=bool),
        has_tail=np.array([bool(operation.tail) for operation in operations], dtype=bool),
        areas=np.array([math.prod(operation.kernel) for operation in operations], dtype=np.float64),
        sources=np.array([rows.get(operation.source, row) for row, operation in enumerate(operations)], dtype=np.int64),
        joined=tuple(
            (row, rows[name]) for row, operation in enumerate(operations) for name in operation.joins if name in rows
        ),
    )


def regimes(work: Work, blocks: Blocks) -> NDArray[np.int64]:
    """Which of `REGIMES` each operation is in, int64 (..., operations); what is no convolution is always blocked.

    A convolution over other than two dimensions, or a transposed one, is always plain. One of several groups never
    reads a narrow input: a depthwise one is blocked where its channels are a multiple, another one where a group's
    inputs and outputs are whole blocks.
    """
    kinds = _kinds(work.operations)
    fits = work.in_channels % blocks.multiple == 0
    inputs = _ratio(work.weights, work.out_channels * kinds.areas)  # of a group
    outputs = _ratio(work.out_channels * inputs, work.in_channels)
    is_depthwise = np.round(np.maximum(inputs, outputs)) <= 1
    are_whole = (np.round(inputs) % blocks.size == 0) & (np.round(outputs) % blocks.size == 0)
    grouped = np.where(np.where(is_depthwise, fits, are_whole), _BLOCKED, _PLAIN)
    single = np.where(work.in_channels < blocks.size, _NARROW, np.where(fits, _BLOCKED, _PLAIN))
    of_spatial = np.where(kinds.is_grouped, grouped, single)
    return np.where(kinds.is_spatial, of_spatial, np.where(kinds.is_convolution, _PLAIN, _BLOCKED))


def features(work: Work, blocks: Blocks) -> NDArray[np.float64]:
    """What the laws multiply, float64 (..., operations, features of `FEATURES`).

    Of a blocked operation, elements and MACs are those of its channels rounded up to whole blocks; a narrow one reads
    its channels as they are, and a plain one writes them so too. What is repeated are the readings of the input, once
    per set of blocks; a plain convolution unfolds it, into one row per weight of a filter. A block that is alone in its
    set takes longer: its MACs count once more. Reordered is what a plain operation reads of a blocked one, and what is
    handled outside of blocks behind a blocked one.
    """
    regime, is_grouped = regimes(work, blocks), _kinds(work.operations).is_grouped
    whole_in, whole_out = (
        _ratio(np.ceil(each / blocks.size) * blocks.size, each) for each in (work.in_channels, work.out_channels)
    )
    whole_in, whole_out = np.where(regime == _BLOCKED, whole_in, 1.0), np.where(regime == _PLAIN, 1.0, whole_out)
    macs = work.macs * whole_out * np.where(is_grouped, 1.0, whole_in)
    reads, writes = work.reads * whole_in, work.writes * whole_out
    count = np.ceil(work.out_channels / blocks.size)
    is_plain = regime == _PLAIN
    repeats = np.where(is_plain, _ratio(work.macs, work.out_channels), reads * np.ceil(count / blocks.per_set))
    is_alone = (count % blocks.per_set == 1) & ~is_plain & ~is_grouped
    alone = np.where(is_alone, _ratio(macs, count), 0.0)
    reads_blocked, leaves_blocks = _layouts(work, blocks, is_plain)
    behind = np.where(leaves_blocks, work.joined + work.tail_moves, 0.0)
    reordered = np.where(is_plain, np.where(reads_blocked, work.reads, 0.0), behind)
    ones = np.ones_like(reads)
    values = (ones, reads, writes, macs, repeats, alone, reordered, work.joined, work.tail_moves, work.tail_macs)
    return np.stack(values, axis=-1)


def _layouts(work: Work, blocks: Blocks, is_plain: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each operation reads blocks, and whether what follows it handles its outputs outside of blocks.

    Sums do where an operand isn't blocked, pooling where channels are no whole blocks.
    """
    kinds = _kinds(work.operations)
    leaves = is_plain | ((work.out_channels % blocks.size != 0) & kinds.has_tail & kinds.is_spatial)
    for row, other in kinds.joined:
        leaves[..., row] |= leaves[..., other]
    return ~leaves[..., kinds.sources], leaves


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """One count over another, 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
