"""Bring an exported graph into the form that passes expect: pure, one level deep, with plain metadata."""

from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from prunec.passes.graphs import SYMBOL_PRIMES, Shapes, arguments, calls, operator_name


def normalise(module: GraphModule, batch_symbol: str | None) -> None:
    """Inline gradient regions, make whole-tensor in-place operators pure, reduce metadata to shapes and dtypes.

    Args:
        module: as ``ExportedProgram.module()`` returns it; changed in place.
        batch_symbol: name of the symbol that stands for the batch, None where the batch is fixed.
    """
    inline_grad_regions(module)
    _plain_metadata(module.graph, batch_symbol)
    functionalise(module.graph)
    module.graph.eliminate_dead_code(is_impure_node=_is_kept)


def _is_kept(node: Node) -> bool:
    """Inputs, outputs, attributes (also counters that no operator reads) and mutations stay in the graph."""
    return node.op in ("placeholder", "output", "get_attr") or _mutates(node) or node.is_impure()


def inline_grad_regions(module: GraphModule) -> None:
    """Replace each ``torch.no_grad()`` region, a submodule call, by its nodes.

    Inference is unchanged; in a recovery finetune gradients then flow through the region's nodes as well.
    """
    graph = module.graph
    for node in list(calls(graph, "wrap_with_set_grad_enabled")):
        body = module.get_submodule(str(node.args[1].target))  # type: ignore[union-attr]
        assert isinstance(body, GraphModule)
        inputs = dict(zip(body.graph.find_nodes(op="placeholder"), node.args[2:], strict=True))
        with graph.inserting_before(node):
            outputs = graph.graph_copy(body.graph, inputs)
        for user in list(node.users):
            assert operator_name(user.target) == "getitem"
            assert isinstance(outputs, tuple | list)
            user.replace_all_uses_with(outputs[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
        graph.erase_node(node)


def functionalise(graph: Graph) -> None:
    """Turn in-place operators on whole, unaliased tensors into their pure twins (``relu_`` -> ``relu``).

    A write through a view, or to a tensor that a view still looks at, stays: the analysis freezes what it touches.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        base = written(node)
        pure = _pure_twin(node)
        if base is None or pure is None or base.op != "call_function" or is_aliased(base):
            continue
        later = [user for user in base.users if order[user] > order[node]]
        node.target = pure
        for user in later:
            user.replace_input_with(base, node)


def _pure_twin(node: Node) -> Any:
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return None
    packet = getattr(torch.ops.aten, operator_name(node.target).removesuffix("_"), None)
    return getattr(packet, node.target._overloadname, None) if packet is not None else None


def _mutates(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def written(node: Node) -> Node | None:
    """The node whose tensor this node overwrites, or None for a pure one."""
    if node.op != "call_function" or not _mutates(node):
        return None
    assert isinstance(node.target, torch._ops.OpOverload)
    for argument in node.target._schema.arguments:
        value = arguments(node)[argument.name]
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Node):
            return value
    return None


def aliased_input(node: Node) -> Node | None:
    """The input whose memory this node's output may share: views, and dropout, which returns its input in eval."""
    if node.op != "call_function":
        return None
    if operator_name(node.target) == "getitem":
        source = node.args[0]
        assert isinstance(source, Node)
        return aliased_input(source)
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    first = next(iter(arguments(node).values()), None)
    shares = any(result.alias_info is not None for result in node.target._schema.returns)
    if isinstance(first, Node) and (shares or "dropout" in operator_name(node.target)):
        return first
    return None


def is_aliased(node: Node) -> bool:
    """Whether the node's tensor is a view of another one, or another node is a view of it."""
    views = [user for user in node.users if aliased_input(user) is node and written(user) is not node]
    return (aliased_input(node) is not None and written(node) is None) or bool(views)


def _plain_metadata(graph: Graph, batch_symbol: str | None) -> None:
    """Replace fake tensors, stack traces and source paths by shapes (ints), dtype and module path."""
    primes = iter(SYMBOL_PRIMES[1:])
    symbols: dict[Any, tuple[int, int]] = {}
    cache: dict[Any, tuple[int, int]] = {}

    def size(value: Any) -> tuple[int, int]:
        """A dimension with primes for the symbols, and as it is for one sample of the example input."""
        if isinstance(value, int):
            return value, value
        expression = value.node.expr
        if expression not in cache:
            for symbol in expression.free_symbols:
                if symbol not in symbols:
                    batch = str(symbol) == batch_symbol
                    hint = int(value.node.shape_env.backed_var_to_val.get(symbol, 1))
                    symbols[symbol] = (SYMBOL_PRIMES[0], 1) if batch else (next(primes), hint)
            cache[expression] = tuple(  # type: ignore[assignment]
                int(expression.xreplace({s: pair[which] for s, pair in symbols.items()})) for which in (0, 1)
            )
        return cache[expression]

    def describe(value: Any, which: int) -> Shapes:
        if isinstance(value, torch.Tensor):
            return tuple(size(dim)[which] for dim in value.shape)
        if isinstance(value, tuple | list):
            return [describe(item, which) for item in value]
        return None

    for node in graph.nodes:
        value = node.meta.get("val")
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        node.meta = {
            "shapes": describe(value, 0),
            "sample_shapes": describe(value, 1),
            "dtype": value.dtype if isinstance(value, torch.Tensor) else None,
            "module": str(stack[-1][0]) if stack else "",
        }
