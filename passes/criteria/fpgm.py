"""The criterion of distances to other filters."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group

#: Units whose distances to all others are held at a time.
_ROWS = 512


@dataclass(frozen=True)
class FPGM:
    """Sum of the Euclidean distances of a filter to all others of its layer: those near the geometric median go, since
    the others can stand for them (He et al., "Filter Pruning via Geometric Median", CVPR 2019).

    After FPGM as read by prunec: a unit of several filters, of one layer or of several coupled ones, is one vector of
    all their weights, and its distances are those to the other units of its group. The training of the paper, which
    zeroes filters after each epoch and lets them grow again, is a regime of its own.
    """

    name: ClassVar[str] = "fpgm"
    paper: ClassVar[str] = "He et al., Filter Pruning via Geometric Median, CVPR 2019"
    reading: ClassVar[str] = (
        "after FPGM as read by prunec: the filters that go together are one vector, whose distances are those to the "
        "other units of its group."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Sum of the distances to the other units of the group."""
        import torch

        from prunec.passes.criteria.units import as_filters, different

        parts: list[Tensor] = []
        for position in different(group, group.producers, evidence.tensors):
            member, rows = group.members[position], torch.from_numpy(group.slices[position])
            parts.append(as_filters(evidence.tensors[member.parameter], member).cpu().double()[rows].flatten(1))
        units = torch.cat(parts, dim=1)
        units = units - units.mean(0)  # distances stay, and lose fewer digits where they are small beside the norms
        return torch.cat([torch.cdist(some, units).sum(1) for some in torch.split(units, _ROWS)]).numpy()
