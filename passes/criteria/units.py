"""Values of units from values of their filters."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.groups import Group, Member


def as_filters(tensor: Tensor, member: Member) -> Tensor:
    """A tensor of a member's shape with its slices as rows, (K, rest)."""
    slices = tensor.detach().movedim(member.dim, 0)
    return slices.reshape(len(slices), -1)


def unit_means(
    group: Group, values_of: Callable[[Member], Tensor], producers: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Mean over the filters that go with each unit, float64 (count,).

    A sum would not compare fairly the units of one group that cover several filters with those of another.
    ``values_of`` gives a value for each filter of one of the group's producers, float64 (K,); where
    these are named, they alone count.
    """
    total, counted = np.zeros(group.count), group.producers if producers is None else producers
    for position in counted:
        total += values_of(group.members[position]).cpu().numpy()[group.slices[position]].sum(axis=1)
    return total / sum(group.members[position].slices_per_unit for position in counted)


def unit_sums(
    group: Group, tensors: Mapping[str, Tensor], values_of: Callable[[Member], Tensor]
) -> NDArray[np.float64]:
    """Sum over the filters of each unit, float64 (count,): what the loss changes by is the sum over all that goes.

    Filters of a weight with two names count once. ``values_of`` is as of `unit_means`.
    """
    total = np.zeros(group.count)
    for position in different(group, group.producers, tensors):
        total += values_of(group.members[position]).cpu().numpy()[group.slices[position]].sum(axis=1)
    return total


def different(group: Group, positions: Sequence[int], tensors: Mapping[str, Tensor]) -> list[int]:
    """Those of some members of a group that are different dimensions of different tensors."""
    by_tensor: dict[tuple[int, int], int] = {}
    for position in positions:
        member = group.members[position]
        by_tensor.setdefault((id(tensors[member.parameter]), member.dim), position)
    return list(by_tensor.values())


def mean_norms(group: Group, tensors: Mapping[str, Tensor], norms: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
    """Mean norm of the filters that go with each unit, float64 (count,)."""
    return unit_means(group, lambda member: norms(as_filters(tensors[member.parameter], member)))


def l1_norms(filters: Tensor) -> Tensor:
    """Sum of absolute weights of each filter (K, rest), float64 (K,)."""
    return filters.double().abs().sum(1)


def l2_norms(filters: Tensor) -> Tensor:
    """Euclidean norm of each filter (K, rest), float64 (K,)."""
    norms: Tensor = torch.linalg.vector_norm(filters, dim=1, dtype=torch.float64)
    return norms
