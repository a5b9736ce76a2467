"""Masks by a layer's inputs: scores of Wanda and SparseGPT, SparseGPT's weight update, and the cost of a mask.

They work on weights as rows of (position, input channel): the groups of N:M run along the input channels at one kernel
position, as sparse tensor cores read them, and not along kernel positions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from prunec.passes.criteria.statistics import Moments
from prunec.passes.patterns.pattern import Pattern
from prunec.passes.patterns.unit_masks import n_of_m_mask

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


def sparse_gpt_scores(weight: Tensor, moments: Tensor, damping: float, pattern: Pattern) -> Tensor:
    """Cost of masking each weight (`criteria.elements.SparseGPT`).

    Of N:M it is that of the moment when SparseGPT masks the weight's group, else that before any is masked.

    Args:
        weight: Weight (K, C, ...); of N:M C is a multiple of M.
        moments: Sum over the inputs of x x^T, or of their deviations from the mean, (positions * C, positions * C).
        damping: Number that is added to their diagonal, as a share of its mean.
        pattern: The pattern that is masked by the scores.

    Returns:
        Scores of the weight's shape, float64.
    """
    rows, factor = to_rows(weight).double().clone(), _inverse_factor(moments, damping)
    if pattern.n_of_m is None:
        return from_rows(rows.square() / factor.diagonal().square(), weight)
    n, m = pattern.n_of_m
    scores = torch.zeros_like(rows)

    def best(column: int, costs: Tensor) -> Tensor:
        scores[:, column : column + m] = costs
        return n_of_m_mask(costs, n, m)

    _sweep(rows, factor, best, m)
    return from_rows(scores, weight)


def sparse_gpt_weights(weight: Tensor, moments: Tensor, damping: float, mask: Tensor) -> Tensor:
    """Update a weight so that its outputs change least under a bool mask of its shape; it is zero where masked.

    Column by column, the masked weights' error is made up for by the columns after it. The other arguments are those of
    `sparse_gpt_scores`.
    """
    rows, kept = to_rows(weight).double().clone(), to_rows(mask)
    _sweep(rows, _inverse_factor(moments, damping), lambda column, _: kept[:, column : column + 1], 1)
    return from_rows(rows.to(weight.dtype), weight)


def _inverse_factor(moments: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the damped moments' inverse."""
    hessian = moments.double().clone()
    diagonal = hessian.diagonal()
    diagonal += damping * diagonal.mean() + torch.finfo(torch.float32).tiny
    factor: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    return factor


def _sweep(rows: Tensor, factor: Tensor, keep: Callable[[int, Tensor], Tensor], group: int) -> None:
    """Go through the columns once, masking them and making up for it, in place.

    Args:
        rows: The weight as rows (K, columns), float64.
        factor: `_inverse_factor` of the inputs' moments.
        keep: Function of the first column of a group and the costs of masking its weights (K, group) that gives the
            weights that stay, bool (K, group).
        group: Number of columns that are chosen among together.
    """
    mask = torch.zeros_like(rows, dtype=torch.bool)
    block = max(1, _BLOCK // group) * group
    for start in range(0, rows.shape[1], block):
        stop = min(start + block, rows.shape[1])
        errors = torch.zeros_like(rows[:, start:stop])
        for column in range(start, stop):
            if column % group == 0:
                chosen = slice(column, column + group)
                mask[:, chosen] = keep(column, rows[:, chosen].square() / factor.diagonal()[chosen].square())
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
