"""Sets of units whose removal costs least by a second-order model of the loss, cross terms included."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Which units are gone, bool (n,).
Gone = NDArray[np.bool_]
#: Changes below this share of the model's largest coefficient are noise.
_NOISE = 1e-12


@dataclass(frozen=True, eq=False)
class LossModel:
    """The change of a loss by the removal of units z in {0, 1}^n: z^T H z / 2 - b^T z.

    Attributes:
        gradient: b, the loss's derivative by a factor 1 on each unit, float64 (n,).
        hessian: H, symmetric, float64 (n, n).
    """

    gradient: Floats
    hessian: Floats

    def __len__(self) -> int:
        return len(self.gradient)

    def change(self, gone: Gone) -> float:
        """The change of the loss without some units."""
        z = gone.astype(np.float64)
        return float(z @ self.hessian @ z / 2 - self.gradient @ z)

    def steps(self, gone: Gone) -> Floats:
        """What each unit adds when it goes beside those that are gone, (n,); of these, what it adds once more."""
        steps: Floats = self.hessian.diagonal() / 2 - self.gradient + self.hessian[:, gone].sum(axis=1)
        return steps


def removal_order(model: LossModel, most: int | None = None) -> tuple[NDArray[np.int64], Floats]:
    """Units in the order in which each costs least beside those before it, of equal ones the first, and these costs.

    Args:
        model: The model.
        most: Number of units that go; all by default.
    """
    most = len(model) if most is None else most
    steps, order, added = model.steps(np.zeros(len(model), dtype=bool)), np.empty(most, dtype=np.int64), np.empty(most)
    for place in range(most):
        unit = int(steps.argmin())
        order[place], added[place] = unit, steps[unit]
        steps += model.hessian[unit]
        steps[unit] = np.inf
    return order, added


def least_change(model: LossModel, count: int) -> Gone:
    """A set of ``count`` units whose removal changes the loss by little: at a local minimum under exchanges of two.

    It is the better of two: unit by unit the one that costs least to remove from the whole, and the one that brings
    most back to none; of both, units are exchanged in pairs as long as that lowers the loss, the best pair first, and
    as often as there are units at most. Without cross terms it is the best of all.
    """
    minima = [_exchanged(model, start) for start in (_removed(model, count), _left_out(model, count))]
    from_whole, from_none = (model.change(gone) for gone in minima)
    return minima[int(from_none < from_whole - _noise(model))]


def _removed(model: LossModel, count: int) -> Gone:
    gone = np.zeros(len(model), dtype=bool)
    gone[removal_order(model, count)[0]] = True
    return gone


def _left_out(model: LossModel, count: int) -> Gone:
    """What is not brought back, unit by unit, of equal ones the last first, to a network without units."""
    gone = np.ones(len(model), dtype=bool)
    brought = model.steps(gone) - model.hessian.diagonal()
    for _ in range(len(model) - count):
        unit = len(model) - 1 - int(brought[::-1].argmax())
        gone[unit] = False
        brought -= model.hessian[unit]
        brought[unit] = -np.inf
    return gone


def _exchanged(model: LossModel, gone: Gone) -> Gone:
    gone, steps, diagonal = gone.copy(), model.steps(gone), model.hessian.diagonal()
    for _ in range(len(model)):
        back, goes = np.flatnonzero(gone), np.flatnonzero(~gone)
        changes = steps[goes] + (diagonal[back] - steps[back])[:, None] - model.hessian[np.ix_(back, goes)]
        if not changes.size or changes.min() >= -_noise(model):
            break
        row, column = np.unravel_index(int(changes.argmin()), changes.shape)
        gone[back[row]], gone[goes[column]] = False, True
        steps += model.hessian[goes[column]] - model.hessian[back[row]]
    return gone


def _noise(model: LossModel) -> float:
    largest = max(float(np.abs(part).max(initial=0.0)) for part in (model.gradient, model.hessian))
    return _NOISE * largest
