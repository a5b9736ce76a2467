"""The three parts of the data, as batches that a network takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from prunec.calibration.augment import Augmentation
from prunec.calibration.samples import Samples


class Split(Protocol):
    """One of the three parts of the data."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batches(self, batch_size: int, *, epoch: int | None = None, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of inputs (N, C, H, W) float32 and labels (N,) int64.

        Args:
            batch_size: samples per batch.
            epoch: None gives all samples in order, not augmented; a number gives them shuffled and augmented,
                as a function of ``seed`` and ``epoch`` only, without the last batch where that isn't full
                (unless it is the only one).
            seed: not negative.
        """
        ...


@dataclass(frozen=True)
class Preprocessing:
    """What happens to every stored input: uint8 is divided by 255, then mean and standard deviation.

    Attributes:
        mean: (C, 1, 1), or one value for all channels; std likewise.
    """

    mean: Tensor
    std: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Float32 inputs (N, C, H, W) from stored ones."""
        scaled = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs.float()
        return (scaled - self.mean) / self.std


@dataclass(frozen=True)
class SampleSplit:
    """The samples from ``start`` to ``stop`` of a source."""

    samples: Samples
    start: int
    stop: int
    preprocessing: Preprocessing
    augmentations: tuple[Augmentation, ...] = ()

    def __len__(self) -> int:
        return self.stop - self.start

    def batches(self, batch_size: int, *, epoch: int | None = None, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.batches`."""
        if epoch is None:
            for first in range(self.start, self.stop, batch_size):
                yield self._batch(torch.arange(first, min(first + batch_size, self.stop)), None)
            return
        generator = Generator().manual_seed(mixed_seed(seed, epoch))
        order = self.start + torch.randperm(len(self), generator=generator)
        for batch in range(steps_per_epoch(self, batch_size)):
            yield self._batch(order[batch * batch_size : (batch + 1) * batch_size], generator)

    def _batch(self, indices: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        inputs, labels = self.samples.fetch(indices)
        if generator is not None:
            # Before normalisation, where zero is black: what a shifted image is filled with.
            for augment in self.augmentations:
                inputs = augment(inputs, generator)
        return self.preprocessing(inputs), labels.long()


def mixed_seed(*values: int) -> int:
    """One well-mixed 64-bit seed of several numbers that aren't negative."""
    return int(np.random.SeedSequence(values).generate_state(1, np.uint64)[0])


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Number of batches that a training epoch has."""
    return max(1, len(split) // batch_size)
