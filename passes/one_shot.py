"""2:4 masks by a layer's inputs: scores of Wanda and SparseGPT, SparseGPT's weight update, and the cost of a mask.

They work on weights as rows of (position, input channel): the fours of 2:4 run along the input channels at one kernel
position, as sparse tensor cores read them, and not along kernel positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from prunec.passes.criteria.statistics import Moments
from prunec.passes.two_four import two_four_mask

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


def wanda_scores(weight: Tensor, moments: Tensor) -> Tensor:
    """Magnitude times norm of the input (`prunec.passes.criteria.elements.Wanda`), of the weight's shape (K, C, ...).

    ``moments`` is the sum over the inputs of x x^T, (positions * C, positions * C).
    """
    norms = moments.diagonal().clamp_min(0).sqrt().to(weight.dtype)
    return from_rows(to_rows(weight).abs() * norms, weight)


def sparse_gpt_scores(weight: Tensor, moments: Tensor, damping: float) -> Tensor:
    """Cost of masking each weight, at the moment when SparseGPT masks its four (`criteria.elements.SparseGPT`).

    Args:
        weight: Weight (K, C, ...), C a multiple of 4.
        moments: Sum over the inputs of x x^T, or of their deviations from the mean, (positions * C, positions * C).
        damping: Number that is added to their diagonal, as a share of its mean.

    Returns:
        Scores of the weight's shape, float64.
    """
    rows = to_rows(weight).double().clone()
    scores = torch.zeros_like(rows)

    def best_two(column: int, costs: Tensor) -> Tensor:
        scores[:, column : column + 4] = costs
        return two_four_mask(costs)

    _sweep(rows, _inverse_factor(moments, damping), best_two)
    return from_rows(scores, weight)


def sparse_gpt_weights(weight: Tensor, moments: Tensor, damping: float, mask: Tensor) -> Tensor:
    """Update a weight so that its outputs change least under a bool mask of its shape; it is zero where masked.

    Column by column, the masked weights' error is made up for by the columns after it. The other arguments are those of
    `sparse_gpt_scores`.
    """
    rows, kept = to_rows(weight).double().clone(), to_rows(mask)
    _sweep(rows, _inverse_factor(moments, damping), lambda column, _: kept[:, column : column + 4])
    return from_rows(rows.to(weight.dtype), weight)


def _inverse_factor(moments: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the damped moments' inverse."""
    hessian = moments.double().clone()
    diagonal = hessian.diagonal()
    diagonal += damping * diagonal.mean() + torch.finfo(torch.float32).tiny
    factor: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    return factor


def _sweep(rows: Tensor, factor: Tensor, keep: Callable[[int, Tensor], Tensor]) -> None:
    """Go through the columns once, masking them and making up for it, in place.

    Args:
        rows: The weight as rows (K, columns), float64.
        factor: `_inverse_factor` of the inputs' moments.
        keep: Function of the first column of a four and the costs of masking its weights (K, 4) that gives the weights
            that stay, bool (K, 4).
    """
    mask = torch.zeros_like(rows, dtype=torch.bool)
    for start in range(0, rows.shape[1], _BLOCK):
        stop = min(start + _BLOCK, rows.shape[1])
        errors = torch.zeros_like(rows[:, start:stop])
        for column in range(start, stop):
            if column % 4 == 0:
                four = slice(column, column + 4)
                mask[:, four] = keep(column, rows[:, four].square() / factor.diagonal()[four].square())
            kept = rows[:, column] * mask[:, column]
            error = (rows[:, column] - kept) / factor[column, column]
            rows[:, column + 1 : stop] -= error[:, None] * factor[column, column + 1 : stop]
            rows[:, column] = kept
            errors[:, column - start] = error
        rows[:, stop:] -= errors @ factor[start:stop, stop:]


def mean_shift(weight: Tensor, changed: Tensor, mean: Tensor) -> Tensor:
    """Mean that a changed weight's outputs (K,) lack, which a bias can make up for."""
    return (to_rows(weight).double() - to_rows(changed).double()) @ mean


def output_error(weight: Tensor, changed: Tensor, moments: Moments, shift: Tensor | None = None) -> float:
    """Squared difference of a layer's outputs, relative to the squared outputs, over the inputs behind the moments.

    ``shift`` (K,) is added to the outputs of the changed weight.
    """
    dense, difference = to_rows(weight).double(), to_rows(changed).double() - to_rows(weight).double()
    total = float(((dense @ moments.raw) * dense).sum())
    offset = difference @ moments.mean + (0 if shift is None else shift)
    error = float(((difference @ moments.centred) * difference).sum() + moments.count * offset.square().sum())
    return error / total if total > 0 else 0.0
