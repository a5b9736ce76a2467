"""Bring an exported graph into the form that passes expect: pure, one level deep, one form of each operator."""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from prunec.passes.decompose import decompose, inline, is_constant
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.graphs import Shapes, arguments, calls, notes, operator_name, symbol_primes
from prunec.passes.operators import DROPOUTS, RANGES, REGIONS
from prunec.passes.own_layers import SHRINKING

#: Operators that may return an input, or a view of it, although their schema doesn't say so.
_MAY_RETURN_INPUT = frozenset((
    *DROPOUTS, "rrelu", "type_as", "sum_to_size", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors",
    "meshgrid", "einsum", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "_unsafe_view", "unsafe_chunk",
    "unsafe_split", "unsafe_split_with_sizes",
))  # fmt: skip
#: Operators whose in-place forms write 0 and 1 in the tensor's own dtype, and whose pure forms yield bool.
_COMPARISONS = frozenset(
    ("eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or", "logical_xor")
)


#: Operators that check numbers, and give nothing.
_CHECKS = ("_assert_scalar", "sym_constrain_range_for_size", "sym_constrain_range")


def normalise(module: GraphModule, batch_symbol: str | None) -> None:
    """Bring the module that ``ExportedProgram.module()`` returns into the form of a program's, in place.

    Gradient regions are inlined, in-place operators on whole tensors become pure, operators without a rule are
    decomposed, metadata are reduced to shapes and dtypes, and sizes stand in arguments that can be rewritten.
    ``batch_symbol`` names the symbol of the batch.

    Raises:
        UnsupportedModelError: The graph has nested graphs other than gradient regions.
    """
    inline_regions(module)
    copy_written_inputs(module.graph)
    functionalise(module.graph)
    decompose(module.graph)
    functionalise(module.graph)  # decompositions write in place, too
    _plain_metadata(module.graph, batch_symbol)
    _make_squeezes_explicit(module.graph)
    _compute_constants(module)
    make_views_reshapes(module.graph)
    # torch.export records checks of dtypes beside casts; a program also runs in other dtypes.
    for node in list(calls(module.graph, "_assert_tensor_metadata")):
        module.graph.erase_node(node)
    _drop_checks_of_values(module.graph)
    remove_dead_nodes(module.graph)


def _drop_checks_of_values(graph: Graph) -> None:
    """Remove checks of numbers that a network takes from tensors for the checks alone: no engine knows such.

    Where sizes depend on such a number, its checks stay: torch.export goes by them.
    """
    checks, taken = list(calls(graph, *_CHECKS)), set(calls(graph, "item", "_local_scalar_dense"))
    needed = _read_by(node for node in graph.nodes if node not in checks and _is_kept(node))
    for check in checks:
        numbers = _read_by([check]) & taken
        if numbers and numbers.isdisjoint(needed):
            graph.erase_node(check)


def _read_by(nodes: Iterable[Node]) -> set[Node]:
    """What nodes read, directly or through others."""
    reached: set[Node] = set()
    left = list(nodes)
    while left:
        new = set(left.pop().all_input_nodes) - reached
        reached |= new
        left += new
    return reached


def remove_dead_nodes(graph: Graph) -> None:
    """Remove what nothing reads, in place; inputs, tensors of the network and what writes to memory stay."""
    graph.eliminate_dead_code(is_impure_node=_is_kept)


def _is_kept(node: Node) -> bool:
    """Inputs, outputs, attributes (also counters that no operator reads) and mutations stay in the graph."""
    return node.op in ("placeholder", "output", "get_attr") or _mutates(node) or node.is_impure()


