"""Runs of a network that leave it as it was, and comparison of what two runs give."""

from typing import Any

import torch
from torch import Tensor, nn

from prunec.passes.dimensions import input_tensors
from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.tensors import Inputs, copied, copied_inputs

#: Largest max|a-b| / max|b| at which the captured graph and the network count as the same function.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_TOLERANCE_BELOW_FLOAT32 = 5e-2


def run(module: nn.Module, inputs: Inputs) -> Any:
    """Run a network; its buffers, the inputs and torch's random state stay as they are.

    Raises:
        UnsupportedModelError: It doesn't run on these inputs.
    """
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


def gives(module: nn.Module, inputs: Inputs, outputs: Any) -> bool:
    """Whether a graph gives, up to rounding, what a network gave for these inputs.

    Raises:
        UnsupportedModelError: It doesn't run on them.
    """
    actual, expected = input_tensors(run(module, inputs)), input_tensors(outputs)
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
