"""What quantizing each layer alone costs, and which layers to leave in higher precision for a limit of it all."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from prunec.calibration.quantization.output_error import output_error
from prunec.passes.cost import layer_calls
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.counting import work_of
from prunec.passes.errors import UsageError
from prunec.passes.feeding import BatchInputs, feed
from prunec.passes.interruption import stop_if_asked, stoppable
from prunec.passes.program import Program
from prunec.passes.quantization.grids import Form, Range
from prunec.passes.quantization.placement import Placement
from prunec.passes.quantization.quantizers import quantize

#: (rounds that are done, rounds of equal work in all, what the last one found).
TrialProgress = Callable[[int, int, str], None]


def silent(done: int, total: int, words: str) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What a layer's quantization costs and brings.

    Attributes:
        layer: Path of the layer.
        error: Error of the network's outputs where this layer alone is quantized.
        cost: Milliseconds of the layer in floating point, or its multiply-accumulates where no cost model is known.
    """

    layer: str
    error: float
    cost: float

    @property
    def error_per_cost(self) -> float:
        """The error that quantization pays for a unit of what it makes faster."""
        if not self.cost:
            return math.inf if self.error else 0.0
        return self.error / self.cost


def alone(program: Program, placement: Placement, layer: str) -> Placement:
    """The part of a placement that one layer needs in all of its calls: its weight, and what it reads."""
    own = {call.name for call, each in layer_calls(program.graph) if each.name == layer}
    sites = [replace(site, readers=tuple(name for name in site.readers if name in own)) for site in placement.sites]
    return Placement(
        tuple(site for site in sites if site.readers),
        tuple(weight for weight in placement.weights if weight.call in own),
        tuple(each for each in placement.layers if each.layer == layer),
    )


@torch.no_grad()
def sensitivities(
    program: Program,
    placement: Placement,
    ranges: Mapping[str, Range],
    form: Form,
    batches: Sequence[BatchInputs],
    *,
    costs: Mapping[str, float] | None = None,
    progress: TrialProgress = silent,
) -> tuple[LayerSensitivity, ...]:
    """Quantize every layer alone and compare the outputs with those in floating point.

    The network runs once on all inputs for every layer.

    Args:
        program: The program in its inference form, that the placement is of.
        placement: All that is to be quantized; layers that stay in higher precision have no row.
        ranges: The range of every family of the placement.
        form: Form of the grids of activations.
        batches: Calibration inputs.
        costs: What each layer costs in floating point (`layer_costs`); None to take multiply-accumulates.
        progress: Told after every layer.

    Raises:
        UsageError: There are no inputs.
        InputError: The inputs are not those of the network.
        NumericMismatchError: The network gives NaN.
    """
    if not batches:
        raise UsageError("Sensitivity needs calibration inputs, and there are none.")
    cost_of = layer_costs(program) if costs is None else costs
    expected = [feed(program, inputs) for inputs in stoppable(batches)]
    names = tuple(dict.fromkeys(row.layer for row in placement.layers if row.is_quantized))
    rows: list[LayerSensitivity] = []
    for done, name in enumerate(names, start=1):
        quantized = quantize(program, alone(program, placement, name), ranges, form)
        error = output_error(quantized, batches, expected)
        rows.append(LayerSensitivity(name, error, cost_of[name]))
        progress(done, len(names), f"{name}: error {error:.2g}")
    return tuple(rows)


def layer_costs(program: Program, costs: CostModel | None = None) -> Mapping[str, float]:
    """Milliseconds of every layer by a cost model, or its multiply-accumulates without one; all calls together."""
    work = work_of(program)
    values = work.macs if costs is None else costs.layer_ms(work)
    names = {layer.weight: layer.name for layer in program.layers()}
    by_layer: dict[str, float] = defaultdict(float)
    for operation, value in zip(work.operations, values, strict=True):
        if operation.weight in names:
            by_layer[names[operation.weight]] += float(value)
    return by_layer


def worst_first(rows: Sequence[LayerSensitivity]) -> tuple[str, ...]:
    """Layers in the order in which to leave them in higher precision: by the error that each pays for being faster."""
    return tuple(each.layer for each in sorted(rows, key=lambda each: -each.error_per_cost))


@dataclass(frozen=True)
class MixedPrecision:
    """The layers that stay in higher precision.

    Attributes:
        kept: Their paths, in the order in which they were chosen.
        lost: What is lost of the metric with them.
        is_met: Whether that is within the limit.
        tried: Every set of layers that was tried, with what it lost.
    """

    kept: tuple[str, ...]
    lost: float
    is_met: bool
    tried: Mapping[tuple[str, ...], float]


def fewest_kept(
    order: Sequence[str], lost: Callable[[tuple[str, ...]], float], limit: float, progress: TrialProgress = silent
) -> MixedPrecision:
    """The fewest layers in an order that meet a limit, less those among them that aren't needed for it.

    Their number is found by bisection, as if what is lost never grew with it; then each but the last is tried without.
    Where even all layers don't meet the limit all of them are given, and the result says so.

    Args:
        order: Layers, those first that are best left in higher precision.
        lost: Points of the metric that are lost where these layers stay in higher precision, all others quantized.
        limit: Points that may be lost.
        progress: Told after every trial; how many there will be is known once the number of layers is.
    """
    total = 2 + math.ceil(math.log2(max(len(order), 1)))
    tried: dict[tuple[str, ...], float] = {}

    def is_met(kept: tuple[str, ...]) -> bool:
        if kept not in tried:
            stop_if_asked()
            tried[kept] = lost(kept)
            progress(len(tried), total, f"{tried[kept]:.3g} lost with {len(kept)} of {len(order)} kept")
        return tried[kept] <= limit

    if is_met(()):
        return MixedPrecision((), tried[()], True, tried)
    least, most = 1, max(len(order), 1)
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if is_met(tuple(order[:middle])) else (middle + 1, most)
    kept = tuple(order[:most])
    if not is_met(kept):
        return MixedPrecision(kept, tried[kept], False, tried)
    total = len(tried) + len(kept) - 1
    for layer in kept[-2::-1]:
        without = tuple(name for name in kept if name != layer)
        kept = without if is_met(without) else kept
    return MixedPrecision(kept, tried[kept], True, tried)
