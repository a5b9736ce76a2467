"""Capture of a network as a `Program`: export, comparison with the network, and what was lost on the way."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunec.passes.dimensions import batch_size, input_tensors
from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.exporting import Export, export_as_is, export_network, one_sample
from prunec.passes.module_copy import Copies, unwrapped
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
        module: Any network that ``torch.export`` can trace; DataParallel and ``torch.compile`` around it are taken off.
        args: Example inputs. A batch of 1 is repeated to 2, since exporting with 1 fixes it.
        kwargs: Example keyword inputs.
        dynamic_shapes: The dimensions that may vary, in the form of ``torch.export.export``; by default dimension 0
            of every input that has as many samples as the first, as far as the network lets it vary:
            ``Program.batch_is_dynamic`` and ``batch_bounds`` tell how far, ``capture_notes`` what fixes or bounds it.

    Raises:
        UnsupportedModelError: The network doesn't run on these inputs, can't be exported, or its graph computes
            something else (a network that draws random numbers in eval mode by other means than torch).
    """
    module = unwrapped(module)
    with _quiet_export(module):
        program, copies, export = _captured(module, copied_inputs((tuple(args), dict(kwargs or {}))), dynamic_shapes)
        program.lost_in_capture = lost_in_capture(
            module, export.exported.graph, lambda: export_as_is(copies.to_trace(*export.inputs).train(), export.inputs)
        )
    program.origin = fingerprint(module.state_dict())
    return program


def capture_to_run(module: nn.Module, inputs: Inputs, dynamic_shapes: Any) -> Program:
    """Capture a network that is only run: what its graph lacks for a training isn't looked for; see `capture`."""
    module = unwrapped(module)
    with _quiet_export(module):
        return _captured(module, copied_inputs(inputs), dynamic_shapes)[0]


def _captured(module: nn.Module, example: Inputs, dynamic_shapes: Any) -> tuple[Program, Copies, Export]:
    """The program, copies of the network, and what it was exported as."""
    copies = Copies(module)
    reference = _reference(copies, example)
    know_classes(reference.outputs)
    export = export_network(copies, example, dynamic_shapes, lambda inputs: _run(copies.to_run(), inputs))
    program = program_from(export.exported, export.inputs)
    if copies.note:  # the tensors are the network's own
        program = program.with_tensors(copied(program.tensors()))
    program.capture_notes = tuple(filter(None, (copies.note, *export.notes, *_compared(copies, program, reference))))
    return program, copies, export


@contextmanager
def _quiet_export(module: nn.Module) -> Iterator[None]:
    """Export with the module's modes kept, without compiling, and with Python's collector at rest."""
    with kept_modes(module), torch.compiler.set_stance("force_eager"), _collector_at_rest():
        yield


@dataclass(frozen=True)
class _Reference:
    """What a network gives for some inputs."""

    inputs: Inputs
    outputs: Any


def _reference(copies: Copies, example: Inputs) -> _Reference:
    """Run a network on the first sample, or on all of the example where it doesn't run on one."""
    single = one_sample(example)
    try:
        return _Reference(single, _run(copies.to_run(), single))
    except UnsupportedModelError:  # raised again if it doesn't run on the example either
        return _Reference(example, _run(copies.to_run(), example))


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep Python's collector from looking through the many objects of a trace again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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


def _compared(copies: Copies, program: Program, reference: _Reference) -> tuple[str, ...]:
    """Compare a captured graph with the network; no later check would notice that it computes something else.

    Returns:
        What there is to say of a network that does something else with one sample than with several.

    Raises:
        UnsupportedModelError: The graph computes something else than the network.
    """
    inputs: Inputs = (program.example_args, program.example_kwargs)
    if program.batch_is_dynamic:
        with suppress(UnsupportedModelError):  # which says more of the example
            if _gives(program, reference):
                return ()
    if not _gives(program, _Reference(inputs, _run(copies.to_run(), inputs))):
        raise UnsupportedModelError(
            f"The captured graph of {copies.name} computes something else than the network does on the example input.",
            hint="Random numbers or state outside torch in forward() are the usual cause.",
        )
    if not program.batch_is_dynamic or batch_size(input_tensors(reference.inputs)) != 1:
        return ()
    return (f"{copies.name} does something else with one sample than with several, as which it was captured.",)


def _gives(program: Program, reference: _Reference) -> bool:
    """Whether a captured graph gives what the network does."""
    actual, expected = input_tensors(_run(program.module, reference.inputs)), input_tensors(reference.outputs)
    return len(actual) == len(expected) and all(map(_is_close, actual, expected))


def _is_close(actual: Tensor, expected: Tensor) -> bool:
    if actual.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(actual, expected)
    tolerance = _TOLERANCE.get(expected.dtype, _TOLERANCE_BELOW_FLOAT32)
    finite = expected[expected.isfinite()]
    scale = finite.abs().max().item() if len(finite) else 1.0
    return torch.allclose(actual.to(expected.dtype), expected, rtol=0, atol=tolerance * scale, equal_nan=True)
