"""The layers of a quantized program whose weights can be changed."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import Graph, Node

from prunec.passes.cost import layer_name
from prunec.passes.graphs import arguments, calls
from prunec.passes.operators import WEIGHTED
from prunec.passes.quantization.quantizers import quantizers

#: Samples that run at once: kernels are fastest on what fits into caches.
LAYER_BATCH = 16


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
