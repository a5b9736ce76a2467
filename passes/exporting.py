"""Export of a network by ``torch.export``, with a batch that varies as far as the network lets it."""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from prunec.passes.batch_limits import BatchLimits, batch_limits, users_lines
from prunec.passes.dimensions import batch_size, dynamic_batch, input_tensors, specification
from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.export_failure import export_failure
from prunec.passes.module_copy import Copies
from prunec.passes.silence import without_logging
from prunec.passes.tensors import Inputs


@dataclass(frozen=True)
class Export:
    """An exported network, the inputs that it was exported with, and what there is to say about its batch."""

    exported: ExportedProgram
    inputs: Inputs
    notes: tuple[str, ...] = ()


def export_network(copies: Copies, inputs: Inputs, dynamic_shapes: Any, run: Callable[[Inputs], Any]) -> Export:
    """Export a network: with any batch, else within the bounds that it sets, else with the batch of the inputs.

    A network that runs on one sample only is exported with the first of the inputs.

    Args:
        copies: Copies of the network.
        inputs: Example inputs; a batch of 1 is repeated to 2, since exporting with 1 fixes it.
        dynamic_shapes: The dimensions that may vary, as ``torch.export.export`` wants them; None for the batch.
        run: Runs a copy of the network.

    Raises:
        UnsupportedModelError: The network doesn't run on the inputs, or can't be exported.
    """
    if dynamic_shapes is not None:
        try:
            module = copies.to_trace(*inputs)
            return Export(export_as_is(module, inputs, copies.shapes_to_trace(*inputs, dynamic_shapes)), inputs)
        except Exception as error:
            run(inputs)
            raise export_failure(copies.name, error) from error
    repeated = _with_samples(inputs, 2) if _single_batch(inputs) else inputs
    try:
        return Export(_with_batch(copies, repeated, Dim("batch")), repeated)
    except Exception as error:  # noqa: BLE001 - torch.export raises many types; the first is raised below
        failure = error
    limits = batch_limits(failure)
    if limits.sizes is not None and (bounded := _within(copies, repeated, limits, limits.sizes)):
        return bounded
    example, why = _runnable(inputs, repeated, limits.why, run)
    try:
        exported = export_as_is(copies.to_trace(*example), example)
    except Exception:  # noqa: BLE001 - the first failure says more
        raise export_failure(copies.name, failure) from failure
    size = batch_size(input_tensors(example))
    note = f"The batch stays at {size}, with which the network was captured. What fixes it: {why}."
    return Export(exported, example, (note,) if input_tensors(example) else ())


def export_as_is(module: nn.Module, inputs: Inputs, shapes: Any = None) -> ExportedProgram:
    """Export a module in its mode, with torch silent, which logs a traceback and prints a graph for every failure."""
    with without_logging(), warnings.catch_warnings(), redirect_stderr(io.StringIO()), users_lines():
        warnings.simplefilter("ignore")
        return torch.export.export(module, *inputs, dynamic_shapes=shapes, strict=False)


def one_sample(inputs: Inputs) -> Inputs:
    """The first sample of example inputs."""
    single: Inputs = _with_samples(inputs, 1)
    return single


def _with_batch(copies: Copies, inputs: Inputs, batch: Dim) -> ExportedProgram:
    module = copies.to_trace(*inputs)
    return export_as_is(module, inputs, specification(module, *inputs, dynamic_batch(input_tensors(inputs), batch)))


def _within(copies: Copies, inputs: Inputs, limits: BatchLimits, sizes: tuple[int, int | None]) -> Export | None:
    """Export with a batch that varies within bounds; None where there is more to it, and the batch is to be fixed."""
    least, most = sizes
    batch = Dim("batch", min=least if least > 2 else None, max=most)
    try:
        exported = _with_batch(copies, inputs, batch)
    except Exception:  # noqa: BLE001 - torch.export raises many types; with a fixed batch it may do
        return None
    allowed = f"{least if least > 2 else 1} to {most} samples" if most is not None else f"at least {least} samples"
    return Export(exported, inputs, (f"The batch may have {allowed}. What bounds it: {limits.why}.",))


def _runnable(inputs: Inputs, repeated: Inputs, why: str, run: Callable[[Inputs], Any]) -> tuple[Inputs, str]:
    """The example to export with a fixed batch, and what fixes it: the first one sample where only that runs."""
    try:
        run(repeated)
    except UnsupportedModelError as error:
        single = one_sample(inputs)
        if batch_size(input_tensors(repeated)) == 1:
            raise
        try:
            run(single)
        except UnsupportedModelError:
            raise error from error.__cause__
        return single, f"with {batch_size(input_tensors(repeated))} samples it fails ({first_line(error.__cause__)})"
    return inputs, why


def _single_batch(inputs: Inputs) -> bool:
    """Whether every input is one sample."""
    tensors = [tensor for tensor in input_tensors(inputs) if tensor.ndim]
    return bool(tensors) and all(tensor.shape[0] == 1 for tensor in tensors)


def _with_samples(inputs: Inputs, samples: int) -> Any:
    """Example inputs with so many samples, the first of which is theirs; what has no batch stays as it is."""
    size = batch_size(input_tensors(inputs))

    def cut(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == size):
            return leaf
        return leaf[:samples] if samples <= size else torch.cat([leaf] * samples)

    return pytree.tree_map(cut, inputs)
