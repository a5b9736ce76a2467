"""Saliencies of weights: the magnitude of the derivative of the loss by a factor c = 1 on each, |dL/dc| = |w dL/dw|."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.statistics import WeightGradient
from prunec.passes.criteria.units import as_filters, unit_sums
from prunec.passes.groups import Group, Member

_GRADIENT = WeightGradient("mean")


def saliencies(weight: Tensor, gradient: Tensor) -> Tensor:
    """The saliency of each element, float64."""
    return (weight.detach().double() * gradient).abs()


def unit_saliencies(group: Group, evidence: Evidence) -> NDArray[np.float64]:
    """Sum over the weights of each unit, float64 (count,)."""

    def of_filters(member: Member) -> Tensor:
        name = member.parameter
        return as_filters(saliencies(evidence.tensors[name], evidence.of(_GRADIENT, name)), member).sum(1)

    return unit_sums(group, evidence.tensors, of_filters)


def total_saliency(evidence: Evidence) -> float:
    """Sum over all weights of two and more dimensions of the network; one with two names counts once."""
    places = [place for statistic, place in evidence.measured if statistic == _GRADIENT]
    weights = {id(evidence.tensors[place]): place for place in places if evidence.tensors[place].ndim > 1}
    sums = (saliencies(evidence.tensors[name], evidence.of(_GRADIENT, name)).sum() for name in weights.values())
    return float(sum(sums))
