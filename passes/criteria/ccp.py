"""Units whose joint removal costs least, cross terms included."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from prunec.passes.criteria.protocol import Per, Seen, Source, Statistic
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.criteria.quadratic import LossModel
    from prunec.passes.groups import Group

    #: The sum of gate gradients (n,), that of their products (n, n), and their number.
    _Sums = tuple[Tensor, Tensor, int]


@dataclass(frozen=True)
class GateProducts:
    """A `LossModel` of a group: the mean gate gradient, and the mean of its product with itself as the Hessian.

    The state has the square of a group's units: 8 bytes times count^2, 33 MB for 2,048 units.

    Attributes:
        per: Whether gradients are those of each batch's loss, or of each sample's own loss.
    """

    per: Per = "batch"

    looks_at: ClassVar[Source] = "gate gradients"

    def update(self, state: "_Sums | None", seen: Seen) -> "_Sums":
        """Add the gradient of one batch or sample; the sums of the old state are reused."""
        gradient = seen.value.double()
        if state is None:
            return gradient.clone(), gradient.outer(gradient), 1
        total, products, count = state
        return total.add_(gradient), products.addr_(gradient, gradient), count + 1

    def result(self, state: "_Sums") -> "LossModel":
        """The model."""
        from prunec.passes.criteria.quadratic import LossModel

        total, products, count = state
        return LossModel((total / count).numpy(), (products / count).numpy())


@dataclass(frozen=True)
class CCP:
    """The set of units whose removal changes a second-order model of the loss least (Peng et al., "Collaborative
    Channel Pruning for Deep Networks", ICML 2019).

    After CCP as read by prunec: units are gates g = 1, the loss changes by z^T H z / 2 - b^T z where the units z in
    {0, 1}^n go, b is the mean of dL/dg and H the mean of its product with itself, cross terms included. The set of a
    given size is searched greedily from both ends, then by exchanges of two units (`prunec.passes.criteria.quadratic`).
    The rank of H is at most the number of gradients, so that those of samples tell more than those of a few batches,
    for one more forward and backward pass. Scores, by which allocations compare groups, are what the greedy search pays
    for each unit beside those that went before. The auxiliary classifiers of CCP-AC are losses that a user adds to the
    loss.

    Attributes:
        per: Whether gradients are those of each batch's loss, or of each sample's own loss.
    """

    per: Per = "batch"

    name: ClassVar[str] = "ccp"
    paper: ClassVar[str] = "Peng et al., Collaborative Channel Pruning for Deep Networks, ICML 2019"
    reading: ClassVar[str] = (
        "as read by prunec: the mean product of gate gradients stands for the second derivatives; greedy from "
        "both ends, then exchanges of two"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    places: ClassVar[Mapping[str, str]] = {"per": METHOD}

    def __post_init__(self) -> None:
        if self.per not in get_args(Per):
            raise UsageError(f"ccp: per is {self.per!r}.", hint=did_you_mean(str(self.per), get_args(Per)))

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The model of the loss."""
        return (GateProducts(self.per),)

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """What the loss grows by when a unit goes, at its turn in the greedy order."""
        import numpy as np

        from prunec.passes.criteria.quadratic import removal_order

        order, added = removal_order(self._model(group, evidence))
        scores = np.empty(group.count)
        scores[order] = added
        return scores

    def select(self, group: "Group", evidence: "Evidence", count: int) -> "NDArray[np.int64]":
        """The units that stay where the others' removal, together, changes the loss least."""
        import numpy as np

        from prunec.passes.criteria.quadratic import least_change

        return np.flatnonzero(~least_change(self._model(group, evidence), group.count - count))

    def _model(self, group: "Group", evidence: "Evidence") -> "LossModel":
        model: LossModel = evidence.of(GateProducts(self.per), group)
        return model
