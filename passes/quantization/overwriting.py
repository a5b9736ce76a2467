"""Values that are written to in place: what a quantizer right behind them would read is older than what others do."""

from collections import defaultdict

from torch._ops import OpOverload
from torch.fx import Graph, Node


class Overwriting:
    """The in-place writes of a graph, by the storage that they change."""

    def __init__(self, graph: Graph) -> None:
        self._order = {node: position for position, node in enumerate(graph.nodes)}
        self._storage: dict[Node, Node] = {}
        self._writes: dict[Node, list[int]] = defaultdict(list)
        for node in graph.nodes:
            self._storage[node] = next((self._storage[source] for source in _viewed(node)), node)
            for written in _written(node):
                self._writes[self._storage[written]].append(self._order[node])

    def hinders(self, value: Node, reader: Node) -> bool:
        """Whether a reader can't be given a copy of a value that was made as soon as the value was there.

        It can't where the value's storage is written to before the reader runs, or by the reader itself and others
        read that storage afterwards.
        """
        first, last, storage = self._order[value], self._order[reader], self._storage[value]
        writes = self._writes[storage]
        if any(first < write < last for write in writes):
            return True
        return last in writes and any(
            self._order[user] > last
            for node, of_node in self._storage.items()
            if of_node is storage and self._order[node] < last
            for user in node.users
        )


def _written(node: Node) -> list[Node]:
    """The arguments of a call that it writes to."""
    return [value for argument, value in _arguments(node) if argument.alias_info and argument.alias_info.is_write]


def _viewed(node: Node) -> list[Node]:
    """The arguments of a call whose storage its value may share."""
    if not isinstance(node.target, OpOverload):
        return []
    shared = {name for each in node.target._schema.returns if each.alias_info for name in each.alias_info.before_set}
    return [
        value
        for argument, value in _arguments(node)
        if argument.alias_info and not shared.isdisjoint(argument.alias_info.before_set)
    ]


def _arguments(node: Node):  # type: ignore[no-untyped-def]  # torch gives its schemas no types
    """The arguments of a call that are nodes, each with what the operator's schema says of it."""
    if not isinstance(node.target, OpOverload):
        return
    for position, argument in enumerate(node.target._schema.arguments):
        value = node.kwargs.get(argument.name, node.args[position] if position < len(node.args) else None)
        if isinstance(value, Node):
            yield argument, value
