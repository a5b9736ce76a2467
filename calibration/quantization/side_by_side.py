"""A quantized program and the one in floating point that it stands for, run side by side, layer after layer.

A layer of the quantized program reads what the layers before it yield by then: what is changed in one of them is seen
by all behind it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Graph, Node

from prunec.calibration.reconstruction import ProgramRun, in_batches
from prunec.passes.cost import layer_name
from prunec.passes.feeding import BatchInputs
from prunec.passes.graphs import arguments, calls
from prunec.passes.interruption import stoppable
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import quantizers

#: Samples that run at once: kernels are fastest on what fits into caches.
BATCH = 16


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A layer whose weight is a parameter on a grid.

    Attributes:
        call: Its node in the quantized program.
        quantizer: The node that puts its weight on the grid.
        weight: Name of the weight.
    """

    call: Node
    quantizer: Node
    weight: str

    @property
    def name(self) -> str:
        """Path of the layer."""
        return layer_name(self.weight)


def quantized_layers(graph: Graph) -> Iterator[QuantizedLayer]:
    """The convolutions and linear layers of a quantized graph whose weights are parameters on grids of their own."""
    of_weights = {each.node: each.source for each in quantizers(graph) if each.source.op == "get_attr"}
    for call in calls(graph, *WEIGHTED):
        quantizer = arguments(call)["weight"]
        if quantizer in of_weights and len(quantizer.users) == 1:
            yield QuantizedLayer(call, quantizer, str(of_weights[quantizer].target))


#: (layer, runs of the quantized program up to it, what its end yields in floating point in each of them)
Change = Callable[[QuantizedLayer, list[ProgramRun], list[Tensor]], None]


@torch.no_grad()
def sweep(
    reference: Program, quantized: Program, inputs: BatchInputs, end_of: Callable[[Node], Node], change: Change
) -> None:
    """Run both programs, and let a function change each layer's weight and bias before the quantized program runs it.

    Args:
        reference: The program in floating point, in its inference form; its nodes have the same names.
        quantized: The quantized program, whose tensors are changed in place.
        inputs: Inputs of the network; memory for the activations of all of them at once is needed.
        end_of: The node, a layer's call or one behind it, whose value in floating point is looked at.
        change: What is done with each of the `quantized_layers`.
    """
    exact, rounded = (in_batches(program, inputs, BATCH) for program in (reference, quantized))
    layers = {layer.call: layer for layer in quantized_layers(quantized.graph)}
    of_weights = {layer.quantizer for layer in layers.values()}
    wanted = {call: end_of(call).name for call in layers}
    left, kept, names = iter(reference.graph.nodes), dict[str, list[Tensor]](), set(wanted.values())
    for node in stoppable(quantized.graph.nodes):
        if node in layers:
            while wanted[node] not in kept:
                ahead = next(left)
                for run in exact:
                    run.step(ahead)
                if ahead.name in names:
                    kept[ahead.name] = [run.env[ahead] for run in exact]
            for run in rounded:
                run.env[layers[node].quantizer] = run.run_node(layers[node].quantizer)
            change(layers[node], rounded, kept.pop(wanted[node]))
            for run in rounded:  # the weight may have changed
                run.step(layers[node].quantizer)
        if node not in of_weights:
            for run in rounded:
                run.step(node)
