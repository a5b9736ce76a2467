"""2:4 sparsity: of every 4 consecutive input channels at most 2 weights are not zero.

The groups of 4 run along the input channels, for each filter and kernel position on its own: the layout that
sparse tensor cores read (NVIDIA TensorRT developer guide, "Sparsity").
"""

from torch import Tensor

from prunec.passes.patterns.pattern import TWO_FOUR, Pattern
from prunec.passes.patterns.unit_masks import has_pattern, n_of_m_mask


def two_four_mask(scores: Tensor) -> Tensor:
    """Bool mask of the 2 highest scores (K, C, ...) of every 4 consecutive input channels; ties go to the lower one."""
    return n_of_m_mask(scores, 2, 4)


def is_two_four(weight: Tensor) -> bool:
    """Whether a weight (K, C, ...) has at most 2 non-zeros in every 4 consecutive input channels."""
    return has_pattern(Pattern.parse(TWO_FOUR), weight)
