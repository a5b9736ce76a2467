"""Random changes to a batch of training images, vectorised over the batch.

Drawing and applying are apart: every process of a training draws for the whole batch and changes its
own share of it, so that the samples don't depend on how many processes there are.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from prunec.calibration.config import parse_augmentation


class Augmentation(Protocol):
    """A random change to images that are not yet normalised."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Random values for each of ``count`` images, (count, ...)."""

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Images (N, C, H, W) of any dtype, changed by what was drawn for each; of the same shape and dtype."""


def augmentation(text: str) -> Augmentation:
    """The augmentation that an entry of ``DataConfig.augment`` names."""
    name, pixels = parse_augmentation(text)
    return Flip() if name == "flip" else Shift(pixels)


@dataclass(frozen=True)
class Flip:
    """Each image mirrored left to right with probability one half."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator) < 0.5

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        return torch.where(drawn, images.flip(3), images)


@dataclass(frozen=True)
class Shift:
    """Each image moved by up to ``pixels`` along each axis; what comes in is zero (black, not normalised)."""

    pixels: int

    def draw(self, count: int, generator: Generator) -> Tensor:
        return torch.randint(0, 2 * self.pixels + 1, (2, count, 1), generator=generator).transpose(0, 1)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        count, _, height, width = images.shape
        rows = (drawn[:, 0] + torch.arange(height))[:, :, None]
        columns = (drawn[:, 1] + torch.arange(width))[:, None, :]
        padded = pad(images, (self.pixels,) * 4)
        # Indices on both sides of the channel axis move it to the end.
        return padded[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()
