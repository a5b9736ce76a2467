"""Recurrent layers, which stay whole since their gates share one weight."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Ties, Value, opaque
from prunec.passes.operators import RECURRENT
from prunec.passes.rules.registry import rule


@rule(*RECURRENT)
def recurrent(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Everything a recurrent layer reads and yields stays whole."""
    for source in node.all_input_nodes:
        ties.freeze_value(ties.values[source], f"recurrent layer ({operator_name(node.target)})")
    return opaque(node.meta["shapes"])
