"""From a network to a `Program`: export, clean-up, what was lost on the way."""

import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from prunec.passes.dimensions import (
    batch_symbol,
    dynamic_batch,
    dynamic_dims,
    input_tensors,
    specification,
)
from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.export_failure import export_failure
from prunec.passes.normalise import normalise
from prunec.passes.program import Program, copied, copied_inputs, eval_mode, fingerprint
from prunec.passes.training import lost_in_capture, mark_switches

#: max|a-b| / max|b| between the captured graph and the network, above which they are not the same function.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_TOLERANCE_BELOW_FLOAT32 = 5e-2

#: Positional and keyword inputs.
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


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
            of every input with as many samples as the first. Where the network fixes its batch anyway, it is
            captured so, and ``Program.batch_is_dynamic`` is False.

    Raises:
        UnsupportedModelError: the network doesn't run on these inputs, can't be exported, or its graph computes
            something else (a network that draws random numbers in eval mode by other means than torch).
    """
    inputs: Inputs = copied_inputs((tuple(args), dict(kwargs or {})))
    with eval_mode(module):
        _run(module, inputs)
        exported, inputs = _export(module, inputs, dynamic_shapes)

        def export() -> ExportedProgram:
            with _quiet():
                return torch.export.export(module, *inputs, strict=False)

        program = _program(exported, inputs)
        _check_same(type(module).__name__, program, inputs, _run(module, inputs))
        program.lost_in_capture = lost_in_capture(module, exported.graph, export)
    program.origin = fingerprint(module.state_dict())
    return program


def from_exported(exported: ExportedProgram) -> Program:
    """A program from an ``ExportedProgram``, with the dimensions dynamic that were exported so."""
    if exported.example_inputs is None:
        raise UnsupportedModelError(
            "The exported program holds no example inputs.", hint="Export it again with torch.export.export."
        )
    args, kwargs = exported.example_inputs
    program = _program(exported, (tuple(args), dict(kwargs)))
    program.origin = fingerprint(exported.state_dict)
    return program


def _program(exported: ExportedProgram, inputs: Inputs) -> Program:
    _refuse_reserved_names(exported)
    module = exported.module(check_guards=False)
    assert isinstance(module, GraphModule)
    # A captured network must run at another batch or resolution than its example's.
    module._forward_pre_hooks.clear()
    normalise(module, batch_symbol(exported))
    mark_switches(module.graph)
    _use_first_names(module)
    dropped = _drop_unused_parameters(module)
    named = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    names = [str(node.target) for node in module.graph.find_nodes(op="get_attr")]
    # In the order of the module, so that equal networks give equal programs; constants of its code come last.
    constants = tuple(sorted({name for name in names if name not in named}))
    tensors = {name: tensor for name, tensor in named.items() if name in set(names)}
    tensors |= {name: _attribute(module, name) for name in constants}
    return Program(
        GraphModule(copied(tensors), module.graph),
        *inputs,
        dynamic_shapes=dynamic_dims(exported),
        dropped=dropped,
        constants=constants,
    )


def _refuse_reserved_names(exported: ExportedProgram) -> None:
    for name in (*exported.state_dict, *exported.constants):
        first = name.partition(".")[0]
        if hasattr(GraphModule, first):
            raise UnsupportedModelError(
                f"The network's {first!r} (of {name}) has a name that torch.fx keeps for itself.",
                hint="Rename that attribute of the network, and the keys of its checkpoint with it.",
            )


def _use_first_names(module: GraphModule) -> None:
    """Read a tensor with several names under the first of them, as the network's own code names it."""
    first: dict[int, Node] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        original = first.setdefault(id(_attribute(module, str(node.target))), node)
        if original is not node:
            node.replace_all_uses_with(original)


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


def _run(module: nn.Module, inputs: Inputs) -> Any:
    """The network's outputs; its buffers, the inputs and torch's random state stay as they are."""
    args, kwargs = copied_inputs(inputs)
    buffers = copied(dict(module.named_buffers()))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return torch.func.functional_call(module, buffers, args, kwargs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in input_tensors(inputs))
        raise UnsupportedModelError(
            f"{type(module).__name__} doesn't run on inputs of shape {shapes}: "
            f"{type(error).__name__}: {first_line(error)}",
            hint="Check the input shape (one sample's, without the batch) against what the network expects.",
        ) from error


def _export(module: nn.Module, inputs: Inputs, dynamic_shapes: Any) -> tuple[ExportedProgram, Inputs]:
    """Export with the batch dynamic, or fixed where the network fixes it; with the inputs used."""

    def attempts() -> Iterable[tuple[Inputs, Any]]:
        if dynamic_shapes is not None:
            yield inputs, dynamic_shapes
            return
        args, kwargs = repeated = _repeat_single_batch(inputs)
        yield repeated, specification(module, args, kwargs, dynamic_batch(input_tensors(repeated)))
        yield inputs, None

    failure: Exception | None = None
    for example, shapes in attempts():
        try:
            with _quiet():
                return torch.export.export(module, *example, dynamic_shapes=shapes, strict=False), example
        except Exception as error:  # noqa: BLE001 - torch.export raises many types; the first is raised below
            failure = failure or error
    assert failure is not None
    raise export_failure(type(module).__name__, failure) from failure


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on the terminal from torch, which logs a traceback and prints a graph for every failed attempt."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _repeat_single_batch(inputs: Inputs) -> Any:
    """Example inputs whose batch of 1 is repeated to 2."""
    tensors = [tensor for tensor in input_tensors(inputs) if tensor.ndim]
    if not tensors or any(tensor.shape[0] != 1 for tensor in tensors):
        return inputs
    return pytree.tree_map(
        lambda leaf: torch.cat([leaf, leaf]) if isinstance(leaf, Tensor) and leaf.ndim else leaf, inputs
    )


def _check_same(name: str, program: Program, inputs: Inputs, expected: Any) -> None:
    """The graph must compute what the network computes; nothing that follows would notice if it didn't."""
    actual = input_tensors(_run(program.module, inputs))
    for a, b in zip(actual, input_tensors(expected), strict=True):
        if not b.is_floating_point():
            same = torch.equal(a, b)
        else:
            tolerance = _TOLERANCE.get(b.dtype, _TOLERANCE_BELOW_FLOAT32)
            scale = b[b.isfinite()].abs().max().item() if b.isfinite().any() else 1.0
            same = torch.allclose(a.to(b.dtype), b, rtol=0, atol=tolerance * scale, equal_nan=True)
        if a.shape != b.shape or not same:
            raise UnsupportedModelError(
                f"The captured graph of {name} computes something else than the network does on the example input.",
                hint="Random numbers or state outside torch in forward() are the usual cause.",
            )
