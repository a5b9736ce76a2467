"""Cross-layer equalization: channels between layers are brought to ranges that grids of whole numbers suit.

Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019. One grid holds all channels of an activation, so a channel of small values has few steps of it; a factor that
makes it larger there, and the weights that read it smaller, changes no output.
"""

from collections.abc import Mapping

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
#: Largest factor of a channel, and largest inverse of one.
_LARGEST = 2.0**8
#: A channel whose range is a smaller share of the largest is dead, as weight decay leaves it: it has nothing to scale.
_NEGLIGIBLE = 2.0**-12


def equalize(program: Program) -> PassResult:
    """Give the filters that write a channel and the weights that read it the same range, between all layers.

    The function stays the same, with clips such as Relu6 too: their bounds become those of each channel. A channel
    that next to nothing writes or reads stays as it is, and weights of zero stay zero. Factors are bounded, and no bias
    grows beyond what the layer's other channels reach: one grid holds them all.

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
    most = {group: _most(group, values) for group in groups}
    for _ in range(_ROUNDS):
        change = 0.0
        for group in groups:
            wanted = factors[group] * balance(written_range(group, values), read_range(group, values), 0.5)
            bounded = wanted.clamp(min=1 / _LARGEST).minimum(most[group])
            factor, factors[group] = bounded / factors[group], bounded
            scale_values(group, factor, values)
            change = max(change, float((factor - 1).abs().max()))
        if change < _SETTLED:
            break
    return factors


def _most(group: ChannelGroup, values: Mapping[str, Tensor]) -> Tensor:
    """The largest factor of each channel, float64 (channels,): none takes a bias beyond what the layer reaches.

    That is the largest of a channel's bias and three deviations of its output, for inputs of mean 0 and variance 1.
    """
    most = torch.full((group.channels,), _LARGEST, dtype=torch.float64)
    for writer in group.writers:
        if writer.bias is not None:
            bias = values[writer.bias].abs()
            reach = (3 * values[writer.weight].reshape(group.channels, -1).norm(dim=1)).maximum(bias).amax()
            most = most.minimum(torch.where(bias > 0, reach / bias, _LARGEST))
    return most


def balance(written: Tensor, read: Tensor, share: float) -> Tensor:
    """The factors of channels that leave them ranges ``written ** (1 - share) * read ** (1 - share)``.

    Args:
        written: The range of what writes each channel, (channels,).
        read: The range of what reads it, (channels,).
        share: Share of the differences that goes to what reads, from 0 to 1.

    Returns:
        float64 (channels,); 1 where a range is zero, or next to it by the largest of all channels.
    """
    factor = read ** (1 - share) / written**share
    is_alive = [(each > 0) & (each >= _NEGLIGIBLE * each.amax()) for each in (written, read)]
    return torch.where(is_alive[0] & is_alive[1], factor, 1.0)
