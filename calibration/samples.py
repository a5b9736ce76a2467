"""Samples in a fixed order, held in memory or read when they are needed; not preprocessed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from prunec.passes.errors import InputError
from prunec.passes.feeding import BatchInputs, part_of, sample_count
from prunec.passes.user_calls import call_user_code, defined_at

Part = Literal["train", "test"]


class Samples(Protocol):
    """Samples in a fixed order, not preprocessed."""

    @property
    def known_labels(self) -> Tensor | None:
        """Labels (N, ...) of all samples, where they can be told without reading the inputs."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Tensor) -> tuple[BatchInputs, Tensor]:
        """Inputs and labels (N,) or maps (N, H, W) at these indices, as they are stored."""


def on_cpu(values: Any) -> Tensor:
    """A batch of a user's data as a plain tensor in this machine's memory, without a gradient.

    Raises:
        RuntimeError: The value can't be made a tensor, or has no values; TypeError and ValueError have the same causes.
    """
    tensor = torch.as_tensor(values)
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
        raise TypeError(f"a {kind} tensor; expected a dense one, as its dequantize() or to_dense() gives")
    return tensor.detach().cpu()


def batch_inputs(values: Any) -> BatchInputs:
    """The inputs of a batch of a user's data: a tensor, several of them in a tuple or a list, or tensors by name.

    Raises:
        RuntimeError: A value can't be made a tensor, or has no values; TypeError and ValueError have the same causes.
    """
    if isinstance(values, Mapping):
        if not values or not all(isinstance(name, str) for name in values):
            raise TypeError("a dict of inputs without names")
        return {name: on_cpu(value) for name, value in values.items()}
    if isinstance(values, tuple | list) and values and all(getattr(value, "ndim", 0) for value in values):
        return tuple(map(on_cpu, values))
    return on_cpu(values)


@dataclass(frozen=True)
class InputKind:
    """One input of samples as it is stored: the shape of one sample's, its type, and its name, "" where it has none."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name and f'{self.name} of '}shape {self.shape} and type {self.dtype}"

    @property
    def is_whole(self) -> bool:
        """Whether it reaches the network as it is stored: whole numbers that are no pixels, and truth values."""
        return not self.dtype.is_floating_point and self.dtype != torch.uint8


def kinds_of(inputs: BatchInputs) -> tuple[InputKind, ...]:
    """What the inputs of a batch are, one after the other."""
    named = inputs.items() if isinstance(inputs, dict) else [("", each) for each in tensors_of(inputs)]
    return tuple(InputKind(tuple(tensor.shape[1:]), tensor.dtype, name) for name, tensor in named)


def tensors_of(inputs: BatchInputs) -> list[Tensor]:
    """The tensors of a batch, in their order."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, dict) else inputs)


@dataclass(frozen=True)
class ArraySamples:
    """Samples held in memory."""

    inputs: BatchInputs
    labels: Tensor

    @property
    def known_labels(self) -> Tensor:
        return self.labels

    def __len__(self) -> int:
        return sample_count(self.inputs)

    def fetch(self, indices: Tensor) -> tuple[BatchInputs, Tensor]:
        return part_of(self.inputs, indices), self.labels[indices]


@dataclass(frozen=True)
class DatasetSamples:
    """Samples read from a map-style dataset when they are needed.

    Attributes:
        collate: Function that makes a batch, (inputs, labels), of a list of the dataset's items.
        where: The source, as error messages name it.
        kinds: What the inputs are, once they were seen: each later batch must be of them.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any]
    where: str
    kinds: tuple[InputKind, ...] | None = field(default=None, kw_only=True)

    @property
    def known_labels(self) -> Tensor | None:
        return _targets(self.dataset)

    def __len__(self) -> int:
        return call_user_code(f"len() of {self.where}", len, self.dataset, code=type(self.dataset).__len__)  # type: ignore[no-any-return]

    def fetch(self, indices: Tensor) -> tuple[BatchInputs, Tensor]:
        inputs, labels = self.reading(indices, lambda: self._batch(indices))
        if wrong := self._wrong(inputs, labels, len(indices)):
            where = defined_at(getattr(type(self.dataset), "__getitem__", self.dataset))
            raise InputError(f"{self.where}{where}: samples {indices[0]} to {indices[-1]} {wrong}.")
        return inputs, labels

    def _wrong(self, inputs: BatchInputs, labels: Tensor, count: int) -> str:
        """What is wrong with a batch of so many samples; empty where nothing is."""
        tensors = tensors_of(inputs)
        if odd := [len(each) for each in (*tensors, labels) if len(each) != count]:
            what = f"{odd[0]} labels" if len(labels) == odd[0] else f"{odd[0]} inputs and {len(labels)} labels"
            return f"are {count}, and gave {what}"
        got = kinds_of(inputs)
        if self.kinds is None:
            return ""
        for tensor, kind, first in zip_longest(tensors, got, self.kinds):
            if kind != first:
                return f"have {kind or 'nothing'}; when they were first read they had {first or 'nothing'}"
            if tensor.is_floating_point() and not tensor.isfinite().all():
                return f"have values that are not finite; when they were first read they had {first}"
        return ""

    def _batch(self, indices: Tensor) -> tuple[BatchInputs, Tensor]:
        inputs, labels = self.collate([self.dataset[i] for i in indices.tolist()])
        inputs, labels = batch_inputs(inputs), on_cpu(labels)
        if not labels.ndim or not all(tensor.ndim for tensor in tensors_of(inputs)):
            raise TypeError("a number instead of a batch")
        return inputs, labels

    def reading(self, indices: Tensor, read: Callable[[], Any]) -> Any:
        """What a function reads of these samples.

        Raises:
            InputError: The function fails.
        """
        return call_user_code(
            f"reading of samples {indices[0]} to {indices[-1]} of {self.where} as (input, label)",
            read,
            code=getattr(type(self.dataset), "__getitem__", self.dataset),
            hint="Inputs must be tensors or arrays of one shape, several of them in a tuple or a dict by the network's "
            "names, and labels numbers.",
        )


def _targets(dataset: Any) -> Tensor | None:
    """What a dataset lists as its ``targets``, as torchvision's do; None where it lists none, or not one a sample."""
    if isinstance(dataset, Subset):
        whole = _targets(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(list(dataset.indices))]
    listed = dataset.tensors[-1] if isinstance(dataset, TensorDataset) else getattr(dataset, "targets", None)
    try:
        targets = on_cpu(listed)
    except (TypeError, ValueError, RuntimeError):
        return None
    return targets if targets.shape == (len(dataset),) else None
