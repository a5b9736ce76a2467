"""Samples in a fixed order, held in memory or read when they are needed; not preprocessed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from prunec.passes.errors import InputError
from prunec.passes.user_calls import call_user_code, defined_at

Part = Literal["train", "test"]


class Samples(Protocol):
    """Samples in a fixed order, not preprocessed."""

    @property
    def known_labels(self) -> Tensor | None:
        """Labels (N, ...) of all samples, where they can be told without reading the inputs."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (N, ...) and labels (N,) or maps (N, H, W) at these indices, as they are stored."""


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


@dataclass(frozen=True)
class ArraySamples:
    """Samples held in memory."""

    inputs: Tensor
    labels: Tensor

    @property
    def known_labels(self) -> Tensor:
        return self.labels

    def __len__(self) -> int:
        return len(self.inputs)

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.inputs[indices], self.labels[indices]


@dataclass(frozen=True)
class DatasetSamples:
    """Samples read from a map-style dataset when they are needed.

    Attributes:
        collate: Function that makes a batch, (inputs, labels), of a list of the dataset's items.
        where: The source, as error messages name it.
        kind: Shape of one input and data type of all, once they were seen: each later batch must be of them.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any]
    where: str
    kind: tuple[tuple[int, ...], torch.dtype] | None = field(default=None, kw_only=True)

    @property
    def known_labels(self) -> Tensor | None:
        return _targets(self.dataset)

    def __len__(self) -> int:
        return call_user_code(f"len() of {self.where}", len, self.dataset, code=type(self.dataset).__len__)  # type: ignore[no-any-return]

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        inputs, labels = self.reading(indices, lambda: self._batch(indices))
        if wrong := self._wrong(inputs, labels, len(indices)):
            where = defined_at(getattr(type(self.dataset), "__getitem__", self.dataset))
            raise InputError(f"{self.where}{where}: samples {indices[0]} to {indices[-1]} {wrong}.")
        return inputs, labels

    def _wrong(self, inputs: Tensor, labels: Tensor, count: int) -> str:
        """What is wrong with a batch of so many samples; empty where nothing is."""
        if not len(inputs) == len(labels) == count:
            return f"are {count}, and gave {len(inputs)} inputs and {len(labels)} labels"
        got = (tuple(inputs.shape[1:]), inputs.dtype)
        if self.kind is None or (got == self.kind and (not got[1].is_floating_point or inputs.isfinite().all())):
            return ""
        said = "values that are not finite" if got == self.kind else f"shape {got[0]} and type {got[1]}"
        return f"have {said}; when they were first read they had shape {self.kind[0]} and type {self.kind[1]}"

    def _batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        inputs, labels = map(on_cpu, self.collate([self.dataset[i] for i in indices.tolist()]))
        if not inputs.ndim or not labels.ndim:
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
            hint="Inputs must be tensors or arrays of one shape, and labels numbers.",
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
