"""Smoothing: the outliers among the channels behind layer norms go into the weights of the layers that read them.

Xiao, Lin, Seznec, Wu, Demouth, Han, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models", ICML 2023. The inverse of the factors goes into the affine part of the norm, so that nothing is computed more.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from prunec.passes.base import PassResult
from prunec.passes.program import Program
from prunec.passes.quantization.channel_scaling import ChannelGroup, channel_groups, read_range, scaled, values_of
from prunec.passes.quantization.equalization import balance


def smoothable(program: Program) -> tuple[ChannelGroup, ...]:
    """The channels between layer norms and the layers that read them."""
    groups = channel_groups(program)
    return tuple(group for group in groups if all(each.operator == "layer_norm" for each in group.writers))


def smooth(program: Program, maxima: Mapping[str, Tensor], share: float = 0.5) -> PassResult:
    """Divide channels behind layer norms by ``max|x| ** share / max|w| ** (1 - share)``: the same function.

    Args:
        program: The program.
        maxima: The largest magnitude of each channel of what layers read, (channels,), by the name of the node that
            yields it: of the readers of all `smoothable` groups.
        share: Share of the differences between channels that goes into weights, from 0 to 1.

    Returns:
        The new program; as facts how many groups of channels were smoothed.

    Raises:
        ValueError: The share is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share that goes into weights must be from 0 to 1, got {share}")
    groups = smoothable(program)
    values = values_of(program, groups)
    read = {group: torch.stack([maxima[reader.source] for reader in group.readers]).amax(0) for group in groups}
    factors = {group: balance(read[group].double(), read_range(group, values), share) for group in groups}
    return PassResult(scaled(program, factors), bool(groups), {"groups": len(groups)})
