"""The shares that input channels have in what a layer gives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Per, Seen, Source
from prunec.passes.errors import NumericMismatchError
from prunec.passes.interruption import stoppable

if TYPE_CHECKING:
    from torch import Tensor

#: Inputs, rows of them, and products with weights that are worked on at a time, as a processor's cache holds them.
_INPUTS, _ROWS, _PRODUCTS = 2**20, 64, 2**19


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """What a layer's outputs lose at most without one of its input channels.

    Attributes:
        channels: The largest share of a channel in an output's sum, float64 (C,), from 0 to 1.
        looked_at: Number of the places, of all samples, at which outputs were looked at.
        filters: Number of the layer's filters.
    """

    channels: "Tensor"
    looked_at: int
    filters: int


@dataclass(frozen=True)
class InputSensitivity:
    """`Sensitivities` of a layer's input channels: of convolutions without groups and linear layers.

    At each place and for each filter, products of weights and inputs are summed channel by channel, those of each sign
    of the weight and of the input apart, and the share of each channel in the sum over all channels is taken.

    It costs twice as many multiplications as the layer itself where its inputs are not negative, else four times, and
    as often a product and a comparison for each place, filter and channel, which take longer than the layer.

    Attributes:
        images: The most samples that are looked at.
    """

    images: int

    looks_at: ClassVar[Source] = "inputs"
    per: ClassVar[Per] = "batch"

    def update(self, state: Sensitivities | None, seen: Seen) -> Sensitivities:
        """Take the largest of what is known and what rows of inputs show.

        Raises:
            NumericMismatchError: The rows are not finite, or too large to be compared.
        """
        import torch

        assert seen.weight is not None, "inputs come with the weight that reads them"
        filters, channels = seen.weight.shape[:2]
        weight = seen.weight.reshape(filters, channels, -1).permute(1, 2, 0).contiguous()
        signs = weight.clamp(min=0), weight.clamp(max=0).neg()
        largest = torch.zeros(channels, dtype=torch.float64) if state is None else state.channels
        for rows in stoppable(torch.split(seen.value, max(1, _INPUTS // seen.value.shape[1]))):
            for positive in (rows.clamp(min=0), rows.clamp(max=0).neg()):
                if positive.any():  # behind a ReLU none is negative
                    shares = [_largest_shares(positive, part) for part in signs]
                    largest = largest.maximum(torch.maximum(*shares).double().cpu())
        looked_at = len(seen.value) + (0 if state is None else state.looked_at)
        return Sensitivities(largest, looked_at, filters)

    def result(self, state: Sensitivities) -> Sensitivities:
        """The sensitivities."""
        return state


def _largest_shares(rows: "Tensor", weight: "Tensor") -> "Tensor":
    """The largest share of each channel over rows and filters, none of them negative; (C,).

    Args:
        rows: Values under the kernel, (rows, positions * C).
        weight: (C, positions, filters).

    Raises:
        NumericMismatchError: A sum is not finite.
    """
    import torch

    channels, positions, filters = weight.shape
    totals = rows @ weight.transpose(0, 1).flatten(0, 1)
    if not totals.isfinite().all():
        raise NumericMismatchError("Inputs of a layer are not finite on the data: no channel's share can be told.")
    inverse = torch.where(totals > 0, totals.reciprocal(), 0)  # of nothing a channel has no share
    channels_at_once = max(1, _PRODUCTS // (_ROWS * filters))
    largest = rows.new_zeros(channels)
    for some, over in zip(torch.split(rows, _ROWS), torch.split(inverse, _ROWS), strict=True):
        inputs = some.reshape(-1, positions, channels).permute(2, 0, 1)
        blocks = (torch.split(each, channels_at_once) for each in (inputs, weight, largest))
        for read, part, most in zip(*blocks, strict=True):
            if positions == 1:  # an input is a factor of all its shares
                shares = ((over * part).amax(2) * read[..., 0]).amax(1)
            else:
                shares = (read @ part).mul_(over).amax((1, 2))
            torch.maximum(most, shares, out=most)
    return largest.clamp(max=1)  # rounding
