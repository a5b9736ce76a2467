"""Predicted milliseconds of layers on a GPU, from its data sheet: the roofline model with launches and tiles.

A kernel takes at least the time of its operations at the device's peak rate, and at least the time of its bytes at the
memory's bandwidth (Williams, Waterman and Patterson, CACM 52(4), 2009). Here neither rate is the peak: a product is cut
into tiles, which waves of multiprocessors compute, each of them delayed by what it has to load (NVIDIA, Matrix
Multiplication Background User's Guide, DU-09799-001); and every kernel takes the time of a launch. Caches are left out.
A prediction is no measurement: docs/engines.md says how far it is from published ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prunec.passes.cost import layer_calls
from prunec.passes.costs.cost_model import CostKey, CostSource
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.workload import Work
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import is_quantized, precision_on_grids
from prunec.passes.unknown import Unknown
from prunec.runtime.devices import Device, KernelBound
from prunec.runtime.target import Target
from prunec.runtime.tiles import TILES, channel_multiple

_Array = NDArray[np.float64]
#: What most of a layer's time goes into.
Bound = Literal["compute", "memory", "launch"]
BOUNDS: tuple[Bound, ...] = get_args(Bound)
_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8}
#: Milliseconds of an empty kernel in a row of them, its start and end included: MobileNetV2's 53 layers take 0.30 ms in
#: INT8 at batch 1 on an A100 (NVIDIA, TensorFlow-2.x Quantization Toolkit, Model Zoo).
LAUNCH_MS = 0.005
#: Share of the memory's bandwidth that long copies reach.
BANDWIDTH_SHARE = 0.8
#: Multiply-accumulates that a multiprocessor could do while it loads one element of a tile: then BERT Large takes the
#: 163.7 ms that NVIDIA gives for an A100 (sequences of 384, batch 128, FP16; NVIDIA/TensorRT, demo/BERT/README.md).
_MACS_PER_LOAD = 44
#: Sparse kernels reach this share of what dense ones do of their own, doubled peak. Products of 2048 rows with matrices
#: of 768x3072 ran 1.2 times as fast on a Jetson Orin under TensorRT 10.3.
_SPARSE_SHARE = 0.6
#: Rate of 16-bit operations without Tensor Cores over that with them: 78 of 312 TFLOP/s on an A100, 16.2 of 65 on a T4.
_WITHOUT_TENSOR_CORES = 0.25
#: Bytes of the inputs that a tile sums over at a time, and the most parts that a long sum is cut into.
_STEP_BYTES, _PARTS = 64, (1, 2, 4, 8, 16)
#: Input channels among which 2:4 keeps half.
_TWO_FOUR_INPUTS = 4
#: Engines have kernels of their own for the few channels of pictures.
_PICTURE_CHANNELS = 4


@dataclass(frozen=True)
class Times:
    """Milliseconds of operations by what they go into; every array is float64 (..., operations).

    A kernel's time is that of its operations or of its bytes, whichever is longer, and that of its launch.
    """

    compute_ms: _Array
    memory_ms: _Array
    launch_ms: _Array

    @property
    def total_ms(self) -> _Array:
        """The time of compute, memory and launches together."""
        total: _Array = self.compute_ms + self.memory_ms + self.launch_ms
        return total

    def of(self, operations: Sequence[int]) -> "Prediction":
        """The time of some operations together, where there are no leading axes."""
        parts = [float(each[list(operations)].sum()) for each in (self.compute_ms, self.memory_ms, self.launch_ms)]
        compute_ms, memory_ms, _ = parts
        kernel_bound: KernelBound = "compute" if compute_ms >= memory_ms else "memory"
        return Prediction(sum(parts), BOUNDS[int(np.argmax(parts))], kernel_bound)


@dataclass(frozen=True)
class Prediction:
    """Predicted milliseconds.

    Attributes:
        ms: Milliseconds in all.
        bound: What most of the time goes into.
        kernel_bound: Which takes longer, operations or bytes; launches aside.
    """

    ms: float
    bound: Bound
    kernel_bound: KernelBound


@dataclass(frozen=True)
class RooflineCosts:
    """A cost model out of a device's data sheet (`prunec.passes.costs.cost_model.CostModel`).

    Attributes:
        key: What it holds for.
        device: The device.
        precision: Precision of weights and activations.
        peak_tops: Dense peak in that precision, 1e12 operations per second.
        bandwidth: Memory bandwidth, 1e9 bytes per second.
        sparse_weights: Names of the weights that hold 2:4 at widths that can: input channels in groups of 4. An engine
            that doesn't gain by it runs them dense.
        float_weights: Names of the weights that aren't computed on grids, where others are.
        in_float: The model of these, and of a whole network without grids; None where `precision` isn't INT8
            or FP8.
    """

    key: CostKey
    device: Device
    precision: str
    peak_tops: float
    bandwidth: float
    sparse_weights: frozenset[str]
    float_weights: frozenset[str] = frozenset()
    in_float: "RooflineCosts | None" = None

    @property
    def source(self) -> CostSource:
        """Its figures are predictions."""
        return "roofline"

    @property
    def error(self) -> Mapping[str, float]:
        """Empty: it was not compared with measurements of the network."""
        return {}

    @property
    def plain(self) -> "RooflineCosts":
        """`CostModel.plain`: all weights dense, and none on grids."""
        return replace(self.in_float or self, sparse_weights=frozenset())

    def layer_ms(self, work: Work) -> _Array:
        """Milliseconds of every operation with what follows it, float64 (..., operations)."""
        return self.times(work).total_ms

    def network_ms(self, work: Work) -> _Array:
        """Milliseconds of one inference of the whole network, float64 (...,)."""
        total: _Array = self.layer_ms(work).sum(axis=-1)
        return total

    def by_weight(self, work: Work) -> dict[str, Prediction]:
        """All calls of each weight together, each with what follows it, where there are no leading axes."""
        times, calls = self.times(work), dict[str, list[int]]()
        for place, operation in enumerate(work.operations):
            calls.setdefault(operation.weight, []).append(place)
        return {weight: times.of(places) for weight, places in calls.items()}

    def times(self, work: Work) -> Times:
        """What the time of every operation goes into, its own kernel and those of its tail together."""
        layer, tail = self._layer(work), self._tail(work)
        kernels = np.array([bool(o.operator) + len(o.tail) for o in work.operations], dtype=np.float64)
        return Times(
            compute_ms=layer.compute_ms + tail.compute_ms,
            memory_ms=layer.memory_ms + tail.memory_ms,
            launch_ms=np.broadcast_to(kernels * LAUNCH_MS, work.macs.shape),
        )

    def _layer(self, work: Work) -> Times:
        """The layers' own kernels, each in its precision."""
        own = self._fastest(work)
        is_float = _are_among(work, self.float_weights)
        if self.in_float is None or not is_float.any():
            return own
        return _chosen(is_float, self.in_float._fastest(work), own)

    def _fastest(self, work: Work) -> Times:
        """All layers in one precision; where a weight holds 2:4, the faster of the sparse and the dense kernel."""
        dense, is_sparse = self._kernel(work, two_four=False), _are_among(work, self.sparse_weights)
        if not is_sparse.any():
            return dense
        sparse = self._kernel(work, two_four=True)
        can_hold = work.in_channels % _TWO_FOUR_INPUTS == 0
        return _chosen(is_sparse & can_hold & (sparse.total_ms < dense.total_ms), sparse, dense)

    def _kernel(self, work: Work, *, two_four: bool) -> Times:
        bits = _BITS[self.precision]
        # 2:4 keeps half of the weights, each with 2 bits for its position.
        weight_bits = work.weights * ((bits + 2) / 2 if two_four else bits)
        moved_bits = self.key.batch * (work.reads + work.writes + work.joined) * bits + weight_bits
        is_grouped = np.array([o.is_grouped for o in work.operations], dtype=bool)
        plain_ms = self._operations_ms(self.key.batch * work.macs) / _WITHOUT_TENSOR_CORES
        return self._longer(np.where(is_grouped, plain_ms, self._tiled_ms(work, two_four=two_four)), moved_bits)

    def _tail(self, work: Work) -> Times:
        """What follows the layers; attention's products run in tiles of the middle size."""
        compute_ms = self._operations_ms(self.key.batch * work.tail_macs) / _tile_share(*TILES[len(TILES) // 2])
        return self._longer(compute_ms, self.key.batch * work.tail_moves * _BITS[self.precision])

    def _longer(self, compute_ms: _Array, moved_bits: _Array) -> Times:
        """The time of operations or of bytes, whichever is longer."""
        memory_ms = moved_bits / 8 / (self.bandwidth * BANDWIDTH_SHARE * 1e6)
        is_compute = compute_ms >= memory_ms
        nothing = np.zeros_like(memory_ms)
        return Times(np.where(is_compute, compute_ms, nothing), np.where(is_compute, nothing, memory_ms), nothing)

    def _operations_ms(self, macs: _Array) -> _Array:
        """Milliseconds of multiply-accumulates at the rate that the device sustains."""
        return 2 * macs / (self.peak_tops * self.device.sustained * 1e9)

    def _tiled_ms(self, work: Work, *, two_four: bool) -> _Array:
        """Milliseconds of the products: rows by padded filters, in the tiles and parts that take the least time.

        Rows are the positions of the output; each element sums over the padded inputs, at every position of the kernel.
        """
        multiple = channel_multiple(self.device, self.precision, sparse=two_four)
        inputs, filters = np.maximum(work.in_channels, 1), np.maximum(work.out_channels, 1)
        padded = np.where(inputs <= _PICTURE_CHANNELS, _PICTURE_CHANNELS, _up(inputs, multiple))
        rows, depth = self.key.batch * work.writes / filters, work.macs / np.maximum(work.writes, 1) * padded / inputs
        step = _STEP_BYTES * 8 // _BITS[self.precision] * (2 if two_four else 1)
        times = [
            self._waves_ms(tile, parts * np.ceil(rows / tile[0]) * np.ceil(_up(filters, multiple) / tile[1]), deep)
            for parts in _PARTS
            for deep in (_up(depth / parts, step),)
            for tile in TILES
        ]
        fastest: _Array = np.min(times, axis=0)
        return fastest / (2 * _SPARSE_SHARE) if two_four else fastest

    def _waves_ms(self, tile: tuple[int, int], tiles: _Array, depth: _Array) -> _Array:
        """Milliseconds of a number of tiles, each of which sums over ``depth`` inputs."""
        cores = self.device.multiprocessors or 1
        waves = np.ceil(tiles / cores) * cores
        return self._operations_ms(waves * tile[0] * tile[1] * depth) / _tile_share(*tile)


def roofline_costs(
    target: Target,
    batch: int,
    sparse_weights: frozenset[str] = frozenset(),
    float_weights: frozenset[str] = frozenset(),
) -> RooflineCosts | Unknown:
    """The roofline of a target; what isn't known where no source gives the peak rate or bandwidth of its device.

    Args:
        target: The target.
        batch: Number of samples at once.
        sparse_weights: Names of the weights that hold 2:4, or would.
        float_weights: Names of the weights that a network on grids computes in higher precision.
    """
    device = target.info
    peak_tops, bandwidth = device.peak_tops(target.precision, sparse=False), device.memory_gb_per_s
    if peak_tops is None or bandwidth is None:
        return Unknown(f"no source gives the peak rate of {device.title} in {target.precision} or its bandwidth.")
    key = CostKey(str(target), device.title, "", None, batch)
    costs = RooflineCosts(key, device, target.precision, peak_tops, bandwidth, sparse_weights, float_weights)
    if target.float_precision == target.precision:
        return costs
    in_float = roofline_costs(replace(target, precision=target.float_precision), batch, sparse_weights)
    return in_float if isinstance(in_float, Unknown) else replace(costs, in_float=in_float)


def predict_program(program: Program, target: Target, batch: int) -> float | Unknown:
    """Predicted milliseconds of a program; layers masked to 2:4 run sparse kernels where the target asks for them.

    A program that has no values on grids is predicted as it runs beside them, in higher precision.
    """
    masked = program.masked_to(TWO_FOUR) if target.sparse else frozenset[str]()
    costs = roofline_costs(target, batch, masked, weights_in_float(program))
    if isinstance(costs, Unknown):
        return costs
    whole = costs if costs.in_float is None or is_quantized(program.graph) else costs.in_float
    return float(whole.network_ms(work_of(program)))


def weights_in_float(program: Program) -> frozenset[str]:
    """Names of the weights of the layers that don't compute on grids."""
    calls = layer_calls(program.graph, program.samples_of_shapes)
    return frozenset(layer.weight for call, layer in calls if precision_on_grids(call) is None)


def _are_among(work: Work, weights: frozenset[str]) -> NDArray[np.bool_]:
    """Which operations have one of some weights, bool (operations,)."""
    return np.array([operation.weight in weights for operation in work.operations], dtype=bool)


def _chosen(where: NDArray[np.bool_], first: Times, second: Times) -> Times:
    """The times of one choice where a condition holds, and of the other elsewhere."""
    pairs = ((getattr(first, name), getattr(second, name)) for name in ("compute_ms", "memory_ms", "launch_ms"))
    return Times(*(np.where(where, *pair) for pair in pairs))


def _up(sizes: _Array, multiple: int) -> _Array:
    """The next multiples."""
    up: _Array = np.ceil(sizes / multiple) * multiple
    return up


def _tile_share(rows: int, filters: int) -> float:
    """Share of the peak rate at which a multiprocessor computes a tile: it loads rows and filters beside computing."""
    return 1 / (1 + _MACS_PER_LOAD * (1 / rows + 1 / filters))
