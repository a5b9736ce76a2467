"""From a network to a `Program`: export, clean-up, what was lost on the way."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from prunec.passes.errors import UnsupportedModelError
from prunec.passes.normalise import normalise
from prunec.passes.program import Program, copied, eval_mode, fingerprint
from prunec.passes.training import lost_in_capture, mark_switches


def capture(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> Program:
    """Capture a network as it runs in eval mode. The module itself is left as it was; tensors are copied.

    Args:
        module: any network that ``torch.export`` can trace.
        args: example inputs. A batch of 1 is repeated to 2, since exporting with 1 fixes it.
        kwargs: example keyword inputs.
        dynamic_shapes: which dimensions may vary, as ``torch.export.export`` takes it; by default dimension 0
            of every input. Where the network fixes its batch anyway, it is captured so, and
            ``Program.batch_is_dynamic`` is False.

    Raises:
        UnsupportedModelError: the network doesn't run on these inputs, or can't be exported.
    """
    args, kwargs = _repeat_single_batch((args, kwargs or {})) if dynamic_shapes is None else (args, kwargs or {})
    with eval_mode(module):
        _try_forward(module, args, kwargs)
        exported, dynamic = _export(module, args, kwargs, dynamic_shapes)

        def export() -> ExportedProgram:
            return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic, strict=False)

        program = _program(exported, args, kwargs, dynamic)
        program.lost_in_capture = lost_in_capture(module, exported.graph, export)
    program.origin = fingerprint(module.state_dict())
    return program


def from_exported(exported: ExportedProgram) -> Program:
    """A program from an ``ExportedProgram``; dimension 0 of its inputs is dynamic where it was exported so."""
    if exported.example_inputs is None:
        raise UnsupportedModelError(
            "The exported program holds no example inputs.", hint="Export it again with torch.export.export."
        )
    args, kwargs = exported.example_inputs
    dynamic = _batch_dynamic((args, kwargs)) if _batch_symbol(exported) else None
    program = _program(exported, tuple(args), dict(kwargs), dynamic)
    program.origin = fingerprint(exported.state_dict)
    return program


def _program(exported: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any) -> Program:
    module = exported.module(check_guards=False)
    assert isinstance(module, GraphModule)
    # A captured network must run at another batch or resolution than its example's.
    module._forward_pre_hooks.clear()
    normalise(module, _batch_symbol(exported))
    mark_switches(module.graph)
    dropped = _drop_unused_parameters(module)
    names = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    tensors = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    module = GraphModule(copied({n: t for n, t in tensors.items() if n in names}), module.graph)
    return Program(module, args, kwargs, dynamic, dropped=dropped)


def _drop_unused_parameters(module: GraphModule) -> tuple[str, ...]:
    """Remove parameters that no operator reads, such as auxiliary heads'; one tied to a used one stays."""
    graph = module.graph
    nodes = {node: _attribute(module, str(node.target)) for node in graph.find_nodes(op="get_attr")}
    used = {id(value) for node, value in nodes.items() if node.users}
    unused = [n for n, value in nodes.items() if isinstance(value, nn.Parameter) and id(value) not in used]
    for node in unused:
        graph.erase_node(node)
    return tuple(str(node.target) for node in unused)


def _attribute(module: nn.Module, path: str) -> Any:
    parent, _, name = path.rpartition(".")
    return getattr(module.get_submodule(parent), name)


def _try_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        with torch.no_grad():
            module(*args, **kwargs)
    except Exception as error:
        shapes = [tuple(leaf.shape) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        raise UnsupportedModelError(
            f"{type(module).__name__} doesn't run on inputs of shape {', '.join(map(str, shapes))}: "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
            hint="Check the input shape (one sample's, without the batch) against what the network expects.",
        ) from error


def _export(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> tuple[ExportedProgram, Any]:
    """Export with the batch dynamic, or fixed where the network itself fixes it."""
    attempts: list[Callable[[], Any]] = [lambda: dynamic_shapes]
    if dynamic_shapes is None:
        attempts = [lambda: _batch_dynamic((args, kwargs)), lambda: None]
    failure: Exception | None = None
    for dynamic in attempts:
        try:
            shapes = dynamic()
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False), shapes
        except Exception as error:  # noqa: BLE001 - torch.export raises many types; the last is re-raised below
            failure = failure or error
    text = str(failure).strip().splitlines()
    raise UnsupportedModelError(
        f"torch.export can't capture {type(module).__name__}: {text[0] if text else type(failure).__name__}",
        hint="Data-dependent control flow in forward() is the usual cause; torch.export's message names the line.",
    ) from failure


def _batch_dynamic(inputs: tuple[Any, dict[str, Any]]) -> Any:
    """Dynamic-shapes specification that lets dimension 0 of every tensor vary, under the name "batch"."""
    batch = Dim("batch")
    args, kwargs = pytree.tree_map(lambda leaf: {0: batch} if isinstance(leaf, Tensor) and leaf.ndim else None, inputs)
    return (*args, *kwargs.values()) if not kwargs else {**dict(enumerate(args)), **kwargs}


def _batch_symbol(exported: ExportedProgram) -> str | None:
    for node in exported.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if node.name in exported.graph_signature.user_inputs and isinstance(value, Tensor) and value.ndim:
            size = value.shape[0]
            return None if isinstance(size, int) else str(size.node.expr)
    return None


def _repeat_single_batch(inputs: Any) -> Any:
    """Example inputs whose batch of 1 is repeated to 2."""
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.ndim]
    if not tensors or any(tensor.shape[0] != 1 for tensor in tensors):
        return inputs
    return pytree.tree_map(
        lambda leaf: torch.cat([leaf, leaf]) if isinstance(leaf, Tensor) and leaf.ndim else leaf, inputs
    )
