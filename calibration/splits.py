"""The three parts of the data, as batches that a network takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from prunec.calibration.augment import Augmentation
from prunec.calibration.samples import Samples


@dataclass(frozen=True)
class Share:
    """The part of every batch that process number ``rank``, from 0, of ``count`` processes takes."""

    rank: int = 0
    count: int = 1

    def of(self, length: int) -> slice:
        """The samples that it has of a batch of this length; shares are contiguous and differ by one sample at most."""
        return slice(self.rank * length // self.count, (self.rank + 1) * length // self.count)


class Split(Protocol):
    """One of the three parts of the data."""

    def __len__(self) -> int:
        """Number of samples."""

    def batches(
        self, batch_size: int, *, epoch: int | None = None, seed: int = 0, first: int = 0, share: Share = Share()
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of inputs (N, C, H, W) float32 and labels (N,) int64, or maps of labels (N, H, W).

        Args:
            batch_size: Samples per batch of all processes together.
            epoch: None gives all samples in order, not augmented; a number gives them shuffled and augmented, as a
                function of ``seed`` and ``epoch`` only, without the last batch where that isn't full (unless it is the
                only one).
            seed: Seed of the order and the augmentation, not negative.
            first: Number of the batch to begin with; the others are as if it were 0.
            share: The part of each batch that is given.
        """


@dataclass(frozen=True)
class Preprocessing:
    """Function from stored inputs to a network's: uint8 is divided by 255, then mean and deviation are normalised.

    ``mean`` and ``std`` are (C, 1, 1), or one value for all channels.
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

    def batches(
        self, batch_size: int, *, epoch: int | None = None, seed: int = 0, first: int = 0, share: Share = Share()
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if epoch is None:
            yield from self._in_order(batch_size, first, share)
            return
        generator = Generator().manual_seed(mixed_seed(seed, epoch))
        order = self.start + torch.randperm(len(self), generator=generator)
        for number in range(steps_per_epoch(self, batch_size)):
            indices = order[number * batch_size : (number + 1) * batch_size]
            drawn = [augment.draw(len(indices), generator) for augment in self.augmentations]
            if number >= first:
                mine = share.of(len(indices))
                yield self._batch(indices[mine], [values[mine] for values in drawn])

    def _in_order(self, batch_size: int, first: int, share: Share) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(self.start + first * batch_size, self.stop, batch_size):
            indices = torch.arange(start, min(start + batch_size, self.stop))
            mine = indices[share.of(len(indices))]
            if len(mine):
                yield self._batch(mine, [])

    def _batch(self, indices: Tensor, drawn: list[Tensor]) -> tuple[Tensor, Tensor]:
        inputs, labels = self.samples.fetch(indices)
        # Before normalisation, where zero is black: what a shifted image is filled with.
        for augment, values in zip(self.augmentations, drawn, strict=False):
            inputs = augment.apply(inputs, values)
        return self.preprocessing(inputs), labels.long()


def mixed_seed(*values: int) -> int:
    """One well-mixed 64-bit seed of several numbers that aren't negative."""
    return int(np.random.SeedSequence(values).generate_state(1, np.uint64)[0])


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Number of batches that a training epoch has."""
    return max(1, len(split) // batch_size)
