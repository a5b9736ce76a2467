"""Reductions, softmax and cumulative sums."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Ties, Value, with_zero
from prunec.passes.rules.pointwise import broadcast
from prunec.passes.rules.registry import rule

#: Reductions to which zeros add nothing.
_SUMS = ("sum", "linalg_vector_norm", "norm")


@rule("mean", "sum", "amax", "amin", "var", "std", "prod", "linalg_vector_norm", "norm", "logsumexp")
def reduction(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Reduced axes vanish. Sums are exact where removed channels are zero; other reductions are inexact."""
    operator = operator_name(node.target)
    value = ties.of(a.get("self", a.get("x")))
    dims = a.get("dim")
    if dims is None or dims == []:
        dims = range(len(value))
    reduced = {d % len(value) for d in ([dims] if isinstance(dims, int) else dims)}
    is_sum = operator in _SUMS and a.get("ord", a.get("p")) in (None, 2, 2.0, 1)
    for axis in reduced:
        (ties.sum_over if is_sum else ties.mix)(node, value[axis], operator)
    passed = [with_zero(label, False) if operator == "logsumexp" else label for label in value]
    return tuple(
        None if d in reduced else label for d, label in enumerate(passed) if d not in reduced or a.get("keepdim")
    )


@rule("var_mean", "std_mean")
def moments(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The operator makes two reductions at once."""
    labels = reduction(ties, node, a)
    assert isinstance(labels, tuple)
    return [labels, labels]


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def softmax(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Channels along the axis are mixed; along the other axes zeros become equal shares."""
    value = ties.of(a["self"])
    ties.mix(node, value[a["dim"]], operator_name(node.target))
    return tuple(with_zero(label, False) for label in value)


@rule("cumsum")
def cumsum(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """A running sum is exact where removed channels are zero, but it is itself not zero there."""
    value = list(ties.of(a["self"]))
    ties.sum_over(node, value[a["dim"]], "cumsum")
    value[a["dim"]] = with_zero(value[a["dim"]], False)
    return tuple(value)


@rule("max", "min")
def largest(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The largest of all values, of two tensors or along an axis, which stays where its position is asked for too."""
    if isinstance(a.get("other"), Node):
        return broadcast(ties, node, a)
    value = ties.of(a["self"])
    if a.get("dim") is None:
        for label in value:
            ties.mix(node, label, operator_name(node.target))
        return ()
    asks_positions = any(user.args[1:] != (0,) for user in node.users)
    labels = (argmax if asks_positions else reduction)(ties, node, a)
    assert isinstance(labels, tuple)
    return [labels, labels]


@rule("argmax", "argmin")
def argmax(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Positions are counted, so the axis stays whole."""
    value = ties.of(a["self"])
    if a["dim"] is None:
        ties.freeze_value(value, operator_name(node.target))
        return (None,) * len(node.meta["shapes"])
    axis = a["dim"] % len(value)
    ties.freeze(value[axis], operator_name(node.target))
    rest = [with_zero(label, False) for label in value]
    rest[axis : axis + 1] = [None] if a["keepdim"] else []
    return tuple(rest)
