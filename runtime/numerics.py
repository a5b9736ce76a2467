"""Numeric comparison of an exported model or an engine with the program that it comes from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.passes.dimensions import batch_size
from prunec.passes.discrete import numbers_of_things
from prunec.passes.feeding import drawn
from prunec.passes.network_inputs import NetworkInput, VaryingSize, varying_sizes
from prunec.passes.oracle import relative_errors
from prunec.passes.outputs import OutputForm
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import input_grids, is_quantized
from prunec.passes.tensors import Inputs
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.evaluate import Predict
from prunec.runtime.grid_comparison import difference_between_grids

#: Batch sizes at which an exported model is compared.
_BATCHES = (2, 3)


def random_inputs(
    program: Program, batch: int, seed: int, sizes: Mapping[str, int] | None = None
) -> list[NDArray[np.generic]]:
    """Random inputs of a program, in their order.

    Values lie in the range that is known of an input. Without one, floating-point inputs are standard normal, as far
    as the grid goes that an input is put on; others, and those that are numbers of things, repeat the rows of the
    program's example inputs.

    Args:
        program: The program.
        batch: Number of rows of inputs whose dimension 0 varies.
        seed: Seed of the values.
        sizes: Sizes of other dimensions that vary, by name; by default those of the example inputs.
    """
    generator, samples = torch.Generator().manual_seed(seed), batch_size(program.example_inputs)
    grids = input_grids(program.graph)
    varying = [0 in dims for dims in program.dynamic_shapes or [{}] * len(program.example_inputs)]

    def make(each: NetworkInput, example: Tensor, varies: bool, is_discrete: bool) -> NDArray[np.generic]:
        shape: list[int] = list(example.shape)
        if varies and each.has_batch:
            shape[0] = len(example) * batch // samples
        for axis, size in each.varying.items():
            shape[axis] = (sizes or {}).get(size.name, shape[axis])
        has_range, is_real = each.low is not None, example.is_floating_point() and not is_discrete
        if has_range or (is_real and example.ndim):
            values = drawn(each, tuple(shape), generator)
            if (grid := grids.get(each.name)) is not None:
                values = values.clamp(grid.range.low, grid.range.high)
            return values.to(example.dtype).numpy()
        for axis, count in enumerate(shape):
            example = example.index_select(axis, torch.arange(count) % max(example.shape[axis], 1))
        return example.numpy()

    kinds = zip(program.inputs, program.example_inputs, varying, numbers_of_things(program), strict=True)
    return [make(*kind) for kind in kinds]


def other_sizes(program: Program) -> dict[str, int]:
    """For each dimension beside the batch that varies another size than that of the examples, where it may have one."""

    def other(size: VaryingSize) -> int:
        return next((s for s in (size.example + 1, size.example - 1) if s > 1 and size.takes(s)), size.example)

    return {name: other(size) for name, size in varying_sizes(program.inputs).items()}


def batch_sizes(program: Program, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes given, each brought within the bounds of the batch, or the only one at which a program runs."""
    if not program.batch_is_dynamic:
        return (len(program.example_inputs[0]),)
    least, most = program.batch_bounds
    return tuple(dict.fromkeys(max(size, least) if most is None else min(max(size, least), most) for size in sizes))


@torch.no_grad()
def onnx_vs_torch(program: Program, onnx_path: Path, seed: int = 0) -> float:
    """Largest relative difference of ONNX Runtime from torch over the outputs, at batch sizes 2 and 3.

    A quantized program is run as its file has it, in floating point between its grids, and compared from grid to grid
    (`grid_comparison`): what kernels of whole numbers make of it is compared under the tolerance of its engine.

    Raises:
        NumericMismatchError: The causes are those of `difference_from_torch`, or the file has other grids.
        NativeCrashError: ONNX Runtime dies.
    """
    if is_quantized(program.graph):
        drawn_inputs = [
            random_inputs(program, batch, seed, other_sizes(program) if number else None)
            for number, batch in enumerate(batch_sizes(program, _BATCHES))
        ]
        return difference_between_grids(
            program, onnx_path, [(arrays, as_arguments(program, arrays)) for arrays in drawn_inputs]
        )
    with open_onnx(onnx_path) as session:
        return difference_from_torch(session, program, _BATCHES, seed)


def difference_from_torch(session: Predict, program: Program, batches: tuple[int, ...], seed: int) -> float:
    """Largest of the `differences_by_output`."""
    return max(differences_by_output(session, program, batches, seed).values())


@torch.no_grad()
def differences_by_output(
    session: Predict, program: Program, batches: tuple[int, ...], seed: int, drawn_for: Program | None = None
) -> dict[str, float]:
    """Largest relative difference of an engine from torch, by the name of the output.

    Dimensions beside the batch that vary have the sizes of the example inputs first, then others.

    Args:
        session: The engine; it takes and gives arrays in the order of the program's inputs and outputs.
        program: The program, which is run in its inference form.
        batches: Batch sizes to try; a program with a fixed batch is run at that one instead.
        seed: Seed of the random inputs.
        drawn_for: The program whose `random_inputs` they are, where that is another form of it.

    Returns:
        max|a-b| / max|b|.

    Raises:
        NumericMismatchError: Outputs are not finite, or all but zero.
    """
    worst: dict[str, float] = {}
    for number, batch in enumerate(batch_sizes(program, batches)):
        inputs = random_inputs(drawn_for or program, batch, seed, other_sizes(program) if number else None)
        args, kwargs = as_arguments(program, inputs)
        expected = program.eval()(*args, **kwargs)
        actual = OutputForm.of(program.graph).of_arrays(session(*inputs))
        errors = relative_errors(actual, expected)
        names = program.output_names if len(program.output_names) == len(errors) else map(str, range(len(errors)))
        worst = {name: max(error, worst.get(name, 0.0)) for name, error in zip(names, errors, strict=True)}
    return worst


def as_arguments(program: Program, arrays: Sequence[NDArray[Any]]) -> Inputs:
    """Arrays in the order of a program's inputs as its arguments, positional and keyword ones."""
    leaves, structure = pytree.tree_flatten((program.example_args, program.example_kwargs))
    tensors = iter(torch.from_numpy(np.asarray(array)) for array in arrays)
    filled = [next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(filled, structure)
    return args, kwargs
