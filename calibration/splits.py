"""The three parts of the data, as batches that a network takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from prunec.calibration.augment import Augmentation
from prunec.calibration.samples import Samples
from prunec.passes.feeding import BatchInputs, mapped


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
    ) -> Iterator[tuple[BatchInputs, Tensor]]:
        """Batches of inputs and labels (N,) int64, or maps of labels (N, H, W).

        Inputs are a tensor (N, ...), a tuple of them or tensors by name; float32, or whole numbers as they are stored.

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
class FirstSamples:
    """A few samples of a split, where it counts that something runs and not what it gives."""

    split: Split
    samples: int = 8

    def __len__(self) -> int:
        return min(self.samples, len(self.split))

    def batches(
        self, batch_size: int, *, epoch: int | None = None, seed: int = 0, first: int = 0, share: Share = Share()
    ) -> Iterator[tuple[BatchInputs, Tensor]]:
        """The first batch of `Split.batches`, no larger than the samples."""
        size = min(batch_size, self.samples)
        return islice(self.split.batches(size, epoch=epoch, seed=seed, first=first, share=share), 1)


@dataclass(frozen=True)
class Preprocessing:
    """Function from stored inputs to a network's: uint8 is divided by 255, then mean and deviation are normalised.

    Other whole numbers and truth values, such as token ids and masks, stay as they are. ``mean`` and ``std`` are
    (C, 1, 1), or one value for all channels.
    """

    mean: Tensor
    std: Tensor

    def __call__(self, inputs: BatchInputs) -> BatchInputs:
        """Inputs of a network, float32 where they are no whole numbers, from stored ones."""
        return mapped(self._prepared, inputs)  # type: ignore[no-any-return]

    def _prepared(self, stored: Tensor) -> Tensor:
        if stored.dtype == torch.uint8:
            return self.normalised(stored.float() / 255)
        return self.normalised(stored.float()) if stored.is_floating_point() else stored

    def normalised(self, scaled: Tensor) -> Tensor:
        """Inputs of a network from scaled ones, both float32."""
        return (scaled - self.mean) / self.std

    def stored(self, normalised: Tensor) -> Tensor:
        """The inverse of `normalised`."""
        return normalised * self.std + self.mean


#: Inputs of a batch, or a list of images in shapes of their own, and labels (N, ...), at some positions.
Fetch = Callable[[Tensor], tuple[BatchInputs | list[Tensor], Tensor]]


@dataclass(frozen=True)
class SampleSplit:
    """Some samples of a source.

    Attributes:
        positions: (N,) int64 positions of the samples in the source, in their order.
        augmentations: Changes of each image in training epochs, one after the other.
        whole: Gives what the first of them begins with; None where that are the samples themselves.
    """

    samples: Samples
    positions: Tensor
    preprocessing: Preprocessing
    augmentations: tuple[Augmentation, ...] = ()
    whole: Fetch | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def batches(
        self, batch_size: int, *, epoch: int | None = None, seed: int = 0, first: int = 0, share: Share = Share()
    ) -> Iterator[tuple[BatchInputs, Tensor]]:
        if epoch is None:
            yield from self._in_order(batch_size, first, share)
            return
        order, generator = self._order(seed, epoch)
        for number in range(steps_per_epoch(self, batch_size)):
            indices = order[number * batch_size : (number + 1) * batch_size]
            drawn = [augment.draw(len(indices), generator) for augment in self.augmentations]
            if number >= first:
                mine = share.of(len(indices))
                yield self._augmented(indices[mine], [values[mine] for values in drawn])

    def shuffled(self, seed: int) -> "SampleSplit":
        """The same samples, not augmented, in the order of the first epoch of a training by a seed."""
        return replace(self, positions=self._order(seed, epoch=0)[0], augmentations=(), whole=None)

    def _order(self, seed: int, epoch: int) -> tuple[Tensor, Generator]:
        """The positions in the order of an epoch, and what its augmentations are drawn from then."""
        generator = Generator().manual_seed(mixed_seed(seed, epoch))
        return self.positions[torch.randperm(len(self), generator=generator)], generator

    def _in_order(self, batch_size: int, first: int, share: Share) -> Iterator[tuple[BatchInputs, Tensor]]:
        for indices in torch.split(self.positions[first * batch_size :], batch_size):
            mine = indices[share.of(len(indices))]
            if len(mine):
                inputs, labels = self.samples.fetch(mine)
                yield self.preprocessing(inputs), labels.long()

    def _augmented(self, indices: Tensor, drawn: list[Tensor]) -> tuple[BatchInputs, Tensor]:
        inputs: Any
        inputs, labels = (self.whole or self.samples.fetch)(indices)
        # Before normalisation, where zero is black: what a crop is padded with.
        for augment, values in zip(self.augmentations, drawn, strict=True):
            inputs = augment.apply(inputs, values)
        assert not isinstance(inputs, list), "the first augmentation makes one tensor of whole images: see `DataConfig`"
        return self.preprocessing(inputs), labels.long()


def mixed_seed(*values: int) -> int:
    """One well-mixed 64-bit seed of several numbers that aren't negative."""
    return int(np.random.SeedSequence(values).generate_state(1, np.uint64)[0])


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Number of batches that a training epoch has."""
    return max(1, len(split) // batch_size)
