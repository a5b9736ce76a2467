"""Giving inputs to a network: as data hold them, bound to its arguments; or drawn by its description.

Data give the inputs of a batch as a tensor, a tuple of tensors in the network's order, or tensors by its inputs' names.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor
from torch.fx import Graph
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from prunec.passes.errors import InputError, did_you_mean, first_line
from prunec.passes.network_inputs import NetworkInput, VaryingSize
from prunec.passes.program import Program
from prunec.passes.tensors import Inputs

Given = TypeVar("Given")
#: What torch says of an index that leads out of a table.
_OUT_OF_TABLE = re.compile(r"out of (range|bounds)|Class values must be")
#: The inputs of a batch, samples along the first axis of every tensor.
BatchInputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def sample_count(inputs: BatchInputs) -> int:
    """The number of samples of a batch."""
    return len(pytree.tree_leaves(inputs)[0])


def mapped(function: Callable[[Tensor], Tensor], inputs: Any) -> Any:
    """The inputs with a function applied to each tensor."""
    return pytree.tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, inputs)


def part_of(inputs: Any, chosen: slice | Tensor) -> Any:
    """Some samples of a batch: a slice of them, or those at some positions."""
    return mapped(lambda tensor: tensor[chosen] if tensor.ndim else tensor, inputs)


def on(inputs: Any, device: torch.device) -> Any:
    """A batch on a device."""
    return mapped(lambda tensor: tensor.to(device), inputs)


def joined(batches: Sequence[Any]) -> Any:
    """Several batches as one.

    Raises:
        RuntimeError: Their shapes don't fit; ValueError where their structures don't.
    """
    if isinstance(batches[0], Tensor):
        return torch.cat(list(batches))
    return pytree.tree_map(lambda *tensors: torch.cat(tensors), *batches)


def chunked(inputs: Any, count: int) -> list[Any]:
    """A batch in parts, as `torch.chunk` makes them."""
    size = -(-sample_count(inputs) // count)
    return [part_of(inputs, slice(start, start + size)) for start in range(0, sample_count(inputs), size)]


def bound(program: Program, inputs: BatchInputs) -> Inputs:
    """Inputs of a batch as the arguments of a program, positional and keyword ones.

    Raises:
        InputError: Inputs are missing, or there are others than the network takes.
    """
    tensors = iter(arranged(program.inputs, inputs))
    leaves, structure = pytree.tree_flatten((program.example_args, program.example_kwargs))
    args, kwargs = pytree.tree_unflatten(
        [typed(next(tensors), leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure
    )
    return args, kwargs


def feed(program: Program, inputs: BatchInputs) -> Any:
    """The outputs of a program for a batch; for errors see `bound` and `values_of_data`."""
    args, kwargs = bound(program, inputs)
    with values_of_data(inputs):
        return program(*args, **kwargs)


@contextmanager
def values_of_data(inputs: BatchInputs) -> Iterator[None]:
    """Tell of a run of a network on these inputs, of the right shapes and types, where they lead out of a table.

    Raises:
        InputError: They do, as ids of another vocabulary.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if not _OUT_OF_TABLE.search(str(error)):
            raise
        named = inputs.items() if isinstance(inputs, dict) else enumerate(pytree.tree_leaves(inputs))
        whole = [(name, each) for name, each in named if each.numel() and not each.is_floating_point()]
        ranges = ", ".join(f"input {name!r} {each.min().item()} to {each.max().item()}" for name, each in whole)
        raise InputError(
            f"The network can't take values of the data: {first_line(error)}.{' They hold in ' * bool(ranges)}{ranges}"
            f"{'.' * bool(ranges)}",
            hint="Ids count from 0, and there are as many as the table has rows that they are looked up in: check that "
            "the data are of the network's vocabulary.",
        ) from error


def runner(program: Program) -> Callable[[BatchInputs], Any]:
    """A function that runs a program on a batch (`feed`)."""
    return partial(feed, program)


