"""Soft masks that an L1 penalty draws to zero, by FISTA (Beck and Teboulle, 2009). All arrays are float64."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.recovery.regimes.filter_budget import FilterBudget

Values = NDArray[np.float64]
#: The least mask of a unit that stays.
LEAST = 1e-3


def soft_threshold(values: Values, threshold: float) -> Values:
    """The values nearer to zero by a threshold, zero within it: the proximal step of an L1 penalty."""
    nearer: Values = np.sign(values) * np.maximum(np.abs(values) - threshold, 0)
    return nearer


@dataclass
class SoftMasks:
    """Masks of the units of some groups.

    Attributes:
        masks: The masks of each group, (count,).
        ahead: The points, ahead of the masks by their last movement, at which gradients are taken.
        scores: What units are ranked by: their masks, and for zeros, below zero, the order in which they went.
        momentum: FISTA's sequence t, 1 at first.
    """

    masks: list[Values]
    ahead: list[Values]
    scores: list[Values]
    momentum: float = 1.0

    @classmethod
    def ones(cls, counts: Sequence[int]) -> "SoftMasks":
        """Masks that change nothing."""
        masks, ahead, scores = ([np.ones(count) for count in counts] for _ in range(3))
        return cls(masks, ahead, scores)

    def step(
        self, gradients: Sequence[Values], rate: float, sparsity: float, budget: FilterBudget, *, last: bool
    ) -> list[NDArray[np.bool_]]:
        """One step of FISTA, with no more zeros than keep the budget, and in the last step with so many.

        Returns:
            The units of each group that the penalty alone would have set to zero.
        """
        moved = [point - rate * gradient for point, gradient in zip(self.ahead, gradients, strict=True)]
        gone = budget.lowest(moved)
        # Units of cheap layers may stay below others that go: the threshold mustn't take them, too.
        every, is_gone = np.concatenate(moved), np.concatenate(gone)
        enough = every[is_gone & (every < every[~is_gone].min(initial=np.inf))].max(initial=0.0)
        penalty = rate * sparsity
        threshold = float(enough if last else min(penalty, enough))
        zeros = gone if last else [go & (values <= threshold) for values, go in zip(moved, gone, strict=True)]
        masks = [
            np.where(is_zero, 0.0, np.maximum(soft_threshold(values, threshold), LEAST))
            for values, is_zero in zip(moved, zeros, strict=True)
        ]
        following = (1 + np.sqrt(1 + 4 * self.momentum**2)) / 2
        share = 0.0 if last else (self.momentum - 1) / following
        self.ahead = [
            np.where(new > 0, np.maximum(new + share * (new - old), LEAST), 0.0)
            for new, old in zip(masks, self.masks, strict=True)
        ]
        self.masks, self.momentum = masks, following
        went = np.concatenate([values[is_zero] for values, is_zero in zip(moved, zeros, strict=True)])
        highest = went.max(initial=0.0)
        self.scores = [np.where(m > 0, m, values - highest) for m, values in zip(masks, moved, strict=True)]
        return [soft_threshold(values, penalty) <= 0 for values in moved]
