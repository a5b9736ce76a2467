"""Arguments of networks, a batch of 2, drawn from a generator of their own: the same whatever else was drawn."""

import torch
from torch import Tensor

BATCH = 2
#: Ids below it are special in most vocabularies: padding, start, end, unknown, mask.
_LEAST_ID = 5


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers: float32 (2, *shape)."""
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(seed))


def images(side: int, channels: int = 3, seed: int = 0, width: int | None = None) -> Tensor:
    """Images, each with a hue of its own: float32 (2, channels, side, width or side).

    Without the hue the means of a network's last features hardly tell one image of noise from another.
    """
    hues = numbers(channels, 1, 1, seed=seed + 1000)
    return hues + numbers(channels, side, side if width is None else width, seed=seed)


def volumes(side: int, channels: int = 1) -> Tensor:
    """Volumes: float32 (2, channels, side, side, side)."""
    return numbers(channels, 1, 1, 1, seed=1000) + numbers(channels, side, side, side)


def integers(*shape: int, high: int, low: int = 0, seed: int = 0) -> Tensor:
    """Integers from `low` to below `high`: int64 (2, *shape)."""
    return torch.randint(low, high, (BATCH, *shape), generator=torch.Generator().manual_seed(seed))


def tokens(length: int, vocabulary: int = 128, seed: int = 0) -> Tensor:
    """Token ids without special ones: int64 (2, length)."""
    return integers(length, low=_LEAST_ID, high=vocabulary, seed=seed)


def ones(*shape: int) -> Tensor:
    """A mask that hides nothing: int64 (2, *shape)."""
    return torch.ones(BATCH, *shape, dtype=torch.long)


def padded(length: int, padding: int) -> Tensor:
    """A mask that hides the last `padding` positions of the first sample: int64 (2, length)."""
    mask = ones(length)
    mask[0, length - padding :] = 0
    return mask
