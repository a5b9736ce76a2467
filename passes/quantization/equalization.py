"""Cross-layer equalization: channels between layers are brought to ranges that grids of whole numbers suit.

Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019. One grid holds all channels of an activation, so a channel of small values has few steps of it; a factor that
makes it larger there, and the weights that read it smaller, changes no output.
"""

import torch
from torch import Tensor

from prunec.passes.base import PassResult
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.quantization.channel_scaling import (
    ChannelGroup,
    channel_groups,
    read_range,
    scale_values,
    scaled,
    values_of,
    written_range,
)

#: Rounds over all layers at most; each changes less than the one before.
_ROUNDS = 100
#: Change of a factor, relative to it, that is none.
_SETTLED = 1e-3


def equalize(program: Program) -> PassResult:
    """Give the filters that write a channel and the weights that read it the same range, between all layers.

    The function stays the same, with clips such as Relu6 too: their bounds become those of each channel. A channel
    that nothing writes or nothing reads stays as it is, and weights of zero stay zero.

    Args:
        program: The program, its batch norms folded where they can be.

    Returns:
        The new program; as facts how many groups of channels were equalized, how many of them clip by channel, and the
        largest factor or inverse of one.
    """
    groups = [group for group in channel_groups(program) if all(each.operator in WEIGHTED for each in group.writers)]
    factors = _balancing(groups, values_of(program, groups))
    largest = max((float(torch.max(factor.max(), 1 / factor.min())) for factor in factors.values()), default=1.0)
    facts = {"groups": len(groups), "clips": sum(bool(group.clips) for group in groups), "largest_factor": largest}
    return PassResult(scaled(program, factors), bool(groups), facts)


def _balancing(groups: list[ChannelGroup], values: dict[str, Tensor]) -> dict[ChannelGroup, Tensor]:
    """The factors that equalize ranges. A layer's weight writes one group and reads another, so all go in turn."""
    factors = {group: torch.ones(group.channels, dtype=torch.float64) for group in groups}
    for _ in range(_ROUNDS):
        change = 0.0
        for group in groups:
            factor = balance(written_range(group, values), read_range(group, values), 0.5)
            scale_values(group, factor, values)
            factors[group] = factors[group] * factor
            change = max(change, float((factor - 1).abs().max()))
        if change < _SETTLED:
            break
    return factors


def balance(written: Tensor, read: Tensor, share: float) -> Tensor:
    """The factors of channels that leave them ranges ``written ** (1 - share) * read ** (1 - share)``.

    Args:
        written: The range of what writes each channel, (channels,).
        read: The range of what reads it, (channels,).
        share: Share of the differences that goes to what reads, from 0 to 1.

    Returns:
        float64 (channels,); 1 where a range is zero.
    """
    factor = read ** (1 - share) / written**share
    return torch.where((written > 0) & (read > 0), factor, 1.0)
