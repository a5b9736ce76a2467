"""Samples in a fixed order, held in memory or read when they are needed; not preprocessed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from prunec.passes.errors import InputError


class Samples(Protocol):
    """Samples in a fixed order, not preprocessed."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (N, ...) and labels (N,) or maps (N, H, W) at these indices, as they are stored."""
        ...


def on_cpu(values: Any) -> Tensor:
    """What a user's data hold as a tensor in this machine's memory, without a gradient.

    Raises:
        RuntimeError: it has no values, or can't be made a tensor; likewise TypeError and ValueError.
    """
    return torch.as_tensor(values).detach().cpu()


@dataclass(frozen=True)
class ArraySamples:
    """Samples held in memory."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels at these indices."""
        return self.inputs[indices], self.labels[indices]


@dataclass(frozen=True)
class DatasetSamples:
    """Samples read from a map-style dataset when they are needed.

    Attributes:
        collate: makes a batch, (inputs, labels), of a list of the dataset's items.
        where: the source, as error messages name it.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any]
    where: str

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels at these indices."""
        try:
            inputs, labels = self.collate([self.dataset[i] for i in indices.tolist()])
            return on_cpu(inputs), on_cpu(labels)
        except Exception as error:
            raise InputError(
                f"{self.where}: samples {indices[0]} to {indices[-1]} can't be read as (input, label): "
                f"{type(error).__name__}: {error}",
                hint="Inputs must be tensors or arrays of one shape, and labels numbers.",
            ) from error
