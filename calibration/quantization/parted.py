"""Samples in two parts: what settings are made by, and what is held back to judge them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.passes.feeding import BatchInputs, part_of, sample_count


@dataclass(frozen=True, eq=False)
class Parted:
    """Batches of samples in random order, of which every so-manieth sample is held back.

    Attributes:
        batches: The batches, which can be read more than once.
        every: Of so many samples in a row the last one is held back.
    """

    batches: Iterable[BatchInputs]
    every: int

    def __iter__(self) -> Iterator[BatchInputs]:
        """The samples that aren't held back."""
        return self._parts(held_back=False)

    def held_back(self) -> Iterator[BatchInputs]:
        """The others."""
        return self._parts(held_back=True)

    def _parts(self, held_back: bool) -> Iterator[BatchInputs]:
        begin = 0
        for batch in self.batches:
            last = (torch.arange(begin, begin + sample_count(batch)) + 1) % self.every == 0
            chosen: Tensor = (last if held_back else ~last).nonzero().flatten()
            begin += sample_count(batch)
            if len(chosen):
                yield part_of(batch, chosen)