def inline_regions(module: GraphModule) -> None:
    """Replace each ``torch.no_grad()`` region and each in which autocast is off, submodule calls, by their nodes.

    Inference is unchanged, since autocast is on nowhere else; in a recovery finetune gradients then flow through the
    nodes of a region without gradients as well.

    Raises:
        UnsupportedModelError: Autocast is on in a region, or there is another graph within the graph.
    """
    graph = module.graph
    for node in list(calls(graph, *REGIONS)):
        if operator_name(node.target) == "wrap_with_autocast" and node.args[2]:
            continue
        first = REGIONS[operator_name(node.target)]
        region: Node = node.args[first]  # type: ignore[assignment]
        body = module.get_submodule(str(region.target))
        assert isinstance(body, GraphModule)
        inline_regions(body)
        inline(node, body.graph, list(node.args[first + 1 :]))  # type: ignore[arg-type]
        if not region.users:
            graph.erase_node(region)
    _refuse_nested_graphs(module)


def _refuse_nested_graphs(module: GraphModule) -> None:
    submodules = dict(module.named_modules())
    for node in module.graph.find_nodes(op="get_attr"):
        if isinstance(submodules.get(str(node.target)), GraphModule):
            operator = operator_name(next(iter(node.users)).target) if node.users else str(node.target)
            raise UnsupportedModelError(
                f"The network contains {operator}, a graph within its graph, which prunec doesn't look into.",
                hint="Take torch.autocast, torch.cond and the like out of forward(); autocast belongs around the call.",
            )


def functionalise(graph: Graph) -> None:
    """Turn in-place operators on whole, unaliased tensors into their pure twins (``relu_`` -> ``relu``).

    A write to memory that something else looks at later stays: the analysis freezes what it touches. The graph is one
    that torch.export's fake values still annotate.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        base, pure = written(node), _pure_twin(node)
        if base is None or pure is None or base.op != "call_function" or _is_seen_elsewhere(base, node, order):
            continue
        if _keeps_dtype(node, base):
            node.target = pure
            for user in [user for user in base.users if order[user] > order[node]]:
                user.replace_input_with(base, node)


def _is_seen_elsewhere(base: Node, write: Node, order: dict[Node, int]) -> bool:
    """Whether anything that runs after a write looks at the written memory by another way than ``base``."""
    family, todo = {base}, [base]
    while todo:
        member = todo.pop()
        related = [*aliased_inputs(member), *(user for user in member.users if member in aliased_inputs(user))]
        for other in related:
            if other not in family and not (written(other) is base and order[other] >= order[write]):
                family.add(other)
                todo.append(other)
    others = family - {base}
    is_view = any(member.op != "call_function" for member in others)  # of an input or of a parameter
    users = {user for member in others for user in member.users} - family
    return is_view or any(order[user] > order[write] for user in users)


def _keeps_dtype(node: Node, base: Node) -> bool:
    """Whether the pure form of a write to ``base`` yields the dtype of ``base`` too, which the in-place one keeps."""
    dtype = _dtype(base)
    if operator_name(node.target).removesuffix("_") in _COMPARISONS:
        return bool(dtype == torch.bool)
    others = [other for source in node.all_input_nodes if (other := _dtype(source)) is not None]
    return dtype is not None and all(torch.promote_types(dtype, other) == dtype for other in others)


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _pure_twin(node: Node) -> Any:
    """The operator that yields what this one writes, from the same arguments in the same order; None for none."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return None
    name = operator_name(node.target)
    pure = name.replace("__i", "__") if name.startswith("__i") else name.removesuffix("_")  # `__iand__` -> `__and__`
    packet = getattr(torch.ops.aten, pure, None)
    overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
    takers = (twin for twin in overloads if twin._schema.arguments and not twin._schema.is_mutable)
    return next((twin for twin in takers if _takes(twin) == _takes(node.target)), None)


def _takes(target: torch._ops.OpOverload) -> list[tuple[str, str]]:
    """Names and types of an operator's arguments; the first, which is written, may have another name."""
    first, *others = target._schema.arguments
    return [("", str(first.type)), *((argument.name, str(argument.type)) for argument in others)]


