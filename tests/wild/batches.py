"""A batch of three: the inputs, and the rows that must come of it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.passes.dimensions import batch_size, input_tensors
from prunec.passes.oracle import relative_error
from prunec.passes.program import Program
from prunec.passes.tensors import Inputs
from tests.network_checks import FLOAT32
from tests.wild.subject import Subject, outputs


def check_batch(subject: Subject, dense: Program, program: Program) -> float:
    """A batch of three, whose third sample is the first one again, gives the rows that the batch of two gives.

    Where samples act on each other in the network itself, its rows at three are what the dense program must give, and
    the pruned one has to run.

    Returns:
        The largest relative difference.
    """
    notes = " ".join(program.capture_notes) or "nothing is said of the reason"
    assert program.batch_is_dynamic, f"the batch is fixed: {notes}"
    example, longer = (program.example_args, program.example_kwargs), with_first_again(program)
    error = _row_error(program, example, longer)
    if error >= FLOAT32 and _row_error(subject.module(), example, longer) >= FLOAT32:
        error = relative_error(outputs(dense, longer), outputs(subject.module(), longer))
    assert error < FLOAT32, f"a batch of three gives other rows than a batch of two, by {error:.2g}"
    return error


def _row_error(network: Callable[..., Any], example: Inputs, longer: Inputs) -> float:
    two, three = input_tensors(outputs(network, example)), input_tensors(outputs(network, longer))
    return relative_error(three, expected_rows(two, three))


def with_first_again(program: Program) -> Inputs:
    """The example inputs of a program, a batch of two, with the first sample again as the third."""
    samples = batch_size(program.example_inputs)
    assert samples == 2, f"the example has {samples} samples"
    dims = iter(program.dynamic_shapes or ())
    leaves, structure = pytree.tree_flatten((program.example_args, program.example_kwargs))
    longer = [_lengthened(leaf, [0]) if isinstance(leaf, Tensor) and 0 in next(dims) else leaf for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(longer, structure)
    return args, kwargs


def expected_rows(two: list[Tensor], three: list[Tensor]) -> list[Tensor]:
    """The outputs for such a batch of three, from those of the batch of two, along every axis that got longer."""
    axes = [
        [axis for axis, sizes in enumerate(zip(a.shape, b.shape, strict=True)) if sizes[0] != sizes[1]]
        for a, b in zip(two, three, strict=True)
    ]
    assert any(axes), "no output has more rows for more samples"
    return [_lengthened(tensor, longer) for tensor, longer in zip(two, axes, strict=True)]


def _lengthened(tensor: Tensor, axes: list[int]) -> Tensor:
    """A tensor with the first half along each of some axes again at its end."""
    for axis in axes:
        tensor = torch.cat([tensor, tensor.narrow(axis, 0, tensor.shape[axis] // 2)], axis)
    return tensor
