"""Roles of layers: those that read the network's input, and those that make its output."""

from collections.abc import Callable, Iterable, Sequence

from torch.fx import Graph, Node

from prunec.passes.cost import layer_calls

#: The meaning of each role, in words; options that take globs over layers take the roles too.
ROLES = {"stem": "layers that the input reaches first", "classifier": "layers that nothing but the output follows"}


def expand_roles(graph: Graph, globs: Sequence[str]) -> tuple[str, ...]:
    """Replace every role of `ROLES` among globs by the paths of its layers; a role without layers stays as it is."""
    if not ROLES.keys() & set(globs):
        return tuple(globs)
    layers = {node: layer.name for node, layer in layer_calls(graph)}
    paths = {
        "stem": _reached(graph.find_nodes(op="placeholder"), lambda node: node.users, layers),
        "classifier": _reached([graph.output_node()], lambda node: node.all_input_nodes, layers),
    }
    return tuple(path for glob in globs for path in (paths.get(glob, ()) or (glob,)))


def _reached(start: Iterable[Node], step: Callable[[Node], Iterable[Node]], layers: dict[Node, str]) -> tuple[str, ...]:
    """Layers that can be reached without passing another layer, in the order in which they are reached."""
    seen: set[Node] = set()
    todo, reached = list(start), dict[str, None]()
    while todo:
        node = todo.pop()
        if node in layers:
            reached[layers[node]] = None
        elif node not in seen:
            todo.extend(step(node))
        seen.add(node)
    return tuple(reached)
