"""{0, 1}^n with sum k as the box and the sphere that meet there, and the multipliers that draw values to both.

Wu and Ghanem, "lp-Box ADMM", TPAMI 2019, as "Compressing Convolutional Neural Networks via Factorized Convolutional
Filters" (Li et al., CVPR 2019) uses it. All arrays are float64 (n,).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def nearest_in_box(values: Values, total: float) -> Values:
    """The nearest point with 0 <= z <= 1 and a given sum, from 0 to n.

    It is clip(values - shift, 0, 1) for one shift (from the conditions of optimality). The sum falls with the shift,
    linearly between the points where a value enters or leaves the box: bisection finds the piece.
    """

    def surplus(shift: float) -> float:
        return float(np.clip(values - shift, 0, 1).sum()) - total

    points = np.sort(np.concatenate([values - 1, values]))
    low, high = 0, len(points) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if surplus(points[middle]) >= 0 else (low, middle)
    above, below = surplus(points[low]), surplus(points[high])
    share = above / (above - below) if above > below else 0.0
    nearest: Values = np.clip(values - (points[low] + share * (points[high] - points[low])), 0, 1)
    return nearest


def nearest_on_sphere(values: Values) -> Values:
    """The nearest point on the sphere about 1/2 of radius sqrt(n) / 2; of the centre, the corner of ones."""
    apart = values - 0.5
    length = float(np.linalg.norm(apart))
    if not length:
        apart, length = np.ones_like(values), float(np.sqrt(len(values)))
    nearest: Values = 0.5 + apart * (np.sqrt(len(values)) / (2 * length))
    return nearest


@dataclass
class BinaryFactors:
    """Factors on their way to {0, 1}^n with sum ``kept``.

    Attributes:
        kept: How many are to be 1.
        values: The factors.
        box: Multipliers of the box.
        sphere: Multipliers of the sphere.
    """

    kept: int
    values: Values
    box: Values
    sphere: Values

    @classmethod
    def beginning(cls, kept: int, norms: Values) -> "BinaryFactors":
        """Factors 1, those of lower norms less by a thousandth at most."""
        ranks = np.argsort(np.argsort(-norms, kind="stable"), kind="stable")
        return cls(kept, 1 - 1e-3 * ranks / len(norms), np.zeros(len(norms)), np.zeros(len(norms)))

    def step(self, gradient: Values, rho: float, alpha: float, rate: float) -> None:
        """One iteration.

        Args:
            gradient: The loss's, by the factors.
            rho: Strength of the penalty.
            alpha: Share of the multipliers in the gradient.
            rate: Learning rate; no larger one is taken than one at which the penalty would grow.
        """
        in_box = nearest_in_box(self.values + self.box / rho, self.kept)
        on_sphere = nearest_on_sphere(self.values + self.sphere / rho)
        drawn = self.box + self.sphere + rho * (2 * self.values - in_box - on_sphere)
        self.values = self.values - min(rate, 1 / (2 * alpha * rho)) * (alpha * drawn + (1 - alpha) * gradient)
        self.box = self.box + rho * (self.values - in_box)
        self.sphere = self.sphere + rho * (self.values - on_sphere)

    @property
    def distance(self) -> float:
        """The largest distance of a factor from the 0 or 1 that it is to be: the ``kept`` largest are to be 1."""
        ones = np.zeros(len(self.values))
        ones[np.argsort(self.values, kind="stable")[len(ones) - self.kept :]] = 1
        return float(np.abs(self.values - ones).max())
