"""Random changes to a batch of training images, vectorised over the batch."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from prunec.calibration.config import parse_augmentation

#: Images (N, C, H, W) of any dtype, not yet normalised, to images of the same shape and dtype.
Augmentation = Callable[[Tensor, Generator], Tensor]


def augmentation(text: str) -> Augmentation:
    """The augmentation that an entry of ``DataConfig.augment`` names."""
    name, pixels = parse_augmentation(text)
    return flip if name == "flip" else partial(shift, pixels=pixels)


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def shift(images: Tensor, generator: Generator, *, pixels: int) -> Tensor:
    """Each image moved by up to ``pixels`` along each axis; what comes in is zero (black, not normalised)."""
    count, _, height, width = images.shape
    offsets = torch.randint(0, 2 * pixels + 1, (2, count, 1), generator=generator)
    rows = (offsets[0] + torch.arange(height))[:, :, None]
    columns = (offsets[1] + torch.arange(width))[:, None, :]
    padded = pad(images, (pixels, pixels, pixels, pixels))
    # Indices on both sides of the channel axis move it to the end.
    return padded[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()
