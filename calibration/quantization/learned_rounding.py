"""Learned rounding: whether each weight is rounded up or down is chosen by what its layer yields.

Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML
2020. Layer after layer; a layer reads what the quantized layers before it yield, and is to give, after its activation,
what its unrounded weights give there. What the layers before lost isn't made up for: on few samples that fits to them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.fx import Node

from prunec.calibration.quantization.quantized_layers import LAYER_BATCH, QuantizedLayer, quantized_layers
from prunec.calibration.reconstruction import ProgramRun, in_batches
from prunec.calibration.unfold import unfolded
from prunec.passes.base import PassResult
from prunec.passes.errors import UsageError
from prunec.passes.feeding import BatchInputs
from prunec.passes.graphs import arguments, is_read_once, operator_name
from prunec.passes.interruption import stoppable
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.quantization.grids import WEIGHT_LIMIT
from prunec.passes.quantization.placement import ACTIVATIONS
from prunec.passes.quantization.quantizers import quantizers

#: Ends that the sigmoid is stretched to before it is cut to 0 and 1, so that both are reached.
_LOW, _HIGH = -0.1, 1.1
#: Exponent of the term that draws each weight to a side, at first and at last; it begins after this share of the steps.
_FIRST_EXPONENT, _LAST_EXPONENT, _WARM_UP = 20.0, 2.0, 0.2
#: Weight of that term, the error being measured in that of rounding to the nearest.
_PULL = 1.0
_LEARNING_RATE = 1e-2


@dataclass(frozen=True)
class LearnedRounding:
    """How rounding is learned.

    Attributes:
        steps: Steps of Adam for each layer.
        places: Places of each sample that a layer's outputs are compared at; all where it has no more.
        batch: Places of a step.
        damping: Weight of the error that inputs of equal power and without correlation would see, in that of the inputs
            seen. What few samples hardly activate is rounded to the nearest by it.
        held_back: Share of the samples, the last ones, that the outcome is judged by.
        seed: Seed of the choice of places.
    """

    steps: int = 1000
    places: int = 64
    batch: int = 512
    damping: float = 0.3
    held_back: float = 0.25
    seed: int = 0

    def learn(self, reference: Program, quantized: Program, inputs: BatchInputs) -> PassResult:
        """Learn the rounding of all weights that are parameters read by one layer.

        The new weights lie on their grids, and the largest of each grid stays the largest, so `quantize` finds the same
        grids again. Zeros stay zeros. What isn't better than rounding to the nearest on the samples held back isn't
        taken. Transposed convolutions are left as they are.

        Args:
            reference: The program in floating point, which has the unrounded weights and their biases.
            quantized: What `quantize` made of it, or of one with other biases, in its inference form.
            inputs: Preprocessed inputs of the network; the activations of all of them are in memory at once.

        Returns:
            The quantized program with other weights; as facts for each layer the error of its outputs on the samples
            held back, by rounding to the nearest and learned, relative to the outputs' power, whether it was taken, and
            the multiply-accumulates of the learning.

        Raises:
            UsageError: The inputs are too few to hold some back, or the grids aren't those of whole numbers.
        """
        if any(quantizer.precision != "int8" for quantizer in quantizers(quantized.graph)):
            raise UsageError(
                "Learned rounding chooses between the two next whole numbers of 8 bits, and these grids have others.",
                hint="Round to the nearest, or correct biases.",
            )
        changed = quantized.clone()
        tensors = changed.tensors()
        learning = _Learning(self, reference.tensors(), tensors)
        layers = {
            layer.call: layer
            for layer in quantized_layers(changed.graph)
            if is_read_once(arguments(layer.quantizer)["self"], tensors)
        }
        with torch.no_grad():
            runs = in_batches(changed, inputs, LAYER_BATCH)
            for node in stoppable(changed.graph.nodes):
                if node in layers:
                    learning.change(layers[node], runs)
                for run in runs:
                    run.step(node)
        return PassResult(changed, any(fact["taken"] for fact in learning.facts), {"layers": learning.facts})


def _activations(call: Node) -> Iterator[Node]:
    """The activations behind a layer that an engine fuses with it, in order."""
    end = call
    while len(end.users) == 1 and operator_name((user := next(iter(end.users))).target) in ACTIVATIONS:
        yield (end := user)


@dataclass(frozen=True, eq=False)
class _Rows:
    """What a layer multiplies at some places, (groups, rows, K), and what it is to give there, (rows, filters)."""

    inputs: Tensor
    targets: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> "_Rows":
        return _Rows(self.inputs[:, chosen], self.targets[chosen])

    def __len__(self) -> int:
        return len(self.targets)


class _Learning:
    """The learning of one layer after the other."""

    def __init__(self, options: LearnedRounding, exact: Mapping[str, Tensor], tensors: dict[str, Tensor]) -> None:
        self.options, self.exact, self.tensors = options, exact, tensors
        self.generator = Generator().manual_seed(options.seed)
        self.facts: list[dict[str, Any]] = []

    def change(self, layer: QuantizedLayer, runs: list[ProgramRun]) -> None:
        bias = arguments(layer.call).get("bias")
        if WEIGHTED[operator_name(layer.call.target)].is_transposed or not (bias is None or bias.op == "get_attr"):
            return
        read = arguments(layer.call)["input"]
        choice = _Choice(layer, self.tensors)
        inputs = self._inputs(layer.call, [run.env[read] for run in runs])
        rows = _Rows(inputs, choice.outputs(self.exact[layer.weight].detach(), inputs, self.exact))
        judged = max(round(len(rows) * self.options.held_back), 1)
        if judged >= len(rows):
            raise UsageError(
                f"Learned rounding needs samples to learn from and others to judge by; {layer.name} sees {len(rows)}.",
                hint="Give more samples.",
            )
        learned = self._learned(choice, rows[: len(rows) - judged])
        nearest, other = (choice.error(part, rows[len(rows) - judged :]) for part in (choice.nearest, learned))
        if taken := other < nearest:
            self.tensors[layer.weight].copy_(weight := choice.weight(learned))
            for run in runs:
                run.env[layer.quantizer] = weight
        fact = {"layer": layer.name, "nearest": nearest, "learned": other, "taken": taken}
        self.facts.append(fact | self._cost(layer.weight, len(rows), judged))

    def _cost(self, weight: str, rows: int, judged: int) -> dict[str, int]:
        """Multiply-accumulates: all rows for targets, those of the steps, those held back twice."""
        each, stepped = self.tensors[weight].numel(), self.options.steps * min(self.options.batch, rows - judged)
        return {"forward_macs": (rows + stepped + 2 * judged) * each, "backward_macs": stepped * each}

    def _inputs(self, call: Node, read: list[Tensor]) -> Tensor:
        """What a layer multiplies at some places of every sample, (groups, rows, K)."""
        inputs = torch.cat([self._of_batch(call, each) for each in read])
        groups = int(arguments(call).get("groups", 1))
        channels = arguments(call)["weight"].meta["shapes"][1]
        parted = inputs.reshape(len(inputs), -1, groups, channels).permute(2, 0, 1, 3)
        return parted.reshape(groups, len(inputs), -1).contiguous()

    def _of_batch(self, call: Node, read: Tensor) -> Tensor:
        sizes = list(call.meta["sample_shapes"])
        axis = len(sizes) - WEIGHTED[operator_name(call.target)].spatial_dims - 1
        del sizes[axis]
        samples, places = (len(read), math.prod(sizes[1:])) if axis else (1, math.prod(sizes))
        order = torch.rand(samples, places, generator=self.generator).argsort(1)[:, : self.options.places]
        chosen = (order.sort(1).values + places * torch.arange(samples).unsqueeze(1)).flatten()
        rows, at = [], 0
        for part in unfolded(call, read):
            rows.append(part[chosen[(chosen >= at) & (chosen < at + len(part))] - at])
            at += len(part)
        return torch.cat(rows)

    def _learned(self, choice: "_Choice", rows: _Rows) -> Tensor:
        """Which weights are rounded up, bool of the weight's shape."""
        options = self.options
        rest = choice.rest.clamp(0.01, 0.99)
        logits = -torch.log((_HIGH - _LOW) / (rest - _LOW) - 1)
        scale = float(choice.error_of(choice.nearest, rows)) or 1.0
        damping = options.damping * float(rows.inputs.square().mean())
        with torch.enable_grad():
            logits.requires_grad_()
            optimizer = torch.optim.Adam([logits], _LEARNING_RATE)
            for step in stoppable(range(options.steps)):
                chosen = torch.randint(len(rows), (min(options.batch, len(rows)),), generator=self.generator)
                up = (torch.sigmoid(logits) * (_HIGH - _LOW) + _LOW).clamp(0, 1)
                loss = (choice.error_of(up, rows[chosen]) + damping * choice.change(up)) / scale
                if (pull := _exponent(step / options.steps)) is not None:
                    loss = loss + _PULL * (1 - (2 * up - 1).abs() ** pull)[choice.free].mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return torch.where(choice.free, (logits.detach() >= 0).to(rest.dtype), choice.nearest)


