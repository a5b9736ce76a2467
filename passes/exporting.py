"""Export of a network by ``torch.export``, with a batch that varies as far as the network lets it."""

from dataclasses import dataclass
from typing import Any

from torch.export import Dim, ExportedProgram
from torch.fx import Graph

from prunec.passes.batch_by_comparison import export_by_comparison
from prunec.passes.batch_limits import BatchLimits, batch_limits
from prunec.passes.dimensions import batch_size, input_tensors, with_samples
from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.export_failure import export_failure
from prunec.passes.module_copy import Copies
from prunec.passes.running import run
from prunec.passes.tensors import Inputs
from prunec.passes.torch_export import export_as_is, export_with_batch


@dataclass(frozen=True)
class Export:
    """An exported network.

    Attributes:
        exported: The network as it was exported.
        inputs: The inputs that it was exported with.
        notes: What there is to say about its batch.
        traced: The graph of the network's own code where the exported one was made of several.
    """

    exported: ExportedProgram
    inputs: Inputs
    notes: tuple[str, ...] = ()
    traced: Graph | None = None

    @property
    def own_graph(self) -> Graph:
        """The graph of the network's own code, with regions of other modes still within it."""
        return self.traced or self.exported.graph


def export_network(copies: Copies, inputs: Inputs, dynamic_shapes: Any) -> Export:
    """Export a network: with any batch, else within the bounds that it sets, else with that of the inputs.

    Where its code fixes the batch by turning it into a number, any batch is tried once more by comparing two exports.
    A network that runs on one sample only is exported with the first of the inputs.

    Args:
        copies: Copies of the network.
        inputs: Example inputs; a batch of 1 is repeated to 2, since exporting with 1 fixes it.
        dynamic_shapes: The dimensions that may vary, as ``torch.export.export`` wants them; None for the batch.

    Raises:
        UnsupportedModelError: The network doesn't run on the inputs, or can't be exported.
    """
    if dynamic_shapes is not None:
        try:
            module = copies.to_trace(*inputs)
            return Export(export_as_is(module, inputs, copies.shapes_to_trace(*inputs, dynamic_shapes)), inputs)
        except Exception as error:
            run(copies.to_run(), inputs)
            raise export_failure(copies.name, error) from error
    repeated = with_samples(inputs, 2) if _single_batch(inputs) else inputs
    try:
        return Export(export_with_batch(copies.to_trace(*repeated), repeated, Dim("batch")), repeated)
    except Exception as error:  # noqa: BLE001 - torch.export raises many types; the first is raised below
        failure = error
    limits = batch_limits(failure)
    if limits.sizes is not None and (bounded := _within(copies, repeated, limits, limits.sizes)):
        return bounded
    if compared := export_by_comparison(copies, repeated):
        note = f"{compared.how} What would have fixed it: {limits.why}."
        return Export(compared.exported, repeated, (note,), compared.traced)
    example, why = _runnable(copies, inputs, repeated, limits.why)
    try:
        exported = export_as_is(copies.to_trace(*example), example)
    except Exception:  # noqa: BLE001 - the first failure says more
        raise export_failure(copies.name, failure) from failure
    size = batch_size(input_tensors(example))
    note = f"The batch stays at {size}, with which the network was captured. What fixes it: {why}."
    return Export(exported, example, (note,) if input_tensors(example) else ())


def one_sample(inputs: Inputs) -> Inputs:
    """The first sample of example inputs."""
    return with_samples(inputs, 1)


def _within(copies: Copies, inputs: Inputs, limits: BatchLimits, sizes: tuple[int, int | None]) -> Export | None:
    """Export with a batch that varies within bounds; None where there is more to it, and the batch is to be fixed."""
    least, most = sizes
    batch = Dim("batch", min=least if least > 2 else None, max=most)
    try:
        exported = export_with_batch(copies.to_trace(*inputs), inputs, batch)
    except Exception:  # noqa: BLE001 - torch.export raises many types; with a fixed batch it may do
        return None
    allowed = f"{least if least > 2 else 1} to {most} samples" if most is not None else f"at least {least} samples"
    return Export(exported, inputs, (f"The batch may have {allowed}. What bounds it: {limits.why}.",))


def _runnable(copies: Copies, inputs: Inputs, repeated: Inputs, why: str) -> tuple[Inputs, str]:
    """The example to export with a fixed batch, and what fixes it: the first one sample where only that runs."""
    try:
        run(copies.to_run(), repeated)
    except UnsupportedModelError as error:
        single = one_sample(inputs)
        if batch_size(input_tensors(repeated)) == 1:
            raise
        try:
            run(copies.to_run(), single)
        except UnsupportedModelError:
            raise error from error.__cause__
        return single, f"with {batch_size(input_tensors(repeated))} samples it fails ({first_line(error.__cause__)})"
    return inputs, why


def _single_batch(inputs: Inputs) -> bool:
    """Whether every input is one sample."""
    tensors = [tensor for tensor in input_tensors(inputs) if tensor.ndim]
    return bool(tensors) and all(tensor.shape[0] == 1 for tensor in tensors)
