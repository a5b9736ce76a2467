"""The penalty of growing regularization (Wang et al., ICLR 2021) over the steps of a training of any length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.course import rates
from prunec.compiler.recovery.running_hook import TrainingContext
from prunec.passes.errors import UsageError

#: The paper's increments of a penalty on pruned filters, up to 1, and of one on all filters, up to _PICKED.
_INCREMENT, _INCREMENT_OF_ALL = 1e-4, 1e-5
#: The paper's penalty at which filters are chosen.
_PICKED = 1e-2


@dataclass(frozen=True)
class PenaltyCourse:
    """The penalty at each step: the paper's course in as many steps as there are.

    Attributes:
        picking: Steps in which it grows on all filters, before some are chosen; 0 where they are chosen first.
        growing: Steps in which it grows on the chosen ones; afterwards it stays.
        scale: Factor of the paper's penalties, which end at 1.
    """

    picking: int
    growing: int
    scale: float

    def at(self, step: int) -> float:
        """The penalty at a step, counted from 0, of filters that are pruned, and of all before some are chosen."""
        if step < self.picking:
            return self.scale * _PICKED * _grown(step, self.picking, round(_PICKED / _INCREMENT_OF_ALL))
        least = _PICKED if self.picking else 0.0
        grown = _grown(step - self.picking, self.growing, round((1 - least) / _INCREMENT))
        return self.scale * (least + (1 - least) * grown)

    def of_kept(self, step: int) -> float:
        """The penalty of filters that stay: from where all were it falls as fast as that of the pruned ones grows."""
        return max(0.0, 2 * self.scale * _PICKED - self.at(step)) if self.picking else 0.0

    @classmethod
    def of(
        cls, hook: TrainingHook, training: TrainingContext, total: float, *, stabilise: float, pick: float = 0.0
    ) -> "PenaltyCourse":
        """The course of a hook over a training.

        Raises:
            UsageError: The training has too few steps.
        """
        of_steps = rates(training)
        if len(of_steps) < 3:
            raise UsageError(
                f"recover: {hook.name} needs at least 3 steps, for its penalty to grow and to stay, and the training "
                f"has {len(of_steps)}.",
                hint="Train for more epochs, or in smaller batches.",
            )
        return cls.over(of_steps, total, stabilise=stabilise, pick=pick)

    @classmethod
    def over(
        cls, learning_rates: Sequence[float], total: float, *, stabilise: float, pick: float = 0.0
    ) -> "PenaltyCourse":
        """The course over steps of some learning rates whose sum of rate times penalty is ``total``.

        Args:
            learning_rates: The learning rate of each of at least 3 steps.
            total: Sum over the steps of learning rate times penalty.
            stabilise: Share of the steps at the full penalty.
            pick: Share of the steps before filters are chosen; 0 where they are chosen first.
        """
        steps = len(learning_rates)
        picking = max(1, round(pick * steps)) if pick else 0
        course = cls(picking, max(1, steps - picking - max(1, round(stabilise * steps))), 1.0)
        return replace(
            course, scale=total / math.fsum(rate * course.at(step) for step, rate in enumerate(learning_rates))
        )


def _grown(step: int, steps: int, increments: int) -> float:
    """The share of so many equal increments that are made by a step, which comes after its own."""
    return min(increments, -(-increments * (step + 1) // steps)) / increments
