"""Example inputs of a network that a project file describes: drawn, or read from files, and bound to ``forward()``."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.export import Dim

from prunec.calibration.arrays import read_npy
from prunec.passes.dimensions import specification
from prunec.passes.errors import InputError, UsageError, did_you_mean
from prunec.passes.feeding import drawn, full_shape, torch_dtype
from prunec.passes.network_inputs import BATCH, NetworkInput, VaryingSize
from prunec.passes.program import Program

_SAMPLES = 2
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class ExampleInputs:
    """What a network is captured with.

    Attributes:
        args: Positional inputs.
        kwargs: Keyword inputs.
        dynamic_shapes: The dimensions that vary, as torch.export takes them; None for the batch alone, where there is
            one.
        inputs: The description of each tensor, in the order of the arguments.
    """

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]
    dynamic_shapes: Any
    inputs: tuple[NetworkInput, ...]


def make_examples(module: nn.Module, described: Sequence[NetworkInput]) -> ExampleInputs:
    """Example inputs of two samples, with one seed for all that is drawn.

    An input is passed by its name, unless it stands in its place among the first arguments of ``forward()``.

    Raises:
        UsageError: The network has no input of a name.
        InputError: An example file can't be read, or holds something else than the description says.
    """
    inputs, tensors = _with_tensors(described)
    args, kwargs = _arguments(module, list(inputs))
    ordered = tuple(inputs[name] for name in (*args, *kwargs))
    positional, named = tuple(tensors[name] for name in args), {name: tensors[name] for name in kwargs}
    shapes = None
    if any(each.varying or not each.has_batch for each in ordered):
        shapes = specification(module, positional, named, tuple(map(_dims, ordered)))
    return ExampleInputs(positional, named, shapes, ordered)


def describe(program: Program, inputs: Sequence[NetworkInput]) -> None:
    """Let a program know what a project file says of its inputs, which are found by name, or else by their order.

    Raises:
        UsageError: It is what a network with other inputs has.
    """
    known = {each.name: each for each in inputs}
    own = [each.name for each in program.inputs]
    chosen = [known[name] for name in own] if set(own) == known.keys() else list(inputs)
    try:
        program.describe_inputs(tuple(replace(each, example="") for each in chosen))
    except ValueError as error:
        raise UsageError(
            f"[model] inputs describes other inputs than the network has: {error}.",
            hint=f"Its inputs are {'; '.join(each.words() for each in program.inputs)}.",
        ) from error


def _with_tensors(described: Sequence[NetworkInput]) -> tuple[dict[str, NetworkInput], dict[str, Tensor]]:
    """Inputs and their examples by name; what files hold decides the sizes that vary."""
    files = {each.name: _read(each) for each in described if each.example}
    sizes: dict[str, int] = {}
    for each in described:
        if each.name in files:
            sizes |= {size.name: files[each.name].shape[axis] for axis, size in each.varying.items()}
    generator = Generator().manual_seed(0)
    tensors = {
        each.name: files[each.name] if each.name in files else drawn(each, full_shape(each, _SAMPLES, sizes), generator)
        for each in described
    }
    return {each.name: replace(each, shape=_sized(each.shape, sizes)) for each in described}, tensors


def _sized(shape: Sequence[int | VaryingSize], sizes: Mapping[str, int]) -> tuple[int | VaryingSize, ...]:
    return tuple(s if isinstance(s, int) else replace(s, example=sizes.get(s.name, s.example)) for s in shape)


def _read(each: NetworkInput) -> Tensor:
    """The first samples in an example file."""
    what = f"The example file {each.example} of the input {each.name!r}"
    array = read_npy(Path(each.example), what)
    sample = array.shape[1:] if each.has_batch else array.shape
    if (each.has_batch and not len(array)) or not each.fits(sample):
        raise InputError(
            f"{what} holds an array {list(array.shape)}, expected {each.words()}.",
            hint="Samples lie along its first dimension.",
        )
    if (array.dtype.kind != "f") != each.is_whole:
        raise InputError(f"{what} holds {array.dtype}, expected {each.dtype}.")
    kept = array[[number % len(array) for number in range(_SAMPLES)]] if each.has_batch else array
    return torch.tensor(kept.tolist(), dtype=torch_dtype(each)).reshape(kept.shape)


def _arguments(module: nn.Module, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of positional and of keyword inputs, as ``forward()`` takes them."""
    parameters = inspect.signature(module.forward).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    own = [name for name, parameter in parameters.items() if parameter.kind in _POSITIONAL]
    if unknown := [name for name in names if name not in parameters]:
        if inspect.Parameter.VAR_KEYWORD not in kinds and inspect.Parameter.VAR_POSITIONAL in kinds:
            return list(names), []
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            raise UsageError(
                f"[model] inputs: {type(module).__name__} takes no input {unknown[0]!r}.",
                hint=did_you_mean(unknown[0], list(parameters)),
            )
    first = next((place for place, name in enumerate(own) if name not in names), len(own))
    rest = [name for name in parameters if name in names and name not in own[:first]]
    return own[:first], [*rest, *(name for name in names if name not in parameters)]


def _dims(each: NetworkInput) -> dict[int, Dim]:
    """The dimensions of an input that vary; torch.export never looks at sizes below 2, and takes no bound there."""
    varying = {
        axis: Dim(size.name, min=size.smallest if size.smallest > 2 else None, max=size.largest)
        for axis, size in each.varying.items()
    }
    return ({0: Dim(BATCH)} if each.has_batch else {}) | varying
