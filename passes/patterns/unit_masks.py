"""Masks from scores: the units of a weight, their scores, and which of them go."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import torch
from torch import Tensor

from prunec.passes.fours import at_most_of_each
from prunec.passes.patterns.pattern import ELEMENTS, Pattern
from prunec.passes.patterns.rule import MaskRule


def unit_numbers(pattern: Pattern, shape: Sequence[int]) -> Tensor:
    """The number of the unit that each weight of a shape (K, C, ...) belongs to, int64 of that shape.

    The units of N:M aren't numbered, since they are no set of weights that go together.
    """
    rows, columns, positions = shape[0], math.prod(shape[1:]), math.prod(shape[2:])
    row, column = torch.arange(rows)[:, None], torch.arange(columns)
    if pattern.block is not None:
        height, width = pattern.block
        numbers = row // height * math.ceil(columns / width) + column // width
    elif pattern.text == ELEMENTS:
        numbers = row * columns + column
    else:
        numbers = {"rows": row, "channels": column // positions, "columns": column}[pattern.text]
    return numbers.expand(rows, columns).reshape(tuple(shape))


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one weight, or of several.

    Attributes:
        scores: Sum of the scores of each one's weights, float64 (units,).
        sizes: Number of its weights, int64 (units,).
        gone: Whether it is masked already, bool (units,).
    """

    scores: Tensor
    sizes: Tensor
    gone: Tensor

    @classmethod
    def of(cls, pattern: Pattern, scores: Tensor, before: Tensor | None) -> Self:
        """The units of a weight, from a score for each element, and the mask that it has already."""
        numbers = unit_numbers(pattern, scores.shape).flatten().to(scores.device)
        sizes = torch.bincount(numbers)
        sums = torch.zeros(len(sizes), dtype=torch.float64, device=scores.device)
        sums.index_add_(0, numbers, scores.detach().flatten().double())
        gone = torch.zeros(len(sizes), dtype=torch.bool, device=scores.device)
        if before is not None:
            gone[numbers[~before.flatten()]] = True
        return cls(sums, sizes, gone)

    @classmethod
    def joined(cls, several: Iterable["Units"]) -> Self:
        """The units of several weights, one after the other."""
        parts = list(several)
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("scores", "sizes", "gone")))

    def lowest(self, wanted: Callable[[int, int], Fraction], *, most: int) -> Tensor:
        """Which units are masked, bool (units,): those that are, then the lowest, until as many weights are as wanted.

        Of equal scores the first stay.

        Args:
            wanted: Function of the number of weights, and of those masked already, that gives how many shall be
                (`MaskRule.wanted`).
            most: Number of units that may be masked at most; those that are already stay so all the same.
        """
        flipped = torch.argsort(self.scores.flip(0), stable=True)
        order = len(self.scores) - 1 - flipped
        order = order[torch.argsort((~self.gone[order]).to(torch.uint8), stable=True)]
        total = self.sizes[order].cumsum(0)
        need = math.ceil(wanted(int(self.sizes.sum()), int(self.sizes[self.gone].sum())))
        count = int(torch.searchsorted(total, need)) + 1 if need > 0 else 0
        masked = self.gone.clone()
        masked[order[: min(count, most)]] = True
        return masked


def masks_of(
    rule: MaskRule, scores: Mapping[str, Tensor], before: Mapping[str, Tensor], counts: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """The masks of some weights by name, bool of their shapes, True where a weight stays.

    Args:
        rule: How masks follow from scores. Where each layer loses its share, one unit of it stays.
        scores: The worth of each element by the weight's name (K, C, ...); the highest stay.
        before: Masks that weights have already: what is masked stays masked.
        counts: Number of weights to mask by the weight's name, 0 where it isn't here, in place of what the rule says;
            N:M has its own.
    """
    pattern = rule.pattern
    if pattern.n_of_m is not None:
        return {name: n_of_m_mask(each, *pattern.n_of_m, before.get(name)) for name, each in scores.items()}
    units = {name: Units.of(pattern, each, before.get(name)) for name, each in scores.items()}
    if counts is not None:
        masked = [each.lowest(_so_many(counts.get(name, 0)), most=len(each.sizes)) for name, each in units.items()]
    elif rule.allocation == "layer":
        masked = [each.lowest(rule.wanted, most=len(each.sizes) - 1) for each in units.values()]
    elif units:
        lengths = [len(each.sizes) for each in units.values()]
        gone_of_all = Units.joined(units.values()).lowest(rule.wanted, most=sum(lengths))
        masked = list(torch.split(gone_of_all, lengths))
    else:
        masked = []
    return {
        name: ~gone[unit_numbers(pattern, scores[name].shape).to(gone.device)]
        for name, gone in zip(units, masked, strict=True)
    }


def _so_many(count: int) -> Callable[[int, int], Fraction]:
    return lambda weights, masked: Fraction(count)


def n_of_m_mask(scores: Tensor, n: int, m: int, before: Tensor | None = None) -> Tensor:
    """Bool mask of the n highest scores (K, C, ...) of every m consecutive input channels; ties go to the lower one.

    What a mask of ``before`` masks stays masked.
    """
    if before is not None:
        scores = scores.masked_fill(~before, -math.inf)
    rows = scores.movedim(1, -1)
    groups = rows.reshape(*rows.shape[:-1], -1, m)
    # A stable descending sort keeps the lower channel first among equals.
    order = groups.sort(dim=-1, descending=True, stable=True).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    mask = mask.reshape(rows.shape).movedim(-1, 1).contiguous()
    return mask if before is None else mask & before


def has_pattern(pattern: Pattern, mask: Tensor) -> bool:
    """Whether a mask (K, C, ...) has a pattern; weights have it where they are not zero."""
    occupied = (mask.detach() != 0).cpu()
    if pattern.n_of_m is not None:
        n, m = pattern.n_of_m
        return mask.ndim > 1 and mask.shape[1] % m == 0 and at_most_of_each(occupied.numpy(), 1, n, m)
    if pattern.text == ELEMENTS:
        return True
    numbers = unit_numbers(pattern, mask.shape).flatten()
    kept, sizes = torch.bincount(numbers, weights=occupied.flatten().double()), torch.bincount(numbers)
    return bool(((kept == 0) | (kept == sizes)).all())


def holds_mask(weight: Tensor, mask: Tensor, pattern: Pattern) -> bool:
    """Whether a weight is zero where its mask is False, and the mask has its pattern."""
    return weight.shape == mask.shape and not bool(weight.detach()[~mask].any()) and has_pattern(pattern, mask)
