"""The factors of a weight: the two whose product is the best approximation of a rank (Eckart and Young, 1936).

A weight (K, C, R, S) is the matrix K x CRS by which a convolution multiplies its unfolded input. Its first factor
(r, C, R, S) is a convolution to r channels, its second (K, r, 1, 1) one of single positions; of a linear layer they are
(r, C) and (K, r).
"""

import torch
from torch import Tensor

from prunec.passes.errors import InputError
from prunec.passes.ratios import multiple_within


def factor_names(weight: str) -> tuple[str, str]:
    """Names of the two factors of a weight: those of two layers in a sequence in the place of its own."""
    base = layer_of_factors(weight)
    return f"{base}0.weight", f"{base}1.weight"


def bias_name(weight: str) -> str:
    """The name of the bias that the second of two layers has."""
    return f"{layer_of_factors(weight)}1.bias"


def layer_of_factors(weight: str) -> str:
    """What the names of a weight's factors begin with, with its dot: "conv1." of conv1.weight, "w." of w."""
    return weight.removesuffix("weight") if weight == "weight" or weight.endswith(".weight") else f"{weight}."


def full_rank(shape: tuple[int, ...]) -> int:
    """The largest rank that a weight of a shape can have."""
    return min(shape[0], torch.Size(shape[1:]).numel())


def rank_that_saves(shape: tuple[int, ...]) -> int:
    """The largest rank at which both factors together have fewer weights than one of a shape; 0 where none does."""
    filters, inputs = shape[0], torch.Size(shape[1:]).numel()
    return (filters * inputs - 1) // (filters + inputs)


def rank_step(shape: tuple[int, ...], round_to: int) -> int:
    """What ranks of a weight are multiples of: as widths, in layers of a small full rank of a halving of it."""
    return multiple_within(round_to, full_rank(shape))


def factors(name: str, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Both factors of a weight (K, C, ...) of a rank, in its type; singular values are shared evenly among them.

    Signs, which a decomposition leaves open, are such that the largest number of each column of the second is positive.

    Raises:
        InputError: The rank isn't one that the weight can have, or its values aren't all finite.
    """
    if not 1 <= rank <= full_rank(tuple(weight.shape)):
        raise InputError(
            f"{name} is to be of rank {rank}: expected 1 to {full_rank(tuple(weight.shape))} of a weight of shape "
            f"{list(weight.shape)}."
        )
    left, values, right = torch.linalg.svd(_matrix(name, weight), full_matrices=False)
    signs = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()[0]
    root = values[:rank].sqrt()
    first = (root * signs[:rank])[:, None] * right[:rank]
    second = left[:, :rank] * (root * signs[:rank])
    shapes = (rank, *weight.shape[1:]), (len(weight), rank, *(1 for _ in weight.shape[2:]))
    # Copies: archives hold tensors that are the whole of their storage.
    given = (factor.reshape(shape).to(weight.dtype) for factor, shape in zip((first, second), shapes, strict=True))
    one, two = (factor.clone(memory_format=torch.contiguous_format) for factor in given)
    return one, two


def product(first: Tensor, second: Tensor) -> Tensor:
    """The weight (K, C, ...) that two factors (r, C, ...) and (K, r, ...) stand for."""
    return (second.flatten(1) @ first.flatten(1)).reshape(len(second), *first.shape[1:])


def least_error(name: str, weight: Tensor, rank: int) -> float:
    """The least squared error that an approximation of a rank has: the sum of the squares of what it leaves out."""
    return float(spectrum(name, weight)[rank:].sum())


def spectrum(name: str, weight: Tensor) -> Tensor:
    """Squares of a weight's singular values, the largest first, float64 (full rank,).

    Raises:
        InputError: Its values aren't all finite.
    """
    values: Tensor = torch.linalg.svdvals(_matrix(name, weight)).square()
    return values


def _matrix(name: str, weight: Tensor) -> Tensor:
    matrix = weight.detach().double().flatten(1)
    if not matrix.isfinite().all():
        raise InputError(f"{name} has values that are not finite: it can't be decomposed.")
    return matrix
