"""A weight while units go and ranks fall: what is left of it, what a step would lose of it, and what it computes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.cost import Layer
from prunec.passes.factors import full_rank, rank_step


@dataclass(eq=False)
class WeightState:
    """What is left of a weight.

    Losses are shares of the squared norm that it had at first, so that they compare between layers.

    Attributes:
        layer: The layer.
        values: What is left, float64 in the weight's own shape; what went is zero.
        norm: The squared norm at first.
        is_free: Whether the weight may be decomposed.
        kept: Number of slices that are left, by dimension.
        rank: The rank that it was brought to; None for no lower one.
    """

    layer: Layer
    values: Tensor
    norm: float
    is_free: bool
    kept: list[int]
    rank: int | None = None
    _spectrum: Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, layer: Layer, weight: Tensor, *, is_free: bool) -> "WeightState":
        """The weight of a layer before any step."""
        values = weight.detach().double()
        return cls(layer, values, float(values.square().sum()), is_free, list(weight.shape))

    @property
    def lost(self) -> float:
        """Share of the squared norm that is lost so far."""
        return max(0.0, self._share(self.norm - float(self.values.square().sum())))

    @property
    def chosen_rank(self) -> int | None:
        """The rank by which the layer is decomposed; None where it stays whole, since two layers save nothing."""
        return self.rank if self.saved(self.rank) else None

    @property
    def parameters_saved(self) -> int:
        """Numbers of the weight that its rank saves."""
        return self._fewer(self.rank, self.kept)

    def saved(self, rank: int | None, kept: Sequence[int] | None = None) -> float:
        """MACs that a rank saves of the whole layer's, at so many slices by dimension; none where two need more."""
        return self.layer.macs / prod(self.layer.shape) * self._fewer(rank, self.kept if kept is None else kept)

    def rank_step(self, round_to: int) -> int:
        """What ranks are multiples of."""
        return rank_step(self.layer.shape, round_to)

    def unit_losses(self, slices: Mapping[int, NDArray[np.int64]]) -> NDArray[np.float64]:
        """Loss by each unit alone, (units,), of which the slices (units, slices of one) by dimension go.

        Where a unit has slices of two dimensions, what both share is lost once.
        """
        dims, squares = sorted(slices), self.values.square()
        sums = squares.sum([dim for dim in range(squares.ndim) if dim not in dims]).numpy()
        losses = np.zeros(len(slices[dims[0]]))
        for axis, dim in enumerate(dims):
            losses += sums.sum(axis=tuple(a for a in range(sums.ndim) if a != axis))[slices[dim]].sum(axis=1)
        if len(dims) == 2:
            losses -= sums[slices[dims[0]][:, :, None], slices[dims[1]][:, None, :]].sum(axis=(1, 2))
        return losses / (self.norm or 1.0)

    def lower_ranks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every lower rank that saves more, ascending, with its loss and the MACs that it saves more; (ranks,)."""
        energies, filters, inputs = self._energies(), self.kept[0], prod(self.kept[1:])
        most = max(1, len(energies) if self.rank is None else min(self.rank, len(energies)))
        ranks = torch.arange(1, most)
        fewer = (filters * inputs - ranks.double() * (filters + inputs)).clamp(min=0)
        saved = self.layer.macs / prod(self.layer.shape) * fewer - self.saved(self.rank)
        losses = energies.flip(0).cumsum(0).flip(0)[1:most] / (self.norm or 1.0)
        return ranks[saved > 0], losses[saved > 0], saved[saved > 0]

    def loss_of(self, slices: Mapping[int, Sequence[int]]) -> float:
        """The loss by slices by dimension that go together."""
        return self._share(float(self.values.square().sum() - self._without(slices).square().sum()))

    def remove(self, slices: Mapping[int, Sequence[int]]) -> None:
        """Remove slices by dimension, none of which went before."""
        self.values, self._spectrum = self._without(slices), None
        for dim, indices in slices.items():
            self.kept[dim] -= len(indices)

    def lower(self, rank: int) -> None:
        """Bring the weight to a lower rank: its best approximation takes its place."""
        rows = self.values.flatten(1)
        is_wide = len(rows) <= rows.shape[1]
        basis = torch.linalg.eigh(rows @ rows.T if is_wide else rows.T @ rows).eigenvectors[:, -rank:]
        near = basis @ (basis.T @ rows) if is_wide else (rows @ basis) @ basis.T
        self.values, self.rank, self._spectrum = near.reshape(self.values.shape), rank, None

    @staticmethod
    def _fewer(rank: int | None, kept: Sequence[int]) -> int:
        filters, inputs = kept[0], prod(kept[1:])
        return 0 if rank is None else max(0, filters * inputs - rank * (filters + inputs))

    def _energies(self) -> Tensor:
        """Squared singular values, the largest first, float64: as many as the rank can be."""
        if self._spectrum is None:
            rows = self.values.flatten(1)
            gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
            self._spectrum = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)[: full_rank(tuple(self.kept))]
        return self._spectrum

    def _without(self, slices: Mapping[int, Sequence[int]]) -> Tensor:
        left = self.values.clone()
        for dim, indices in slices.items():
            left.index_fill_(dim, torch.as_tensor(indices, dtype=torch.int64), 0)
        return left

    def _share(self, energy: float) -> float:
        return energy / self.norm if self.norm else 0.0