def copy_written_inputs(graph: Graph) -> None:
    """Let a network that writes to its inputs, or to views of them, write to copies: its caller's tensors stay."""
    inputs = graph.find_nodes(op="placeholder")
    for source in inputs:
        family, todo = {source}, [source]
        while todo:
            new = [user for user in todo.pop().users if user not in family and set(aliased_inputs(user)) & family]
            family.update(new)
            todo += new
        if any(written(user) in family for member in family for user in member.users):
            with graph.inserting_after(inputs[-1]):
                clone = graph.call_function(torch.ops.aten.clone.default, (source,))
            clone.meta = dict(source.meta)
            source.replace_all_uses_with(clone, delete_user_cb=lambda user: user is not clone)  # noqa: B023


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


def aliased_inputs(node: Node) -> list[Node]:
    """The inputs whose memory this node's output may share."""
    if node.op != "call_function":
        return []
    if operator_name(node.target) == "getitem":
        return [source for item in node.all_input_nodes for source in aliased_inputs(item)]
    if operator_name(node.target) in _MAY_RETURN_INPUT:
        return node.all_input_nodes
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    shares = any(result.alias_info is not None for result in node.target._schema.returns)
    first = next(iter(arguments(node).values()), None)
    return [first] if shares and isinstance(first, Node) else []


def _plain_metadata(graph: Graph, batch_symbol: str | None) -> None:
    """Replace fake tensors by shapes (ints), dtype and module path; the stack trace stays, in memory only."""
    primes = symbol_primes()
    batch_prime = next(primes)
    symbols: dict[Any, tuple[int, int]] = {}
    cache: dict[Any, tuple[int, int]] = {}

    def size(value: Any) -> tuple[int, int]:
        """A size with primes for its symbols, and the size for one sample of the example input."""
        if isinstance(value, int):
            return value, value
        expression = value.node.expr
        if expression not in cache:
            for symbol in expression.free_symbols - symbols.keys():
                hint = int(value.node.shape_env.backed_var_to_val.get(symbol, 1))
                symbols[symbol] = (batch_prime, 1) if str(symbol) == batch_symbol else (next(primes), hint)
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
            "dtype": _dtype(node),
            "module": str(stack[-1][0]) if stack else "",
            "in_layer": _is_layer(stack[-1][1]) if stack else True,
            "trace": node.meta.get("stack_trace") or "",
            "custom": notes(node),
        }


def _is_layer(name: Any) -> bool:
    """Whether a class, or its full name, is a layer of torch or a subclass of one, whose sizes are attributes."""
    if not isinstance(name, type):
        module, _, leaf = str(name).rpartition(".")
        name = getattr(sys.modules.get(module), leaf, None)
    return isinstance(name, type) and issubclass(name, SHRINKING)


def _make_squeezes_explicit(graph: Graph) -> None:
    """Name the axes of size 1 that vanish, so that an axis pruned to one channel doesn't vanish with them."""
    for node in list(calls(graph, "squeeze")):
        bound = arguments(node)
        shape, dims = bound["self"].meta["shapes"], bound.get("dim")
        chosen = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else dims
        gone = sorted({d % len(shape) for d in chosen if shape and shape[d] == 1})
        node.target = torch.ops.aten.squeeze.dims
        node.args, node.kwargs = (bound["self"], gone), {}
        if not gone:
            node.replace_all_uses_with(bound["self"])
            graph.erase_node(node)


def _compute_constants(module: GraphModule) -> None:
    """Compute ranges and the like now: where they count channels, they are cut like any constant of the code."""
    for position, node in enumerate(list(filter(is_constant, calls(module.graph)))):
        name = f"{'range' if operator_name(node.target) in RANGES else 'constant'}_{position}"
        while hasattr(module, name):
            name += "_"
        setattr(module, name, node.target(*node.args, **node.kwargs))  # type: ignore[operator]
        with module.graph.inserting_before(node):
            constant = module.graph.create_node("get_attr", name)
        constant.meta = node.meta
        node.replace_all_uses_with(constant)
        module.graph.erase_node(node)


def make_views_reshapes(graph: Graph) -> None:
    """Replace views by reshapes: a view relies on strides, which kernels choose by the widths that pruning changes."""
    for node in calls(graph, "view", "_unsafe_view"):
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default
