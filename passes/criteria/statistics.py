"""The statistics that prunec brings; a criterion may bring others."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from prunec.passes.criteria.protocol import Per, Seen, Source
from prunec.passes.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    #: A point near the mean, the number of rows, and sums of them and of their products about that point: about zero,
    #: float32 would lose small deviations from large means.
    _InputSums = tuple[Tensor, int, Tensor, Tensor]
    #: A sum and the number of its addends.
    _Sum = tuple[Tensor, int]

#: The quantity that is averaged: values, their magnitudes, their squares, or whether they are zero.
MomentKind = Literal["mean", "absolute", "square", "zeros"]
_MOMENTS: "Mapping[MomentKind, Callable[[Tensor], Tensor]]" = {
    "mean": lambda x: x,
    "absolute": lambda x: x.abs(),
    "square": lambda x: x.square(),
    "zeros": lambda x: x == 0,
}


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of the inputs that a layer's outputs see, in the order of `one_shot.to_rows`; float64.

    Attributes:
        count: Number of rows of inputs: samples times places.
        mean: Mean, (positions * C,).
        centred: Sum of (x - mean) (x - mean)^T, (positions * C, positions * C).
    """

    count: int
    mean: "Tensor"
    centred: "Tensor"

    @property
    def raw(self) -> "Tensor":
        """The sum of x x^T over all rows x."""
        return self.centred + self.count * self.mean.outer(self.mean)


@dataclass(frozen=True)
class InputMoments:
    """`Moments` of a layer's inputs, of convolutions without groups and linear layers."""

    looks_at: ClassVar[Source] = "inputs"
    per: ClassVar[Per] = "batch"

    def update(self, state: "_InputSums | None", seen: Seen) -> "_InputSums":
        """Add rows of inputs; the sums of the old state are reused."""
        start = seen.value.mean(0) if state is None else state[0]
        rows = seen.value - start
        total, squares = rows.sum(0).double(), (rows.T @ rows).double()
        if state is None:
            return start, len(rows), total, squares
        return start, state[1] + len(rows), state[2].add_(total), state[3].add_(squares)

    def result(self, state: "_InputSums") -> Moments:
        """The moments of all rows."""
        start, count, total, squares = state
        return Moments(count, start.double() + total / count, squares - total.outer(total) / count)


@dataclass(frozen=True)
class _Mean(ABC):
    """A mean over the values of a source, float64.

    Attributes:
        moment: Quantity that is averaged: values ("mean"), their magnitudes ("absolute"), their squares ("square"), or
            whether they are zero ("zeros").
        per: Whether gradients are those of each batch's loss, or of each sample's own loss.
    """

    moment: MomentKind
    per: Per

    def __post_init__(self) -> None:
        for option, value, known in (("moment", self.moment, get_args(MomentKind)), ("per", self.per, get_args(Per))):
            if value not in known:
                raise UsageError(f"{type(self).__name__}: {option} is {value!r}.", hint=did_you_mean(str(value), known))

    def update(self, state: "_Sum | None", seen: Seen) -> "_Sum":
        """Add one batch or sample; the sum of the old state is reused."""
        total, count = self._sum(seen.value)
        return (total, count) if state is None else (state[0].add_(total), state[1] + count)

    def result(self, state: "_Sum") -> "Tensor":
        """The mean over all that was seen."""
        return state[0] / state[1]

    @abstractmethod
    def _sum(self, value: "Tensor") -> "_Sum":
        """The sum over the values of a batch or sample, float64 and a tensor of its own, and their number."""


@dataclass(frozen=True)
class _MeanGradient(_Mean):
    """A mean of gradients of each batch's loss, or of each sample's own loss, by `per`."""

    moment: MomentKind = "square"
    per: Per = "batch"

    def _sum(self, value: "Tensor") -> "_Sum":
        import torch

        return _MOMENTS[self.moment](value.to(torch.float64, copy=True)), 1


@dataclass(frozen=True)
class WeightGradient(_MeanGradient):
    """Mean gradient of the loss by a parameter, of its shape, float64.

    Its magnitude is what SNIP multiplies with the weight (Lee et al., ICLR 2019), the square of each sample's the
    diagonal of the empirical Fisher information (Theis et al., 2018).
    """

    looks_at: ClassVar[Source] = "weight gradients"


@dataclass(frozen=True)
class GateGradient(_MeanGradient):
    """Mean derivative of the loss by a factor 1 on each unit of a group, float64 (group.count,).

    The factor stands on what makes the unit: behind the batch norm where one follows the layer directly, else on
    the layer's outputs, bias included; not on grouped convolutions that pass on what another layer made. Its square
    is the first-order Taylor criterion (Molchanov et al., CVPR 2019).
    """

    looks_at: ClassVar[Source] = "gate gradients"


@dataclass(frozen=True)
class BatchNormGate(_MeanGradient):
    """Mean derivative of the loss by a factor 1 behind all batch norms whose channels are a group's units, float64
    (group.count,): gamma dL/dgamma + beta dL/dbeta of their scales and shifts (Molchanov et al., CVPR 2019).

    Groups without a batch norm have none.
    """

    looks_at: ClassVar[Source] = "batch norm gates"


@dataclass(frozen=True)
class _MeanActivation(_Mean):
    """A mean over samples and places of the channels of values (N, C, ...)."""

    moment: MomentKind = "mean"
    per: Per = field(default="batch", init=False)

    def _sum(self, value: "Tensor") -> "_Sum":
        import torch

        values = _MOMENTS[self.moment](value[..., None]).flatten(2)  # (N, C, places)
        # In double only over samples, which is several times as fast.
        of_samples = values.sum(2, dtype=torch.promote_types(values.dtype, torch.float32))
        return of_samples.double().sum(0), value.numel() // value.shape[1]


@dataclass(frozen=True)
class Activation(_MeanActivation):
    """Mean of each filter's outputs over samples and places, float64 (K,); "zeros" is APoZ (Hu et al., "Network
    Trimming", 2016).
    """

    looks_at: ClassVar[Source] = "outputs"


@dataclass(frozen=True)
class InputActivation(_MeanActivation):
    """Mean of each channel that a convolution or linear layer reads over samples and places, float64 (C,)."""

    looks_at: ClassVar[Source] = "input channels"
