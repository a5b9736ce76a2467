"""The shares that input channels have in what a layer gives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Per, Seen, Source
from prunec.passes.errors import NumericMismatchError
from prunec.passes.interruption import stoppable

if TYPE_CHECKING:
    from torch import Tensor

#: Products of weights and inputs that are held at a time.
_CHUNK = 2**22


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
    about as many sums and divisions as there are places, filters and channels.

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
        weight = seen.weight.reshape(filters, channels, -1).permute(1, 2, 0)
        filters_at_once = max(1, _CHUNK // channels)
        rows_at_once = max(1, _CHUNK // (channels * min(filters, filters_at_once)))
        largest = torch.zeros(channels, dtype=torch.float64) if state is None else state.channels
        for rows in stoppable(seen.value.split(rows_at_once)):
            inputs = rows.unflatten(1, (-1, channels)).permute(2, 0, 1)
            for part in weight.split(filters_at_once, dim=2):
                largest = torch.maximum(largest, _largest_shares(inputs, part).double().cpu())
        if not largest.isfinite().all():
            raise NumericMismatchError("Inputs of a layer are not finite on the data: no channel's share can be told.")
        looked_at = len(seen.value) + (0 if state is None else state.looked_at)
        return Sensitivities(largest, looked_at, filters)

    def result(self, state: Sensitivities) -> Sensitivities:
        """The sensitivities."""
        return state


def _largest_shares(inputs: "Tensor", weight: "Tensor") -> "Tensor":
    """The largest share of each channel over rows, filters and parts by sign, (C,).

    Args:
        inputs: Values under the kernel, (C, rows, positions).
        weight: (C, positions, filters).
    """
    import torch

    largest = inputs.new_zeros(len(inputs))
    for signed in (inputs, -inputs):
        positive = signed.clamp(min=0)
        if not positive.any():  # as behind a ReLU
            continue
        for part in (weight.clamp(min=0), weight.clamp(max=0).neg()):
            products = positive @ part
            shares = products.div_(products.sum(0).clamp_(min=torch.finfo(products.dtype).tiny))
            largest = largest.maximum(shares.amax((1, 2)))
    return largest.clamp(max=1)  # rounding
