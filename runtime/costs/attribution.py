"""Which operation of a network each kernel of its engine works for. Imports no torch."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import onnx

#: Changes of layout to and from ONNX Runtime's blocked one (NCHWc).
_TO_BLOCKED, _FROM_BLOCKED = "ReorderInput", "ReorderOutput"
_BLOCKED_SUFFIX = "_nchwc"


def value_owners(
    model: onnx.GraphProto, weights: Sequence[str], computed: Mapping[str, int] = MappingProxyType({})
) -> dict[str, int]:
    """Position of the operation that every value and node of an exported model belongs to, by its name.

    A node that reads a weight is the operation's layer, the second one of two that share it the second. As in the
    workload (`prunec.passes.costs`) every other one belongs to the last layer that it reads from. A layer whose weight
    is computed by the network, so that no node reads a weight of that name, is known by the value that it yields.

    Args:
        model: The graph as prunec exports it: weights have the names of the program's.
        weights: Name of the weight of every operation, in the order of execution; empty where there is none.
        computed: Position of the operation of each node of the program's graph, by its name: values are called alike.
    """
    read = {name for node in model.node for name in node.input}
    by_value = {name: position for name, position in computed.items() if weights[position] not in read}
    calls: dict[str, list[int]] = {}
    for position, weight in enumerate(weights):
        calls.setdefault(weight, []).append(position)
    calls.pop("", None)
    owners: dict[str, int] = {}
    for node in model.node:
        own = next((calls[name].pop(0) for name in node.input if calls.get(name)), None)
        if own is None:
            own = next((by_value[name] for name in node.output if by_value.get(name)), None)
        before = max((owners[name] for name in node.input if name in owners), default=0)
        owners |= dict.fromkeys((*node.output, node.name), before if own is None else own)
    return owners


def kernel_owners(optimized: onnx.GraphProto, owners: Mapping[str, int]) -> dict[str, int]:
    """Operation of every node of the graph that ONNX Runtime made of an exported model, by the node's name.

    A change of layout belongs to the operation that can't read or
    write the blocked one: into it to the operation before, out of it to the one behind. Other nodes that ONNX Runtime
    inserts serve the first operation that reads what they yield.

    Args:
        optimized: The graph that ONNX Runtime runs.
        owners: Operation of each value and node of the exported model (`value_owners`).
    """
    nodes = optimized.node
    assigned = [None if node.op_type in (_TO_BLOCKED, _FROM_BLOCKED) else _known(node, owners) for node in nodes]
    readers: dict[str, int] = {}
    for position in reversed(range(len(nodes))):
        node = nodes[position]
        if assigned[position] is None and node.op_type != _TO_BLOCKED:
            assigned[position] = min((readers[name] for name in node.output if name in readers), default=None)
        if (owner := assigned[position]) is not None:
            readers |= {name: min(owner, readers.get(name, owner)) for name in node.input}
    written: dict[str, int] = {}
    resolved: dict[str, int] = {}
    for node, owner in zip(nodes, assigned, strict=True):
        before = max((written[name] for name in node.input if name in written), default=0)
        resolved[node.name] = before if owner is None else owner
        written |= dict.fromkeys(node.output, resolved[node.name])
    return resolved


def _known(node: onnx.NodeProto, owners: Mapping[str, int]) -> int | None:
    """The operation that a node tells of: the name of a fused layer, else the last value of what is fused."""
    names = (node.name, node.name.removesuffix(_BLOCKED_SUFFIX), *node.output)
    return next((owners[name] for name in names if name in owners), None)
