"""Capture of a network as a `Program`: export, comparison with the network, and what was lost on the way."""

import io
import logging
import warnings
from collections.abc import Iterable
from contextlib import redirect_stderr
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from prunec.passes.dimensions import dynamic_batch, input_tensors, specification
from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.export_failure import export_failure
from prunec.passes.outputs import know_classes
from prunec.passes.program import Program, program_from
from prunec.passes.tensors import Inputs, copied, copied_inputs, fingerprint
from prunec.passes.training import kept_modes, lost_in_capture

#: Largest max|a-b| / max|b| at which the captured graph and the network count as the same function.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_TOLERANCE_BELOW_FLOAT32 = 5e-2


def capture(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, dynamic_shapes: Any = None
) -> Program:
    """Capture a network as it runs in eval mode. The module itself is left as it was; tensors are copied.

    Args:
        module: Any network that ``torch.export`` can trace.
        args: Example inputs. A batch of 1 is repeated to 2, since exporting with 1 fixes it.
        kwargs: Example keyword inputs.
        dynamic_shapes: The dimensions that may vary, in the form of ``torch.export.export``; by default dimension 0
            of every input that has as many samples as the first. A network that fixes its batch anyway is captured
            with the batch fixed, and ``Program.batch_is_dynamic`` is False.

    Raises:
        UnsupportedModelError: The network doesn't run on these inputs, can't be exported, or its graph computes
            something else (a network that draws random numbers in eval mode by other means than torch).
    """
    inputs: Inputs = copied_inputs((tuple(args), dict(kwargs or {})))
    with kept_modes(module):
        module.eval()
        know_classes(_run(module, inputs))
        exported, inputs = _export(module, inputs, dynamic_shapes)
        program = program_from(exported, inputs)
        _check_same(type(module).__name__, program, inputs, _run(module, inputs))
        program.lost_in_capture = lost_in_capture(module, exported.graph, partial(_export_as_is, module, inputs))
    program.origin = fingerprint(module.state_dict())
    return program


def _run(module: nn.Module, inputs: Inputs) -> Any:
    """Run the network; its buffers, the inputs and torch's random state stay as they are."""
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
    """Export with the batch dynamic, or fixed where the network fixes it; returns the inputs that were used too."""

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
            return _export_as_is(module, example, shapes), example
        except Exception as error:  # noqa: BLE001 - torch.export raises many types; the first is raised below
            failure = failure or error
    assert failure is not None
    raise export_failure(type(module).__name__, failure) from failure


def _export_as_is(module: nn.Module, inputs: Inputs, shapes: Any = None) -> ExportedProgram:
    """Export a module in its mode, with torch silent, which logs a traceback and prints a graph for every failure."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return torch.export.export(module, *inputs, dynamic_shapes=shapes, strict=False)
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
    """Refuse a graph that computes something else than the network, which no later check would notice."""
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
