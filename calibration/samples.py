"""Samples in a fixed order, held in memory or read when they are needed; not preprocessed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from prunec.passes.errors import InputError

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
    """A batch of a user's data as a tensor in this machine's memory, without a gradient.

    Raises:
        RuntimeError: The value can't be made a tensor, or has no values; TypeError and ValueError have the same causes.
    """
    return torch.as_tensor(values).detach().cpu()


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
    """

    dataset: Any
    collate: Callable[[list[Any]], Any]
    where: str

    @property
    def known_labels(self) -> Tensor | None:
        return _targets(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        with self.reading(indices):
            inputs, labels = self.collate([self.dataset[i] for i in indices.tolist()])
            return on_cpu(inputs), on_cpu(labels)

    @contextmanager
    def reading(self, indices: Tensor) -> Iterator[None]:
        """Say of an error within that these samples can't be read."""
        try:
            yield
        except Exception as error:
            raise InputError(
                f"{self.where}: samples {indices[0]} to {indices[-1]} can't be read as (input, label): "
                f"{type(error).__name__}: {error}",
                hint="Inputs must be tensors or arrays of one shape, and labels numbers.",
            ) from error


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
