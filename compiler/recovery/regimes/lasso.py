"""The group lasso: Euclidean norms of groups of weights, and their subgradients."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class WeightsOfGroups(Protocol):
    """The weights of one parameter, divided among groups."""

    @property
    def parameter(self) -> nn.Parameter: ...

    @property
    def weights(self) -> int:
        """Number of weights that each group has here."""
        ...

    def squares(self) -> Tensor:
        """Sum of each group's squared weights, float64 (groups,)."""
        ...

    def spread(self, values: Tensor) -> Tensor:
        """A value for each group (groups,) at its weights, in a shape that broadcasts to the parameter's."""
        ...


@dataclass(frozen=True, eq=False)
class WeightColumns:
    """The columns of a convolution's weight (K, C, ...): one position of its kernels in all K filters each.

    They are the columns of the matrix that unfolded inputs are multiplied with.
    """

    parameter: nn.Parameter

    @property
    def weights(self) -> int:
        """Number of filters."""
        return len(self.parameter)

    def squares(self) -> Tensor:
        """Sum of squares of each column, float64 (C * ...,)."""
        return self.parameter.detach().flatten(1).double().square().sum(0)

    def spread(self, values: Tensor) -> Tensor:
        """Values of columns in the shape of one filter."""
        return values.view(1, *self.parameter.shape[1:])


@dataclass(frozen=True, eq=False)
class WholeParameter:
    """All weights of a parameter, as part of one group."""

    parameter: nn.Parameter

    @property
    def weights(self) -> int:
        """Number of the parameter's weights."""
        return self.parameter.numel()

    def squares(self) -> Tensor:
        """Sum of all squares, float64 (1,)."""
        return self.parameter.detach().double().square().sum()[None]

    def spread(self, values: Tensor) -> Tensor:
        """The one value, in as many dimensions as the parameter has."""
        return values.view([1] * self.parameter.ndim)


@dataclass(frozen=True, eq=False)
class Lasso:
    """Groups of weights under a penalty of their norms.

    Attributes:
        name: Name of the layer, coupled group or branch that they are of.
        parts: The parameters that hold the groups' weights.
    """

    name: str
    parts: Sequence[WeightsOfGroups]

    def norms(self) -> Tensor:
        """Euclidean norm of each group, float64 (groups,)."""
        return torch.stack([part.squares() for part in self.parts]).sum(0).sqrt()

    def root_mean_squares(self) -> Tensor:
        """Root mean square of each group's weights, float64 (groups,)."""
        return self.norms() / math.sqrt(sum(part.weights for part in self.parts))

    @torch.no_grad()
    def add_subgradient(self, factor: float) -> None:
        """Add the gradient of the sum of norms times a factor to the parameters' gradients, 0 where a norm is 0."""
        norms = self.norms()
        inverse = torch.where(norms > 0, 1 / norms, 0.0)
        for part in self.parts:
            gradient = part.parameter.grad
            if gradient is not None:
                gradient.addcmul_(part.spread(inverse.to(gradient.dtype)), part.parameter, value=factor)
