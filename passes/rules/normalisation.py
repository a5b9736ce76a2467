"""Normalisation operators."""

from typing import Any

from torch.fx import Node

from prunec.passes.labels import Ties, Value
from prunec.passes.rules.registry import rule


@rule("batch_norm")
def batch_norm(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Per channel of axis 1. Where inference uses batch statistics, the axes that they run over stay whole."""
    value = ties.of(a["input"])
    if a["training"] and not node.meta.get("switch"):
        over = (*value[:1], *value[2:])
        ties.freeze_value(over, "batch statistics over these positions")
    channels = value[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if a[name] is not None:
            ties.meet(ties.of(a[name])[0], channels, "batch norm over channels that are not tracked")
    return value
