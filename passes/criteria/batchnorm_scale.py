"""The criterion of batch norms' scales."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group


@dataclass(frozen=True)
class BatchNormScale:
    """Magnitude of the factor gamma by which a batch norm scales a channel (Liu et al., "Learning Efficient
    Convolutional Networks through Network Slimming", ICCV 2017).

    It tells channels apart after a training that draws the factors to 0; the paper ranks those of all layers together.

    After network slimming as read by prunec: a unit has the mean over the batch norms whose channels are the group's
    units, behind the layers that make them or before those that read them. In a group of several layers those without
    a batch norm have no say; a group without any can't be scored, and is refused.
    """

    name: ClassVar[str] = "batchnorm-scale"
    paper: ClassVar[str] = "Liu et al., Network Slimming, ICCV 2017"
    reading: ClassVar[str] = (
        "after network slimming as read by prunec: a unit has the mean |gamma| of all batch norms that scale it; "
        "layers without one have no say, and groups without any are refused."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})
    comparable: ClassVar[bool] = True

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Mean magnitude of the batch norms' factors.

        Raises:
            UsageError: No batch norm with factors scales the group's units.
        """
        from prunec.passes.criteria.batch_norms import scales_of
        from prunec.passes.criteria.units import unit_means

        scales = scales_of(group, evidence, self.name)
        return unit_means(group, lambda member: evidence.tensors[member.parameter].detach().double().abs(), scales)
