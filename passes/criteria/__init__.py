"""Criteria: by what pruning decides which filters and which single weights stay. Importing them imports no torch."""

from prunec.passes.criteria.catalogue import CRITERIA, criterion_text
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import Criterion, Seen, Statistic
from prunec.passes.criteria.statistics import Activation, GateGradient, InputMoments, Moments, WeightGradient

__all__ = [
    "CRITERIA", "Activation", "Criterion", "Evidence", "GateGradient", "InputMoments", "Moments", "Seen", "Statistic",
    "WeightGradient", "criterion_text",
]  # fmt: skip
