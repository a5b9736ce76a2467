"""One form for operators that have several: what relies on sizes says so, where the rewriting finds it."""

import torch
from torch.fx import Graph, GraphModule

from prunec.passes.graphs import arguments, calls


def canonicalise(module: GraphModule) -> None:
    """Squeezes name their axes, narrows are slices, ranges are constants, views are reshapes; in place."""
    _make_squeezes_explicit(module.graph)
    _make_narrows_slices(module.graph)
    _make_ranges_constants(module)
    make_views_reshapes(module.graph)


def _make_squeezes_explicit(graph: Graph) -> None:
    """Name the axes of size 1 that vanish, so that an axis pruned to one channel doesn't vanish with them."""
    for node in calls(graph, "squeeze"):
        bound = arguments(node)
        shape, dims = bound["self"].meta["shapes"], bound.get("dim")
        chosen = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else dims
        gone = sorted({d % len(shape) for d in chosen if shape and shape[d] == 1})
        node.target = torch.ops.aten.squeeze.dims
        node.args, node.kwargs = (bound["self"], gone), {}


def _make_narrows_slices(graph: Graph) -> None:
    """A narrow is a slice given by its length."""
    for node in calls(graph, "narrow"):
        bound = arguments(node)
        start, length = bound["start"], bound["length"]
        if isinstance(start, int) and isinstance(length, int):
            first = start + bound["self"].meta["shapes"][bound["dim"]] if start < 0 else start
            node.target = torch.ops.aten.slice.Tensor
            node.args, node.kwargs = (bound["self"], bound["dim"], first, first + length), {}


def _make_ranges_constants(module: GraphModule) -> None:
    """Compute ranges of known length now: where they count channels, they are cut like any constant of the code."""
    for position, node in enumerate(list(calls(module.graph, "arange", "linspace"))):
        if node.all_input_nodes:
            continue
        name = f"range_{position}"
        while hasattr(module, name):
            name += "_"
        setattr(module, name, node.target(*node.args, **node.kwargs))  # type: ignore[operator]
        with module.graph.inserting_before(node):
            constant = module.graph.create_node("get_attr", name)
        constant.meta = node.meta
        node.replace_all_uses_with(constant)
        module.graph.erase_node(node)


def make_views_reshapes(graph: Graph) -> None:
    """A view relies on strides, which kernels choose by the widths that pruning changes; a reshape doesn't."""
    for node in calls(graph, "view", "_unsafe_view"):
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default
