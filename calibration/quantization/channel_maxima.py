"""The largest magnitude of every channel behind layer norms, which smoothing goes by."""

from collections.abc import Iterable

import torch
from torch import Tensor

from prunec.calibration.quantization.quantized_layers import LAYER_BATCH
from prunec.calibration.reconstruction import in_batches
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.feeding import BatchInputs
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.passes.quantization.smoothing import smoothable


@torch.no_grad()
def channel_maxima(program: Program, batches: Iterable[BatchInputs]) -> dict[str, Tensor]:
    """The largest magnitudes on data, (channels,), of what the readers of `smoothable` channels read, by node.

    Args:
        program: The program, in its inference form.
        batches: Preprocessed inputs of the network, in batches of at least as many as it takes at once.

    Raises:
        UsageError: There are no inputs, or fewer than the network takes at once.
        NumericMismatchError: A value is not finite.
    """
    axes = {reader.source: reader.axis for group in smoothable(program) for reader in group.readers}
    maxima: dict[str, Tensor] = {}
    for run in (run for inputs in batches for run in in_batches(program, inputs, LAYER_BATCH)):
        for node in stoppable(program.graph.nodes):
            run.step(node)
            if node.name in axes:
                largest = run.env[node].abs().movedim(axes[node.name], 0).flatten(1).amax(1)
                if not largest.isfinite().all():
                    raise NumericMismatchError(f"The value of {node.name} is not finite on the calibration data.")
                maxima[node.name] = torch.maximum(largest, maxima.get(node.name, largest))
    if axes and not maxima:
        raise UsageError("Smoothing needs inputs of the network, and the data gave fewer than it takes at once.")
    return maxima