def flat_inputs(graph: Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Inputs of a program in the order of its graph's placeholders, as an `Interpreter` takes them."""
    layout: Any = graph._codegen.pytree_info  # type: ignore[attr-defined]
    given = dict(zip(layout.orig_args, args, strict=False)) | kwargs
    count = layout.in_spec.children()[0].num_children
    positional = tuple(given.pop(name) for name in layout.orig_args[:count])
    return list(fx_pytree.tree_flatten_spec((positional, given), layout.in_spec))


def arranged(described: Sequence[NetworkInput], inputs: BatchInputs) -> list[Tensor]:
    """The tensors of a batch in the order of a network's inputs, with ones for optional inputs that aren't given.

    Raises:
        InputError: Inputs are missing, or there are others than the network takes.
    """
    given = matched(described, (inputs,) if isinstance(inputs, Tensor) else inputs)
    if all(tensor is not None for tensor in given):
        return given  # type: ignore[return-value]
    samples = next(len(tensor) for tensor in given if tensor is not None)
    sizes: dict[str, int] = {}
    for each, tensor in zip(described, given, strict=True):
        if tensor is not None:
            sizes |= {size.name: tensor.shape[axis] for axis, size in each.varying.items()}
    return [
        ones(each, samples, sizes) if tensor is None else tensor for each, tensor in zip(described, given, strict=True)
    ]


def matched(described: Sequence[NetworkInput], given: Mapping[str, Given] | tuple[Given, ...]) -> list[Given | None]:
    """What is given for each of a network's inputs, by name or in their order; None for optional ones that aren't.

    Raises:
        InputError: Something is missing, or there is something else.
    """
    return _by_name(described, given) if isinstance(given, Mapping) else _by_position(described, given)


def _by_name(described: Sequence[NetworkInput], inputs: Mapping[str, Given]) -> list[Given | None]:
    names = [each.name for each in described]
    for name in inputs:
        if name not in names:
            raise InputError(
                f"The data give an input {name!r}, which the network has not.", hint=did_you_mean(name, names)
            )
    for each in described:
        if each.name not in inputs and not each.optional:
            raise InputError(
                f"The data give no input {each.name!r}, only {', '.join(inputs)}.",
                hint="A sample is (inputs, label); inputs are a tensor, a tuple, or a dict by the network's names.",
            )
    return [inputs.get(name) for name in names]


def _by_position(described: Sequence[NetworkInput], inputs: tuple[Given, ...]) -> list[Given | None]:
    if len(inputs) == len(described):
        return list(inputs)
    required = [each.name for each in described if not each.optional]
    if len(inputs) != len(required):
        raise InputError(
            f"The data give {len(inputs)} input{'s' * (len(inputs) != 1)}, and the network takes {len(described)}: "
            f"{', '.join(each.name for each in described)}.",
            hint="Give them by name, as a dict, or describe them under [model] inputs in prunec.toml.",
        )
    left = iter(inputs)
    return [None if each.optional else next(left) for each in described]


def typed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers in the type of whole numbers that a network takes, and others in its type of others."""
    is_same_kind = tensor.is_floating_point() == dtype.is_floating_point
    return tensor.to(dtype) if is_same_kind and tensor.dtype != dtype else tensor


def torch_dtype(described: NetworkInput) -> torch.dtype:
    """The type of an input."""
    dtype = getattr(torch, described.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def full_shape(described: NetworkInput, samples: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a batch of an input; varying sizes that aren't given are those of an example."""

    def size_of(size: int | VaryingSize) -> int:
        return size if isinstance(size, int) else sizes.get(size.name, size.example)

    return ((samples,) if described.has_batch else ()) + tuple(map(size_of, described.shape))


def ones(described: NetworkInput, samples: int, sizes: Mapping[str, int]) -> Tensor:
    """What stands for an optional input that isn't given."""
    return torch.ones(full_shape(described, samples, sizes), dtype=torch_dtype(described))


def drawn(described: NetworkInput, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Random values of an input: in its range, else standard normal ones, or 0 and 1 where it holds whole numbers."""
    dtype = torch_dtype(described)
    low, high = described.low, described.high
    if described.is_whole:
        least, bound_ = (0, 2) if low is None or high is None else (int(low), int(high))
        last = 1 if bound_ == 2**63 else 0  # which randint can't take as its bound
        return torch.randint(least, bound_ - last, shape, generator=generator).to(dtype)
    if low is None or high is None:
        return torch.randn(shape, generator=generator).to(dtype)
    return (low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)
