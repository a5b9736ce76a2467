"""Numeric comparison of an exported model with the program that it comes from."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.passes.dimensions import batch_size
from prunec.passes.oracle import relative_error
from prunec.passes.program import Program
from prunec.runtime.engines.onnxruntime import OnnxRuntimeEngine

max_relative_error = relative_error


def random_inputs(program: Program, batch: int, seed: int) -> list[NDArray[np.generic]]:
    """Inputs of a batch size: standard normal where they are floating point, else the example's, repeated.

    Only inputs whose dimension 0 varies have as many rows.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = batch_size(program.example_inputs)

    def make(example: Tensor, varies: bool) -> NDArray[np.generic]:
        if example.ndim == 0:
            return example.numpy()
        rows = len(example) * batch // samples if varies else len(example)
        if example.is_floating_point():
            return torch.randn(rows, *example.shape[1:], generator=generator).to(example.dtype).numpy()
        return example[torch.arange(rows) % len(example)].numpy()

    varying = [0 in dims for dims in program.dynamic_shapes or [{}] * len(program.example_inputs)]
    return [make(example, varies) for example, varies in zip(program.example_inputs, varying, strict=True)]


def batch_sizes(program: Program, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """These sizes, or the only one at which a program with a fixed batch runs."""
    return sizes if program.batch_is_dynamic else (len(program.example_inputs[0]),)


@torch.no_grad()
def onnx_vs_torch(program: Program, onnx_path: Path, seed: int = 0) -> float:
    """Largest relative difference of ONNX Runtime from torch over the outputs, at batch sizes 2 and 3.

    Args:
        program: run in its inference form, in its own precision.
        onnx_path: the exported model.
        seed: of the random inputs.

    Returns:
        max|a-b| / max|b|.

    Raises:
        NumericMismatchError: outputs are not finite, or all but zero.
    """
    engine = OnnxRuntimeEngine(onnx_path)
    structure = pytree.tree_structure((program.example_args, program.example_kwargs))
    leaves = pytree.tree_leaves((program.example_args, program.example_kwargs))
    worst = 0.0
    for batch in batch_sizes(program, (2, 3)):
        inputs = random_inputs(program, batch, seed)
        tensors = iter(torch.from_numpy(np.asarray(array)) for array in inputs)
        filled = [next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, structure)
        expected = program.eval()(*args, **kwargs)
        actual = [torch.from_numpy(array) for array in engine(*inputs)]
        flat = [leaf for leaf in pytree.tree_leaves(expected) if isinstance(leaf, Tensor)]
        worst = max(worst, relative_error(actual, flat))
    return worst
