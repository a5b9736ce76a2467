"""Biases of layers, which passes set or add."""

from torch import Tensor, nn
from torch.fx import Node

from prunec.passes.cost import layer_name
from prunec.passes.graphs import arguments, set_argument, unquantized
from prunec.passes.quantization.quantizers import free_name
from prunec.passes.tensors import like


def set_bias(layer: Node, value: Tensor, tensors: dict[str, Tensor]) -> None:
    """Give a layer, whose weight is a parameter or one on a grid, a bias (filters,), in place.

    Args:
        layer: The call; where it has a bias, it alone reads it.
        value: The bias.
        tensors: The program's tensors by name, in which the bias is replaced or put under a name beside the weight's.
    """
    weight, bias = unquantized(arguments(layer)["weight"]), arguments(layer).get("bias")
    if bias is not None:
        tensors[str(bias.target)] = like(tensors[str(bias.target)], value)
        return
    name = str(weight.target)
    name = free_name(f"{layer_name(name)}.bias" if "." in name else "bias", tensors)
    tensors[name] = nn.Parameter(value)
    with layer.graph.inserting_before(layer):
        getter = layer.graph.get_attr(name)
    shape = tuple(value.shape)
    getter.meta = {**weight.meta, "shapes": shape, "sample_shapes": shape}
    set_argument(layer, "bias", getter)
