"""Operators that read by index: indexed axes and the indices themselves stay whole, other axes pass."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Label, Ties, Value, each_output, is_zero, not_tracked, with_zero
from prunec.passes.rules.registry import rule

_BY_INDEX = "selection by index"


@rule("select", "unbind")
def select(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The axis vanishes; a labelled one stays whole."""
    value = ties.of(a["self"])
    axis = a["dim"] % len(value)
    ties.freeze(value[axis], _BY_INDEX)
    return each_output(node, (*value[:axis], *value[axis + 1 :]))


@rule("embedding")
def embedding(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The rows of the table stay, and its columns are channels."""
    rows, columns = ties.of(a["weight"])
    ties.freeze(rows, "rows of an embedding")
    ties.freeze_value(ties.values[a["indices"]], "indices")
    return (*(None,) * len(a["indices"].meta["shapes"]), columns)


@rule("index_select")
def index_select(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The indexed axis stays whole; the others pass."""
    value = list(ties.of(a["self"]))
    ties.freeze(value[a["dim"]], _BY_INDEX)
    ties.freeze_value(ties.values[a["index"]], "indices")
    value[a["dim"]] = None
    return tuple(value)


@rule("index")
def index(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Indexed axes stay whole; the result of the indices stands where the first was, or in front if they are apart."""
    value, indices = ties.of(a["self"]), a["indices"]
    indexed = [axis for axis, tensor in enumerate(indices) if tensor is not None]
    for axis in indexed:
        ties.freeze(value[axis], _BY_INDEX)
        ties.freeze_value(ties.values[indices[axis]], "indices")
    rank = len(node.meta["shapes"])
    new: list[Label] = [None] * (rank - (len(value) - len(indexed)))
    if any(str(indices[axis].meta["dtype"]) in ("torch.bool", "torch.uint8") for axis in indexed):
        ties.freeze_value(value, "selection by a mask")
        return (None,) * rank
    rest = [label for axis, label in enumerate(value) if axis not in indexed]
    together = indexed == list(range(indexed[0], indexed[0] + len(indexed)))
    place = indexed[0] if together else 0
    return (*rest[:place], *new, *rest[place:])


@rule("index_add", "scatter_add")
def add_by_index(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """What is added meets the target on all axes but the indexed one, which stays whole; indices go along with it."""
    operands = [a["self"], a["source"] if "source" in a else a["src"]]
    if "src" in a:
        operands.append(a["index"])
    else:
        ties.freeze_value(ties.values[a["index"]], "indices")
    axis = a["dim"] % len(node.meta["shapes"])
    result: list[Label] = []
    for position, labels in enumerate(zip(*map(ties.of, operands), strict=True)):
        sizes = {operand.meta["shapes"][position] for operand in operands}
        if position == axis or len(sizes) > 1:
            ties.freeze_value(labels, _BY_INDEX)
            result.append(None)
        else:
            result.append(with_zero(ties.meet_all(labels, not_tracked(node)), all(map(is_zero, labels[:2]))))
    return tuple(result)


@rule("unfold")
def unfold(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The axis that windows slide along stays whole; a new last axis holds the positions in them."""
    value = list(ties.of(a["self"]))
    axis = a["dimension"] % len(value)
    ties.freeze(value[axis], f"windows over these positions ({operator_name(node.target)})")
    value[axis] = None
    return (*value, None)
