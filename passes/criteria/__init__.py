"""Criteria: by what pruning decides which filters and which single weights stay. Importing them imports no torch."""

from prunec.passes.criteria.catalogue import CRITERIA, criterion_text
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import Criterion, Seen, Statistic
from prunec.passes.criteria.statistics import (
    Activation,
    BatchNormGate,
    GateGradient,
    InputActivation,
    InputMoments,
    Moments,
    WeightGradient,
)

__all__ = [
    "CRITERIA", "Activation", "BatchNormGate", "Criterion", "Evidence", "GateGradient", "InputActivation",
    "InputMoments", "Moments", "Seen", "Statistic", "WeightGradient", "criterion_text",
]  # fmt: skip
