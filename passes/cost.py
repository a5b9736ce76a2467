"""Multiply-accumulate operations (MACs) of a program, layer by layer.

By convention every multiplication of an activation with a weight is one MAC: of convolutions, linear layers, matrix
products with a tensor that depends on no input, recurrent layers. Biases, norms, activations and pooling count nothing.
Products of two activations (attention) are counted apart.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import Graph, Node

from prunec.passes.graphs import arguments, calls, module_path, operator_name, unquantized
from prunec.passes.operators import RECURRENT, WEIGHTED
from prunec.passes.products import WeightProduct, products

CONVENTION = (
    "multiply-accumulates of convolutions and linear layers for one sample; "
    "biases, norms, activations and pooling not counted"
)


@dataclass(frozen=True)
class Layer:
    """One use of a weight by a convolution, a linear operator, a matrix product or a recurrent layer.

    Attributes:
        name: Path of the module that owns the weight, or the weight's own name where that is the root.
        operator: ATen operator ("conv2d", "linear", ...).
        weight: Name of the weight parameter.
        shape: Shape of the weight, as the network holds it.
        macs: Multiply-accumulates for one sample.
        groups: Number of groups of the convolution; 1 for others.
        inputs: Elements read for one sample, without the weight.
        outputs: Elements written for one sample.
    """

    name: str
    operator: str
    weight: str
    shape: tuple[int, ...]
    macs: int
    groups: int
    inputs: int
    outputs: int


def layer_name(parameter: str) -> str:
    """Path of the module that owns a parameter; the parameter's own name at the root."""
    return parameter.rpartition(".")[0] or parameter


def weighted_calls(graph: Graph) -> list[tuple[Node, str]]:
    """Every convolution and linear call with the name of its weight; a computed weight has its node's name."""
    weights: list[tuple[Node, Node]] = [
        (node, unquantized(arguments(node)["weight"])) for node in calls(graph, *WEIGHTED)
    ]
    return [(node, str(weight.target) if weight.op == "get_attr" else weight.name) for node, weight in weights]


def calls_by_weight(graph: Graph) -> dict[str, list[Node]]:
    """The calls of `weighted_calls` by the name of their weight."""
    by_weight: dict[str, list[Node]] = {}
    for call, weight in weighted_calls(graph):
        by_weight.setdefault(weight, []).append(call)
    return by_weight


def is_grouped(call: Node) -> bool:
    """Whether a call is a convolution of several groups of channels."""
    return int(arguments(call).get("groups", 1)) > 1


def layers(graph: Graph, samples: int = 1) -> list[Layer]:
    """The weighted layers in the order of execution; a shared module appears once per call.

    A recurrent layer appears once for each of its matrices. ``samples`` is the number of samples that the graph's
    shapes stand for.
    """
    return [layer for _, layer in layer_calls(graph, samples)]


def layer_calls(graph: Graph, samples: int = 1) -> Iterator[tuple[Node, Layer]]:
    """The `layers`, each with its call."""
    by_weight = {product.node: product for product in products(graph) if isinstance(product, WeightProduct)}
    for node in calls(graph):
        if operator_name(node.target) in WEIGHTED:
            weight = unquantized(arguments(node)["weight"])
            yield node, _layer(node, weight, weight, arguments(node)["input"], call_macs(node), samples)
        elif product := by_weight.get(node):
            activation = next(tensor for tensor, _ in product.operands if tensor is not product.weight)
            yield node, _layer(node, product.tensor, product.weight, activation, product.macs(), samples)
        elif operator_name(node.target) in RECURRENT:
            for sequence, matrix, steps in recurrent_products(node):
                macs = steps * math.prod(matrix.meta["sample_shapes"])
                yield node, _layer(node, matrix, matrix, sequence, macs, samples)


def _layer(node: Node, tensor: Node, weight: Node, activation: Node, macs: int, samples: int) -> Layer:
    """A use of a weight, which a node ``tensor`` holds, in the form in which the operator reads it."""
    is_own = tensor.op == "get_attr"
    name = str(tensor.target) if is_own else weight.name
    written = node.meta["sample_shapes"]
    outputs = written[0] if isinstance(written, list) else written
    return Layer(
        name=layer_name(name) if is_own else module_path(node),
        operator=operator_name(node.target),
        weight=name,
        shape=tensor.meta["sample_shapes"],
        macs=macs // samples,
        groups=int(arguments(node).get("groups", 1)),
        inputs=math.prod(activation.meta["sample_shapes"]) // samples,
        outputs=math.prod(outputs) // samples,
    )


def recurrent_products(node: Node) -> Iterator[tuple[Node, Node, int]]:
    """The sequence that a recurrent call reads, each of its matrices, and how often it multiplies with it."""
    bound = arguments(node)
    sequence: Node = bound["data"] if "data" in bound else bound["input"]
    shape = sequence.meta["sample_shapes"]
    matrices = bound["params"] if "params" in bound else [bound["w_ih"], bound["w_hh"]]
    for matrix in matrices:
        if len(matrix.meta["sample_shapes"]) == 2:
            yield sequence, matrix, math.prod(shape[:-1])


def call_macs(node: Node) -> int:
    """Multiply-accumulates of one convolution or linear call for one sample."""
    bound = arguments(node)
    weight = bound["weight"].meta["sample_shapes"]
    if WEIGHTED[operator_name(node.target)].is_transposed:
        positions = math.prod(bound["input"].meta["sample_shapes"]) // weight[0]
        return int(positions * math.prod(weight))
    return int(math.prod(node.meta["sample_shapes"]) * math.prod(weight[1:]))


def product_macs(graph: Graph) -> int:
    """Multiply-accumulates of products of two activations for one sample.

    Products of more than two tensors are left out, since their order isn't known.
    """
    activations = sum(product.macs() for product in products(graph) if not isinstance(product, WeightProduct))
    return activations + sum(map(_attention_macs, calls(graph, "scaled_dot_product_attention")))


def _attention_macs(node: Node) -> int:
    query, key, value = (arguments(node)[name].meta["sample_shapes"] for name in ("query", "key", "value"))
    return int(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))
