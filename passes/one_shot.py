"""2:4 masks from what a layer's inputs are: Wanda, and SparseGPT with its weight update.

Where a layer has a bias, or a batch norm behind it, that takes over what the masked weights gave in mean; masks are
then chosen by what is left, the inputs' deviation from their mean.

Both work on weights as rows of (position, input channel): the fours of 2:4 run along the input channels at one kernel
position, as sparse tensor cores read them, and not along kernel positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Columns updated together before the rest of the weight is.
_BLOCK = 128


def to_rows(weight: Tensor) -> Tensor:
    """(K, C, ...) as (K, positions * C), input channels consecutive."""
    return weight.detach().flatten(2).transpose(1, 2).flatten(1) if weight.ndim > 2 else weight.detach()


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `to_rows`, in the shape of a weight."""
    if like.ndim == 2:
        return rows
    return rows.reshape(len(like), -1, like.shape[1]).transpose(1, 2).reshape(like.shape).contiguous()


def best_two_of_four(scores: Tensor) -> Tensor:
    """Where the 2 largest of every 4 consecutive scores (rows, columns) are; ties go to the lower column."""
    fours = scores.reshape(len(scores), -1, 4)
    order = fours.sort(dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, order[..., :2], True).reshape(scores.shape)


@dataclass(frozen=True)
class Moments:
    """First and second moments of what a layer's outputs see, in the order of `to_rows`; float64.

    Attributes:
        count: how many columns of inputs they are of, samples times places.
        mean: (positions * C,).
        centred: sum of (x - mean) (x - mean)^T, (positions * C, positions * C).
    """

    count: int
    mean: Tensor
    centred: Tensor

    @property
    def raw(self) -> Tensor:
        """Sum of x x^T."""
        return self.centred + self.count * torch.outer(self.mean, self.mean)


def wanda_mask(weight: Tensor, moments: Tensor) -> Tensor:
    """Keep weights with the largest magnitude times norm of their input (Sun et al., "A Simple and Effective Pruning
    Approach for Large Language Models", ICLR 2024, eq. 1).

    Args:
        weight: (K, C, ...), C a multiple of 4.
        moments: sum over the inputs of x x^T, (positions * C, positions * C), in the order of `to_rows`. Where a bias
            makes up for the inputs' mean, `Moments.centred`: the score is then of their deviation (An et al.,
            "Fluctuation-based Adaptive Structured Pruning", AAAI 2024).

    Returns:
        Bool mask of the weight's shape.
    """
    norms = moments.diagonal().clamp_min(0).sqrt().to(weight.dtype)
    return from_rows(best_two_of_four(to_rows(weight).abs() * norms), weight)


def sparse_gpt(weight: Tensor, moments: Tensor, damping: float = 0.01) -> tuple[Tensor, Tensor]:
    """Mask and update a weight so that its outputs change least (Frantar and Alistarh, "SparseGPT", ICML 2023, alg. 1).

    Column by column the masked weights' error is made up for by the columns after it.

    Args:
        weight: (K, C, ...), C a multiple of 4.
        moments: as for `wanda_mask`.
        damping: added to the diagonal, as a share of its mean.

    Returns:
        The new weight, zero where masked, and the bool mask, both of the weight's shape.
    """
    rows, hessian = to_rows(weight).double().clone(), moments.double().clone()
    diagonal = hessian.diagonal()
    diagonal += damping * diagonal.mean() + torch.finfo(torch.float32).tiny
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    mask = torch.zeros_like(rows, dtype=torch.bool)
    for start in range(0, rows.shape[1], _BLOCK):
        stop = min(start + _BLOCK, rows.shape[1])
        errors = torch.zeros_like(rows[:, start:stop])
        for column in range(start, stop):
            if column % 4 == 0:
                four = slice(column, column + 4)
                mask[:, four] = best_two_of_four(rows[:, four].square() / inverse.diagonal()[four].square())
            kept = rows[:, column] * mask[:, column]
            error = (rows[:, column] - kept) / inverse[column, column]
            rows[:, column + 1 : stop] -= error[:, None] * inverse[column, column + 1 : stop]
            rows[:, column] = kept
            errors[:, column - start] = error
        rows[:, stop:] -= errors @ inverse[start:stop, stop:]
    return from_rows(rows.to(weight.dtype), weight), from_rows(mask, weight)


def mean_shift(weight: Tensor, changed: Tensor, mean: Tensor) -> Tensor:
    """What a changed weight's outputs (K,) lack in mean, which a bias can make up for."""
    return (to_rows(weight).double() - to_rows(changed).double()) @ mean


def output_error(weight: Tensor, changed: Tensor, moments: Moments, shift: Tensor | None = None) -> float:
    """Squared difference of a layer's outputs, relative to the squared outputs, over the inputs behind the moments.

    Args:
        weight: dense.
        changed: what replaces it.
        moments: of the inputs.
        shift: added to the outputs of the changed one, (K,).
    """
    dense, difference = to_rows(weight).double(), to_rows(changed).double() - to_rows(weight).double()
    total = float(((dense @ moments.raw) * dense).sum())
    offset = difference @ moments.mean + (0 if shift is None else shift)
    error = float(((difference @ moments.centred) * difference).sum() + moments.count * offset.square().sum())
    return error / total if total > 0 else 0.0
