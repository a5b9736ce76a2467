"""Which tensors to zero so that a branch yields zeros, for a module whose own code can't be changed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from prunec.passes.graphs import arguments, operator_name
from prunec.passes.operators import DROPOUTS, WEIGHTED

#: Operators that yield zeros where their first argument is zero.
_KEEPING_ZEROS = frozenset({
    *DROPOUTS, "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh",
    "hardswish", "softsign", "neg", "abs", "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze",
    "unsqueeze", "expand", "repeat", "permute", "transpose", "t", "numpy_T", "mT", "swapaxes", "movedim", "slice",
    "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "getitem", "contiguous", "clone", "alias", "to",
    "_to_copy", "detach", "roll", "flip", "index_select", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d",
    "mean", "sum", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d",
    "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d", "pixel_shuffle", "pixel_unshuffle", "div",
})  # fmt: skip
#: Arguments that make a sum of products zero where all of them are zero.
_TERMS = {
    **dict.fromkeys(WEIGHTED, ("weight", "bias")),
    **dict.fromkeys(("add", "sub"), ("self", "other")),
    **dict.fromkeys(("cat", "stack"), ("tensors",)),
    "addmm": ("self", "mat2"),
}
#: Operators that yield zeros where any of their tensors is zero.
_FACTORS = ("mul", "matmul", "mm", "bmm")
#: Norms, of which those with running statistics don't keep zeros.
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
#: Tensors by name that make a value zero; None where none do.
_Zeroed = frozenset[str] | None


def zeroing(value: Node, last: Node, own: frozenset[str]) -> tuple[str, ...]:
    """Names of tensors that make a branch's value exactly zero when they are zero; none where that isn't known.

    Weight and bias of the branch's last layer are among them, and of norms behind it.

    Args:
        value: The branch's value.
        last: The call of its last layer.
        own: Names of the tensors that only the branch reads.
    """
    silencing = _silencing(value, own)
    if silencing is None:
        return ()
    bound = arguments(last)
    beside = {str(x.target) for name in ("weight", "bias") if isinstance(x := bound.get(name), Node)}
    return tuple(sorted(silencing | (beside & own)))


def _silencing(node: Node, own: frozenset[str]) -> _Zeroed:
    if node.op == "get_attr":
        return frozenset({str(node.target)}) & own or None
    if operator_name(node.target) in _FACTORS:
        return next(filter(None, (_silencing(each, own) for each in _tensors(node.all_input_nodes))), None)
    causes = [_silencing(each, own) for each in _deciding(node)]
    zeroed = frozenset(name for names in causes for name in names or ())
    return zeroed if causes and None not in causes else None


def _deciding(node: Node) -> list[Node]:
    """What makes a value zero where all of it is zero; nothing where that isn't known."""
    if node.op != "call_function":
        return []
    operator = operator_name(node.target)
    if operator == "getitem":
        return node.all_input_nodes
    bound = arguments(node) if isinstance(node.target, torch._ops.OpOverload) else {}
    names = _TERMS.get(operator, ())
    if operator in _KEEPING_ZEROS:
        names = tuple(bound)[:1]
    elif operator in _NORMS and isinstance(bound.get("weight"), Node):
        names = ("weight", "bias")
    elif operator in _NORMS and not isinstance(bound.get("running_mean"), Node):
        names = ("input", "bias")
    terms = [term for name in names if (value := bound[name]) is not None for term in _listed(value)]
    return terms if all(isinstance(term, Node) for term in terms) else []  # a number that is added stays


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _tensors(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node.meta.get("shapes") is not None]
