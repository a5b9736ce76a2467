"""Multiply-accumulate operations (MACs) of a program, layer by layer.

By convention every multiplication of an activation with a weight of a convolution or linear layer is one MAC; biases,
norms, activations and pooling count nothing. Products of two activations (attention) are counted apart.
"""

import math
from dataclasses import dataclass

from torch.fx import Graph, Node

from prunec.passes.graphs import arguments, calls, module_path, operator_name
from prunec.passes.operators import WEIGHTED

CONVENTION = (
    "multiply-accumulates of convolutions and linear layers for one sample; "
    "biases, norms, activations and pooling not counted"
)
_PRODUCTS = ("matmul", "bmm", "scaled_dot_product_attention", "einsum")


@dataclass(frozen=True)
class Layer:
    """One use of a weight by a convolution or a linear operator.

    Attributes:
        name: Path of the module that owns the weight, or the weight's own name where that is the root.
        operator: ATen operator ("conv2d", "linear", ...).
        weight: Name of the weight parameter.
        shape: Shape of the weight.
        macs: Multiply-accumulates for one sample.
        groups: Number of groups of the convolution; 1 for linear.
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
    weights: list[tuple[Node, Node]] = [(node, arguments(node)["weight"]) for node in calls(graph, *WEIGHTED)]
    return [(node, str(weight.target) if weight.op == "get_attr" else weight.name) for node, weight in weights]


def layers(graph: Graph, samples: int = 1) -> list[Layer]:
    """The weighted layers in the order of execution; a shared module appears once per call.

    ``samples`` is the number of samples that the graph's shapes stand for.
    """
    return [_layer(node, weight, samples) for node, weight in weighted_calls(graph)]


def _layer(node: Node, weight: str, samples: int) -> Layer:
    bound = arguments(node)
    return Layer(
        name=layer_name(weight) if bound["weight"].op == "get_attr" else module_path(node),
        operator=operator_name(node.target),
        weight=weight,
        shape=bound["weight"].meta["sample_shapes"],
        macs=call_macs(node) // samples,
        groups=int(bound.get("groups", 1)),
        inputs=math.prod(bound["input"].meta["sample_shapes"]) // samples,
        outputs=math.prod(node.meta["sample_shapes"]) // samples,
    )


def call_macs(node: Node) -> int:
    """Multiply-accumulates of one convolution or linear call for one sample."""
    bound = arguments(node)
    weight = bound["weight"].meta["sample_shapes"]
    if WEIGHTED[operator_name(node.target)].is_transposed:
        positions = math.prod(bound["input"].meta["sample_shapes"]) // weight[0]
        return int(positions * math.prod(weight))
    return int(math.prod(node.meta["sample_shapes"]) * math.prod(weight[1:]))


def product_macs(graph: Graph) -> int:
    """Multiply-accumulates of products of two activations for one sample."""
    return sum(_macs_of_product(node) for node in calls(graph, *_PRODUCTS))


def _macs_of_product(node: Node) -> int:
    bound = arguments(node)
    if operator_name(node.target) == "einsum":
        return _macs_of_einsum(bound["equation"], [tensor.meta["sample_shapes"] for tensor in bound["tensors"]])
    left, right = (operand.meta["sample_shapes"] for operand in list(bound.values())[:2])
    if operator_name(node.target) == "scaled_dot_product_attention":
        value = bound["value"].meta["sample_shapes"]
        return int(math.prod(left[:-1]) * right[-2] * (left[-1] + value[-1]))
    return int(math.prod(node.meta["sample_shapes"]) * left[-1])


def _macs_of_einsum(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """One MAC for every combination of indices; 0 for more than two tensors, since their order isn't known."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str | int, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        before, _, after = term.partition("...")
        names = [*before, *range(len(before) + len(after) - len(shape), 0), *after]
        for name, size in zip(names, shape, strict=True):
            sizes[name] = max(size, sizes.get(name, 1))
    return math.prod(sizes.values()) if len(terms) == 2 else 0
