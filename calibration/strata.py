"""The choice of samples for a part of the data: every class keeps its share, whatever the order of the file."""

import torch
from torch import Generator, Tensor


def choose(count: int, strata: Tensor, order: Tensor) -> Tensor:
    """Positions of some samples, sorted: of every class its share, to within one sample.

    Seats go by the largest remainders, among equal ones by the order; a class keeps a sample on the other side where it
    can.

    Args:
        count: Number of samples to choose, at most all.
        strata: Class of each sample, (N,) of whole numbers.
        order: Positions (N,) in the order in which samples of one class are taken.
    """
    _, classes, sizes = torch.unique(strata, return_inverse=True, return_counts=True)
    taken, remainders = sizes * count // len(strata), sizes * count % len(strata)
    grouped, starts = order[classes[order].argsort(stable=True)], sizes.cumsum(0) - sizes
    would_be_whole, first = (taken + 1 >= sizes).tolist(), order.argsort()[grouped[starts]].tolist()
    claims = list(zip(would_be_whole, (-remainders).tolist(), first, range(len(sizes)), strict=True))
    taken[[c for *_, c in sorted(claims)[: count - int(taken.sum())]]] += 1
    place = torch.arange(len(strata)) - starts[classes[grouped]]
    return grouped[place < taken[classes[grouped]]].sort().values


def strata_of(labels: Tensor | None, count: int) -> Tensor:
    """The class of each of ``count`` samples, which are of one class where labels are not known or are no classes."""
    return labels if labels is not None and labels.ndim == 1 else torch.zeros(count, dtype=torch.int64)


def shuffled(count: int, seed: int) -> Tensor:
    """Positions (count,) in a random order."""
    return torch.randperm(count, generator=Generator().manual_seed(seed))
