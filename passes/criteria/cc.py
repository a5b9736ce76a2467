"""The criterion of CC: what the network's weights lose with a unit."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group


@dataclass(frozen=True)
class CC:
    """Shares of the squared norms of weights that go with a unit (Li et al., "Towards Compact CNNs via Collaborative
    Compression", CVPR 2021).

    The paper weighs units of both kinds, filters and singular values, against each other, and removes them step by step
    under one budget: that is ``prune-filters{criterion=cc,allocation=joint}``. After Li et al. as read by prunec: see
    ``reading``.
    """

    name: ClassVar[str] = "cc"
    paper: ClassVar[str] = "Li et al., Towards Compact CNNs via Collaborative Compression, CVPR 2021"
    reading: ClassVar[str] = (
        "from its abstract: a step removes units of a group or lowers a rank, and loses the share of each weight's "
        "squared norm that goes with it, of what the steps before left, all layers alike; what loses the least "
        "for each multiply-accumulate that it saves goes first, until one budget for both is met"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})
    comparable: ClassVar[bool] = True

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Sum over all weights of which a unit has slices, as filters or as inputs, of their share of its squares."""
        import numpy as np

        from prunec.passes.criteria.units import different

        total, tensors = np.zeros(group.count), evidence.tensors
        for position in different(group, range(len(group.members)), tensors):
            member = group.members[position]
            weight = tensors[member.parameter].detach().double()
            if weight.ndim >= 2:  # norms and biases go with the filters that they belong to
                squares = weight.square().movedim(member.dim, 0).flatten(1).sum(1)
                total += (squares / (squares.sum() or 1.0)).cpu().numpy()[group.slices[position]].sum(axis=1)
        return total