def _exponent(progress: float) -> float | None:
    """The exponent of the term that draws weights to a side, None while there is none."""
    if progress < _WARM_UP:
        return None
    share = (progress - _WARM_UP) / (1 - _WARM_UP)
    return _LAST_EXPONENT + (_FIRST_EXPONENT - _LAST_EXPONENT) * (1 + math.cos(math.pi * share)) / 2


class _Choice:
    """The weights of a layer between two numbers of its grid each, and what the layer gives by them."""

    def __init__(self, layer: QuantizedLayer, tensors: dict[str, Tensor]) -> None:
        quantizer, weight = arguments(layer.quantizer), tensors[layer.weight].detach()
        self.scale: Tensor | float = quantizer["scale"]
        if isinstance(quantizer["scale"], Node):
            axis = quantizer["axis"]
            shape = [-1 if dim == axis else 1 for dim in range(weight.ndim)]
            self.scale = tensors[str(quantizer["scale"].target)].view(shape)
        steps = weight / self.scale
        self.low = steps.floor()
        self.rest = steps - self.low
        self.nearest = (steps.round() - self.low).to(weight.dtype)
        #: Zeros stay zeros, and the largest stay so: the grid is found by them again.
        self.free = (weight != 0) & (steps.round().abs() < WEIGHT_LIMIT)
        self.call, self.tensors = layer.call, tensors
        self.groups = int(arguments(layer.call).get("groups", 1))
        self.activations = list(_activations(layer.call))

    def weight(self, up: Tensor) -> Tensor:
        """The weight on its grid, rounded up as far as is said; where a weight isn't free, as to the nearest."""
        return (self.low + torch.where(self.free, up, self.nearest)) * self.scale

    def change(self, up: Tensor) -> Tensor:
        """The squared change of the weights, summed over what a filter reads and averaged over filters."""
        return ((self.rest - up) * self.scale).square().sum() / len(self.rest)

    def error(self, up: Tensor, rows: _Rows) -> float:
        """The mean squared error of the outputs, relative to their power."""
        power = float(rows.targets.square().mean()) or 1.0
        return float(self.error_of(up, rows)) / power

    def error_of(self, up: Tensor, rows: _Rows) -> Tensor:
        """The mean squared error of the outputs."""
        return (self.outputs(self.weight(up), rows.inputs, self.tensors) - rows.targets).square().mean()

    def outputs(self, weight: Tensor, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """What the layer gives after its activations by a weight, and by the bias among some tensors."""
        filters = len(weight)
        parted = weight.reshape(self.groups, filters // self.groups, weight.shape[1], -1)
        matrix = parted.permute(0, 3, 2, 1).reshape(self.groups, -1, filters // self.groups)
        outputs = torch.bmm(inputs, matrix).permute(1, 0, 2).reshape(-1, filters)
        bias = arguments(self.call).get("bias")
        if bias is not None and str(bias.target) in tensors:  # a layer without one may have got a correction
            outputs = outputs + tensors[str(bias.target)].detach()
        shaped = outputs.reshape(*outputs.shape, *[1] * WEIGHTED[operator_name(self.call.target)].spatial_dims)
        for node in self.activations:
            shaped = self._called(node, shaped)
        return shaped.reshape(outputs.shape)

    def _called(self, node: Node, value: Tensor) -> Tensor:
        def given(read: Node) -> Tensor:
            return self.tensors[str(read.target)] if read.op == "get_attr" else value

        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), given)
        result: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
        return result
