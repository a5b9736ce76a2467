"""The protocols of criteria and of the statistics that they ask for.

A criterion is a frozen dataclass: its name and its needs belong to the class, its options are the fields. It has one or
more of the methods below, each in a protocol of its own; which ones it has decides in which steps it can be used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group

#: The values that a statistic looks at.
Source = Literal[
    "inputs", "input channels", "outputs", "joined outputs", "weight gradients", "gate gradients", "batch norm gates",
]  # fmt: skip
#: Whether gradients are those of a batch's loss, or those of each sample's own loss.
Per = Literal["batch", "sample"]
#: The word of `Criterion.needs` for each source. Masks that are chosen by "inputs" get those that the layers masked
#: before yield; input channels are those of the network as it is, outputs of the layers before.
NEED_OF_SOURCE: Mapping[Source, str] = {
    "inputs": "inputs", "input channels": "outputs", "outputs": "outputs", "joined outputs": "outputs",
    "weight gradients": "gradients", "gate gradients": "gradients", "batch norm gates": "gradients",
}  # fmt: skip
#: Everything that a criterion can need; "decisions" are those of the hooks of a training before the pruning.
NEEDS = frozenset({"weights", "labels", "decisions", *NEED_OF_SOURCE.values()})


@dataclass(frozen=True)
class Seen:
    """The values that a statistic is updated with.

    Attributes:
        value: A tensor by the statistic's source: "inputs" (rows, kernel positions * C) that each output of a layer
            sees, input channels consecutive, in several parts where a batch is large; "input channels" (N, C, ...),
            what a convolution or linear layer reads; "outputs" (N, K, ...), behind the batch norm and the pointwise
            operator, such as an activation, that follow the layer directly; "joined outputs" likewise, but behind the
            sum with other outputs that a residual block ends in, where one stands between; "weight gradients", of the
            parameter's shape; "gate gradients" (group.count,), the derivative of the loss by a factor 1 on each unit;
            "batch norm gates" likewise, by one behind all batch norms whose channels are the units.
        labels: Labels of the samples; None for inputs, and where the data have none.
        weight: For inputs the weight of the layer, (K, C, ...); None elsewhere.
    """

    value: "Tensor"
    labels: Any = None
    weight: "Tensor | None" = None


@runtime_checkable
class Statistic(Protocol):
    """A hashable value that tells what is measured; of several equal ones one is kept.

    Its state holds sums, never activations: it is of one size, however many batches there are. It ``looks_at`` a
    source; gradients are ``per`` batch or per sample, other sources come batch by batch. One that is slow names in
    ``images`` how many samples it looks at, at most (`images_of`).
    """

    @property
    def looks_at(self) -> Source: ...

    @property
    def per(self) -> Per: ...

    def update(self, state: Any, seen: Seen) -> Any:
        """The state after one more batch, part of a batch, or sample; the first state given is None."""
        ...

    def result(self, state: Any) -> Any:
        """The result that the criterion gets."""
        ...


def images_of(statistic: Statistic) -> int | None:
    """The most samples that a statistic looks at, which it names in ``images``; None for all that there are."""
    images: int | None = getattr(statistic, "images", None)
    return images


@runtime_checkable
class Criterion(Protocol):
    """A criterion; one that needs more than weights also has `statistics`, a tuple of `Statistic`.

    Attributes:
        name: Name in recipes.
        needs: Kinds of evidence that the criterion looks at, a subset of `NEEDS`.

    A class may also have ``paper``, where the criterion is from, and ``reading``, a sentence on how what the paper
    leaves open was read; reports tell both. `compares_groups` reads ``comparable``.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]


def compares_groups(criterion: Criterion) -> bool:
    """Whether scores of different groups are in one unit, and compared as they are: its class says ``comparable``."""
    return bool(getattr(criterion, "comparable", False))


@runtime_checkable
class ScoresUnits(Criterion, Protocol):
    """A criterion that scores units of coupled groups, for prune-filters."""

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """The worth of each unit, float64 (group.count,); the higher are kept, of equal ones the last."""
        ...


@runtime_checkable
class SelectsUnits(Criterion, Protocol):
    """A criterion whose best set of units isn't made of the best single ones, for prune-filters."""

    def select(self, group: "Group", evidence: "Evidence", count: int) -> "NDArray[np.int64]":
        """Indices of the units that stay, (count,), in any order."""
        ...


@runtime_checkable
class SizesUnits(Criterion, Protocol):
    """A criterion that says how many units a group needs for an error, for the allocation "provable"."""

    def needed(self, group: "Group", evidence: "Evidence", error: float) -> float:
        """Units that the group needs where its readers may err by so much, a number that falls as the error grows."""
        ...


@runtime_checkable
class CompensatesUnits(Criterion, Protocol):
    """A criterion that gives new values to what stays when units go."""

    def compensate(self, group: "Group", evidence: "Evidence", kept: "NDArray[np.int64]") -> "Mapping[str, Tensor]":
        """New values of parameters and buffers by name, in their shapes before pruning; slices that go are cut later.

        It is called group by group; `evidence.tensors` holds the values that were given for the groups before.
        """
        ...


@runtime_checkable
class ScoresElements(Criterion, Protocol):
    """A criterion that scores single weights, for sparsify."""

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """The worth of each element of the weight (K, C, ...), of its shape; `evidence.layer` is the weight's name."""
        ...


@runtime_checkable
class CompensatesElements(Criterion, Protocol):
    """A criterion that gives new values to the weights that a mask keeps."""

    def compensate_elements(self, weight: "Tensor", evidence: "Evidence", mask: "Tensor") -> "Tensor":
        """The new weight, of the old one's shape, zero where the mask is False."""
        ...
