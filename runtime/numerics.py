"""Numeric comparison of an exported model or an engine with the program that it comes from."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.passes.dimensions import batch_size
from prunec.passes.discrete import numbers_of_things
from prunec.passes.oracle import relative_error
from prunec.passes.program import Program
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.evaluate import Predict


def random_inputs(program: Program, batch: int, seed: int) -> list[NDArray[np.generic]]:
    """Random inputs of a program, in their order; those whose dimension 0 varies have ``batch`` rows.

    Floating-point inputs are standard normal; others, and those that are numbers of things, repeat the rows of the
    program's example inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = batch_size(program.example_inputs)

    def make(example: Tensor, varies: bool, is_discrete: bool) -> NDArray[np.generic]:
        if example.ndim == 0:
            return example.numpy()
        rows = len(example) * batch // samples if varies else len(example)
        if example.is_floating_point() and not is_discrete:
            return torch.randn(rows, *example.shape[1:], generator=generator).to(example.dtype).numpy()
        return example[torch.arange(rows) % len(example)].numpy()

    varying = [0 in dims for dims in program.dynamic_shapes or [{}] * len(program.example_inputs)]
    kinds = zip(program.example_inputs, varying, numbers_of_things(program), strict=True)
    return [make(*kind) for kind in kinds]


def batch_sizes(program: Program, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes given, each brought within the bounds of the batch, or the only one at which a program runs."""
    if not program.batch_is_dynamic:
        return (len(program.example_inputs[0]),)
    least, most = program.batch_bounds
    return tuple(dict.fromkeys(max(size, least) if most is None else min(max(size, least), most) for size in sizes))


def onnx_vs_torch(program: Program, onnx_path: Path, seed: int = 0) -> float:
    """Largest relative difference of ONNX Runtime from torch over the outputs, at batch sizes 2 and 3.

    Raises:
        NumericMismatchError: The causes are those of `difference_from_torch`.
        NativeCrashError: ONNX Runtime dies.
    """
    with open_onnx(onnx_path) as session:
        return difference_from_torch(session, program, (2, 3), seed)


@torch.no_grad()
def difference_from_torch(session: Predict, program: Program, batches: tuple[int, ...], seed: int) -> float:
    """Largest relative difference of an engine from torch over the outputs.

    Args:
        session: The engine; it takes and gives arrays in the order of the program's inputs and outputs.
        program: The program, which is run in its inference form.
        batches: Batch sizes to try; a program with a fixed batch is run at that one instead.
        seed: Seed of the random inputs.

    Returns:
        max|a-b| / max|b|.

    Raises:
        NumericMismatchError: Outputs are not finite, or all but zero.
    """
    leaves, structure = pytree.tree_flatten((program.example_args, program.example_kwargs))
    worst = 0.0
    for batch in batch_sizes(program, batches):
        inputs = random_inputs(program, batch, seed)
        tensors = iter(torch.from_numpy(np.asarray(array)) for array in inputs)
        filled = [next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, structure)
        expected = program.eval()(*args, **kwargs)
        outputs = [leaf for leaf in pytree.tree_leaves(expected) if isinstance(leaf, Tensor)]
        worst = max(worst, relative_error([torch.from_numpy(array) for array in session(*inputs)], outputs))
    return worst
