"""Samples in two parts: what a calibration looks at, and what is held back to judge settings by."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from prunec.passes.feeding import BatchInputs, part_of, sample_count

#: Samples that are held back, at most, and the largest share of all that they are.
MOST_HELD_BACK, HELD_BACK_SHARE = 64, 0.25


@dataclass(frozen=True, eq=False)
class PartedSamples:
    """Batches of inputs that can be read more than once.

    Attributes:
        looked_at: Inputs by which ranges, biases and weights are made.
        held_back: Inputs by which nothing is made, and on which settings are judged.
    """

    looked_at: Iterable[BatchInputs]
    held_back: Iterable[BatchInputs] = ()


def parted(batches: Iterable[BatchInputs], count: int) -> PartedSamples:
    """Batches of about so many samples in random order, with one of every few in a row held back.

    However the samples are split into batches, the same ones are.
    """
    every = max(round(1 / HELD_BACK_SHARE), -(-count // MOST_HELD_BACK))
    return PartedSamples(*(_Part(batches, every, is_held_back) for is_held_back in (False, True)))


@dataclass(frozen=True, eq=False)
class _Part:
    """The last of so many samples in a row, or the others."""

    batches: Iterable[BatchInputs]
    every: int
    is_last: bool

    def __iter__(self) -> Iterator[BatchInputs]:
        begin = 0
        for batch in self.batches:
            numbers = torch.arange(begin, begin := begin + sample_count(batch))
            chosen = (((numbers + 1) % self.every == 0) == self.is_last).nonzero().flatten()
            if len(chosen):
                yield part_of(batch, chosen)


@dataclass(eq=False)
class Counted:
    """Batches, with the number of samples that were read of them, repeated ones counted again."""

    batches: Iterable[BatchInputs]
    count: int = 0

    def __iter__(self) -> Iterator[BatchInputs]:
        for batch in self.batches:
            self.count += sample_count(batch)
            yield batch
