"""Importance criteria: how much a unit of a coupled group is worth, from its filters alone.

A unit's score is the sum over the filters that go with it, divided by their number, so that units of one group
that cover several filters compare fairly with each other.
"""

import zlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.coupling import Group
from prunec.passes.errors import UsageError, did_you_mean

Scores = NDArray[np.float64]


def l1_norm(weight: Tensor) -> Tensor:
    """Sum of absolute weights of each filter, float64 (K,) (Li et al., ICLR 2017)."""
    return weight.flatten(1).to(torch.float64, copy=True).abs_().sum(1)


def l2_norm(weight: Tensor) -> Tensor:
    """Euclidean norm of each filter, float64 (K,) (He et al., IJCAI 2018)."""
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=torch.float64)
    return norms


#: Criterion -> score of each filter of a weight (K, ...); "random" needs no weight and is made in `scores`.
FILTER_SCORES: dict[str, Callable[[Tensor], Tensor]] = {"l1": l1_norm, "l2": l2_norm}
CRITERIA = (*FILTER_SCORES, "random")


def check_criterion(criterion: str) -> None:
    """Refuse an unknown criterion.

    Raises:
        UsageError: it is none of `CRITERIA`.
    """
    if criterion not in CRITERIA:
        raise UsageError(f"Unknown criterion {criterion!r}.", hint=did_you_mean(criterion, CRITERIA))


@torch.no_grad()
def scores(group: Group, tensors: Mapping[str, Tensor], criterion: str, seed: int) -> Scores:
    """Score of each unit of a group, float64 (count,); the lowest go first.

    Args:
        group: the units.
        tensors: parameters by name.
        criterion: one of `CRITERIA`.
        seed: of the random criterion, which draws for each group from its name, whatever else is pruned.
    """
    if criterion == "random":
        return np.random.default_rng([seed, zlib.crc32(group.name.encode())]).random(group.count)
    total = np.zeros(group.count)
    slices = 0
    for position in group.producers:
        rows, member = group.slices[position], group.members[position]
        weight = tensors[member.parameter].detach().movedim(member.dim, 0)
        total += FILTER_SCORES[criterion](weight).cpu().numpy()[rows].sum(axis=1)
        slices += rows.shape[1]
    return total / slices
