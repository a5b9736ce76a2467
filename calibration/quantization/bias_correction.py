"""Bias correction: biases make up for the mean error that rounding weights leaves in what layers yield.

Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019, measured on data. Only what comes of weights is corrected: of activations, what lies beyond a range is clipped in
few samples and far, and a constant that makes up for it on average harms all others.
"""

from typing import Any

import torch
from torch import Tensor

from prunec.calibration.quantization.quantized_layers import LAYER_BATCH, QuantizedLayer, quantized_layers
from prunec.calibration.reconstruction import ProgramRun, in_batches
from prunec.passes.base import PassResult
from prunec.passes.feeding import BatchInputs
from prunec.passes.graphs import arguments, copied_graph, is_read_once, operator_name
from prunec.passes.interruption import stoppable
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.quantization.biases import set_bias

#: How often every layer runs on each sample: as it is, with its unrounded weight, and with its new bias.
RUNS_OF_CORRECTION = 3


@torch.no_grad()
def correct_biases(reference: Program, quantized: Program, inputs: BatchInputs) -> PassResult:
    """Shift each quantized layer's bias by the mean difference that its unrounded weights would make, by channel.

    Layer after layer: each reads what the quantized and corrected layers before it yield. A layer without a bias gets
    one; a bias that is computed, or that other calls read too, stays. It is meant for weights rounded to the nearest:
    learned rounding makes up for means by itself, and for those of the layers before as well.

    Args:
        reference: The program in floating point, which has the unrounded weights.
        quantized: What `quantize` made of it, in its inference form.
        inputs: Preprocessed inputs of the network; the activations of all of them are in memory at once.

    Returns:
        The quantized program with other biases; as facts for each layer the root mean square of the shifts, relative to
        that of its outputs.
    """
    changed = _with_biases(quantized)
    tensors, exact, facts = changed.tensors(), reference.tensors(), list[dict[str, Any]]()
    layers = {layer.call: layer for layer in quantized_layers(changed.graph)}
    runs = in_batches(changed, inputs, LAYER_BATCH)
    for node in stoppable(changed.graph.nodes):
        if node in layers and is_read_once(bias := arguments(node)["bias"], tensors):
            shift, relative = _shift(layers[node], exact[layers[node].weight], runs)
            tensors[str(bias.target)].add_(shift)
            facts.append({"layer": layers[node].name, "shift": relative})
        for run in runs:
            run.step(node)
    return PassResult(changed, bool(facts), {"layers": facts})


def _shift(layer: QuantizedLayer, weight: Tensor, runs: list[ProgramRun]) -> tuple[Tensor, float]:
    """The mean difference that a weight makes, (channels,), and its size relative to that of the outputs."""
    spatial_dims = WEIGHTED[operator_name(layer.call.target)].spatial_dims
    error = power = count = torch.zeros((), dtype=torch.float64)
    for run in runs:
        given = _by_channel(run.run_node(layer.call), spatial_dims)
        run.env[layer.quantizer], rounded = weight, run.env[layer.quantizer]
        wanted = _by_channel(run.run_node(layer.call), spatial_dims)
        run.env[layer.quantizer] = rounded
        error, power = error + (wanted - given).sum(1), power + wanted.square().sum(1)
        count = count + wanted.shape[1]
    shift, power = error / count, power / count
    relative = float((shift.square().sum() / power.sum()).sqrt()) if power.any() else 0.0
    return shift.to(weight.dtype), relative


def _with_biases(quantized: Program) -> Program:
    """A copy in which every quantized layer has a bias."""
    graph, tensors = copied_graph(quantized.graph), quantized.clone().tensors()
    for layer in list(quantized_layers(graph)):
        if arguments(layer.call).get("bias") is None:
            sizes = layer.call.meta["sample_shapes"]
            channels = sizes[len(sizes) - WEIGHTED[operator_name(layer.call.target)].spatial_dims - 1]
            set_bias(layer.call, torch.zeros(channels, dtype=tensors[layer.weight].dtype), tensors)
    return quantized.with_tensors(tensors, graph)


def _by_channel(outputs: Tensor, spatial_dims: int) -> Tensor:
    """A layer's outputs as (channels, values), in float64."""
    return outputs.movedim(outputs.ndim - spatial_dims - 1, 0).flatten(1).double()
