"""Capture of a network as a `Program`: export, comparison with the network, and what was lost on the way."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunec.passes.dimensions import batch_size, input_tensors
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.exporting import Export, export_network, one_sample
from prunec.passes.module_copy import Copies, unwrapped
from prunec.passes.outputs import know_classes
from prunec.passes.program import Program, program_from
from prunec.passes.running import gives, run
from prunec.passes.tensors import CPU, Inputs, copied, copied_inputs
from prunec.passes.torch_export import export_as_is
from prunec.passes.training import kept_modes, lost_in_capture


def capture(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, dynamic_shapes: Any = None
) -> Program:
    """Capture a network as it runs in eval mode. The module itself is left as it was; tensors are copied.

    Args:
        module: Any network that ``torch.export`` can trace, on any device; DataParallel and ``torch.compile`` around it
            are taken off. The program is on the CPU.
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
        program, copies, export = _captured(
            module, copied_inputs((tuple(args), dict(kwargs or {})), CPU), dynamic_shapes
        )
        program.lost_in_capture = lost_in_capture(
            module, export.own_graph, lambda: export_as_is(copies.to_trace(*export.inputs).train(), export.inputs)
        )
    return program


def capture_to_run(module: nn.Module, inputs: Inputs) -> Program:
    """Capture a network that only runs on these inputs: nothing varies, and no form for training is looked for.

    For errors see `capture`.
    """
    module = unwrapped(module)
    with _quiet_export(module):
        return _captured(module, copied_inputs(inputs, CPU), {})[0]


def _captured(module: nn.Module, example: Inputs, dynamic_shapes: Any) -> tuple[Program, Copies, Export]:
    """The program, copies of the network, and what it was exported as."""
    copies = Copies(module)
    reference = _reference(copies, example)
    know_classes(reference.outputs)
    export = export_network(copies, example, dynamic_shapes)
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
        return _Reference(single, run(copies.to_run(), single))
    except UnsupportedModelError:  # raised again if it doesn't run on the example either
        return _Reference(example, run(copies.to_run(), example))


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
            if gives(program.module, reference.inputs, reference.outputs):
                return ()
    if not gives(program.module, inputs, run(copies.to_run(), inputs)):
        raise UnsupportedModelError(
            f"The captured graph of {copies.name} computes something else than the network does on the example input.",
            hint="Random numbers or state outside torch in forward() are the usual cause.",
        )
    if not program.batch_is_dynamic or batch_size(input_tensors(reference.inputs)) != 1:
        return ()
    return (f"{copies.name} does something else with one sample than with several, as which it was captured.",)
