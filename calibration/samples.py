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

PartName = Literal["train", "test"]
#: Samples of a dataset: beyond those of any labelled one, and few enough to number them.
MAX_SAMPLES = 10**9


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
class FirstReading:
    """What all samples of a part were like when they were first read.

    Attributes:
        inputs: What the inputs were, one after the other.
        label_shape: Shape of one label.
        label_dtypes: Data types of labels, by the batches that they were read in.
        labels: Smallest and largest label.
    """

    inputs: tuple[InputKind, ...]
    label_shape: tuple[int, ...]
    label_dtypes: frozenset[torch.dtype]
    labels: tuple[int, int]

    def difference(self, inputs: BatchInputs, labels: Tensor) -> str:
        """What is otherwise in a batch, and how it was first; empty where nothing is."""
        first = "when they were first read they had"
        for tensor, kind, known in zip_longest(tensors_of(inputs), kinds_of(inputs), self.inputs):
            if kind != known:
                return f"have {kind or 'nothing'}; {first} {known or 'nothing'}"
            if tensor.is_floating_point() and not tensor.isfinite().all():
                return f"have values that are not finite; {first} {known}"
        return self._labels_difference(labels, first)

    def _labels_difference(self, labels: Tensor, first: str) -> str:
        got, whole = (tuple(labels.shape[1:]), labels.dtype), self._whole_labels()
        is_other_kind = labels.is_complex() or (len(self.label_dtypes) == 1 and got[1] not in self.label_dtypes)
        if got[0] != self.label_shape or is_other_kind:
            return f"have labels of shape {got[0]} and type {got[1]}; {first} {whole}"
        wrong = (labels != labels.round()) if labels.is_floating_point() else torch.zeros_like(labels, dtype=torch.bool)
        wrong |= ~((labels >= self.labels[0]) & (labels <= self.labels[1]))  # NaN is in no range
        return f"have the label {labels[wrong][0].item()}; {first} {whole}" if wrong.any() else ""

    def _whole_labels(self) -> str:
        types = " or ".join(sorted(map(str, self.label_dtypes)))
        return f"labels {self.labels[0]} to {self.labels[1]} of shape {self.label_shape} and type {types}"


@dataclass(frozen=True)
class DatasetSamples:
    """Samples read from a map-style dataset when they are needed.

    Attributes:
        collate: Function that makes a batch, (inputs, labels), of a list of the dataset's items.
        where: The source, as error messages name it.
        seen: What all samples were like, once they were read: each later batch must be like them.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any]
    where: str
    seen: FirstReading | None = field(default=None, kw_only=True)

    @property
    def known_labels(self) -> Tensor | None:
        return _targets(self.dataset)

    def __len__(self) -> int:
        code = type(self.dataset).__len__
        count: int = call_user_code(f"len() of {self.where}", len, self.dataset, code=code)
        if count > MAX_SAMPLES:
            raise InputError(
                f"{self.where}{defined_at(code)} says that it has {count} samples; at most {MAX_SAMPLES} are taken.",
                hint="Return the number of the samples that it gives, or those of one epoch.",
            )
        return count

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
        return "" if self.seen is None else self.seen.difference(inputs, labels)

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
