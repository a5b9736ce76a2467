"""The criteria of the loss's first-order change by a unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from prunec.passes.criteria.protocol import Statistic
from prunec.passes.criteria.statistics import BatchNormGate, GateGradient, WeightGradient
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group, Member

#: Where the first-order change is taken: at one factor for each unit, or at each weight.
TaylorForm = Literal["gate", "weights"]
_PAPER = "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019"


@dataclass(frozen=True)
class Taylor:
    """Squared first-order change of the loss where a unit goes (Molchanov et al., "Importance Estimation for Neural
    Network Pruning", CVPR 2019, "Taylor-FO").

    A unit's gate is a factor g = 1, and its score (g dL/dg)^2 of each batch, averaged over batches. The gate stands
    behind the batch norm where one follows a layer directly, else on the layer's outputs. By ``form=weights`` a score
    is the sum over the weights of a unit of (w dL/dw)^2, which takes them for independent.

    The paper ranks the units of all layers together and removes few at a time while it trains: 100 after every 30
    batches, with a moving average of 0.9 over the scores of one removal after the other, at a learning rate of 0.001.
    Here a score is of one look at the data; a `repeat` of prune-filters and recover takes turns.

    After Taylor-FO as read by prunec: where several layers add to one stream, one factor stands on what each of them
    adds, so that a score is that of all that goes with the unit. In the paper's ResNets a gate is shared by the sums of
    all blocks, which counts what the first block adds once for every block behind it; the paper divides by
    their number, and here nothing is counted twice.

    Attributes:
        form: "gate" or "weights".
    """

    form: TaylorForm = "gate"

    name: ClassVar[str] = "taylor"
    paper: ClassVar[str] = _PAPER
    reading: ClassVar[str] = (
        "after Taylor-FO as read by prunec: scores of one look at the data without a moving average; one factor on all "
        "that is added to a stream, instead of one that its sums share and a division by their number."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    comparable: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {"form": METHOD}

    def __post_init__(self) -> None:
        if self.form not in get_args(TaylorForm):
            raise UsageError(f"taylor: form is {self.form!r}.", hint=did_you_mean(str(self.form), get_args(TaylorForm)))

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """Mean squared derivatives by gates, or by weights."""
        return (GateGradient("square") if self.form == "gate" else WeightGradient("square"),)

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """The mean over batches of the squared change."""
        if self.form == "gate":
            squares: Tensor = evidence.of(GateGradient("square"), group)
            return squares.cpu().numpy()

        from prunec.passes.criteria.units import as_filters, unit_sums

        def of_filters(member: "Member") -> "Tensor":
            weight = evidence.tensors[member.parameter].detach().double()
            gradient: Tensor = evidence.of(WeightGradient("square"), member.parameter)
            return as_filters(weight.square() * gradient, member).sum(1)

        return unit_sums(group, evidence.tensors, of_filters)


@dataclass(frozen=True)
class TaylorBN:
    """Squared first-order change of the loss by a factor behind batch norms (Molchanov et al., CVPR 2019,
    "Taylor-FO-BN").

    The derivative by a gate behind a batch norm is gamma dL/dgamma + beta dL/dbeta, so that no gate has to be there.

    After Taylor-FO-BN as read by prunec: one factor stands behind all batch norms whose channels are a group's units.
    Where each layer has its own, that is the gate of `Taylor`; in networks whose batch norms come before the layers
    that read a stream, such as DenseNet, it is a gate on what these read. A group without a batch norm is refused.
    """

    name: ClassVar[str] = "taylor-bn"
    paper: ClassVar[str] = _PAPER
    reading: ClassVar[str] = (
        "after Taylor-FO-BN as read by prunec: one factor behind all batch norms that scale a unit; groups without any "
        "are refused."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    statistics: ClassVar[tuple[Statistic, ...]] = (BatchNormGate("square"),)
    comparable: ClassVar[bool] = True

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """The mean over batches of the squared change.

        Raises:
            UsageError: No batch norm with a scale and a shift has the group's units as channels.
        """
        from prunec.passes.criteria.batch_norms import scales_of

        scales_of(group, evidence, self.name)  # refuses a group without any
        squares: Tensor = evidence.of(BatchNormGate("square"), group)
        return squares.cpu().numpy()
