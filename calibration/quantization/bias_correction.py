"""Bias correction: biases make up for the mean error that quantization leaves in what layers yield.

Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019, appendix D: measured on data, layer after layer, each with the corrected ones before it.
"""

from typing import Any

import torch
from torch import Tensor

from prunec.calibration.quantization.side_by_side import QuantizedLayer, quantized_layers, sweep
from prunec.calibration.reconstruction import Steps
from prunec.passes.base import PassResult
from prunec.passes.feeding import BatchInputs
from prunec.passes.graphs import arguments, copied_graph, is_read_once, operator_name
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.quantization.biases import set_bias


def correct_biases(reference: Program, quantized: Program, inputs: BatchInputs) -> PassResult:
    """Shift each quantized layer's bias by the mean difference of its outputs from those in floating point, by channel.

    A layer without a bias gets one; a bias that is computed, or that other calls read too, stays.

    Args:
        reference: The program in floating point, in its inference form.
        quantized: What `quantize` made of it, or of one with other weights.
        inputs: Preprocessed inputs of the network; the activations of all of them are in memory at once.

    Returns:
        The quantized program with other biases; as facts for each layer the root mean square of the shifts, relative to
        that of its outputs.
    """
    changed = _with_biases(quantized)
    tensors, facts = changed.tensors(), list[dict[str, Any]]()

    def change(layer: QuantizedLayer, runs: list[Steps], targets: list[Tensor]) -> None:
        bias = arguments(layer.call)["bias"]
        if not is_read_once(bias, tensors):
            return
        spatial_dims = WEIGHTED[operator_name(layer.call.target)].spatial_dims
        error = power = torch.zeros(())
        count = 0
        for run, target in zip(runs, targets, strict=True):
            wanted, given = (_by_channel(each, spatial_dims) for each in (target, run.run_node(layer.call)))
            error, power, count = (
                error + (wanted - given).sum(1),
                power + wanted.square().sum(1),
                count + wanted.shape[1],
            )
        tensors[str(bias.target)].add_((error / count).to(targets[0].dtype))
        relative = float(((error / count).square().sum() / (power / count).sum()).sqrt()) if power.any() else 0.0
        facts.append({"layer": layer.name, "shift": relative})

    sweep(reference, changed, inputs, lambda call: call, change)
    return PassResult(changed, bool(facts), {"layers": facts})


def _with_biases(quantized: Program) -> Program:
    """A copy in which every quantized layer has a bias."""
    graph, tensors = copied_graph(quantized.graph), quantized.clone().tensors()
    for layer in list(quantized_layers(graph)):
        if arguments(layer.call).get("bias") is None:
            sizes, spatial_dims = (
                layer.call.meta["sample_shapes"],
                WEIGHTED[operator_name(layer.call.target)].spatial_dims,
            )
            channels = sizes[len(sizes) - spatial_dims - 1]
            set_bias(layer.call, torch.zeros(channels, dtype=tensors[layer.weight].dtype), tensors)
    return quantized.with_tensors(tensors, graph)


def _by_channel(outputs: Tensor, spatial_dims: int) -> Tensor:
    """A layer's outputs as (channels, values), in float64."""
    return outputs.movedim(outputs.ndim - spatial_dims - 1, 0).flatten(1).double()
