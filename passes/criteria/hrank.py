"""The rank of feature maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Per, Seen, Source, Statistic
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.interruption import stoppable
from prunec.passes.places import PRUNING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group

    #: The sum of the ranks of each filter's maps, float64 (K,), and the number of samples.
    _Ranks = tuple[Tensor, int]


@dataclass(frozen=True)
class MapRanks:
    """Mean rank of each filter's feature maps over samples, float64 (K,); None of outputs without height and width.

    Each sample takes one singular value decomposition per filter, of a matrix (H, W): about H W min(H, W)
    multiplications times a small constant, beside the forward pass.

    Attributes:
        images: The most samples that are looked at.
    """

    images: int

    looks_at: ClassVar[Source] = "joined outputs"
    per: ClassVar[Per] = "batch"

    def update(self, state: "_Ranks | None", seen: Seen) -> "_Ranks | None":
        """Add the maps (N, K, ..., H, W) of some samples; of several matrices of a filter, as in 3-D, the mean counts.

        Raises:
            NumericMismatchError: A map is not finite.
        """
        import torch

        if seen.value.ndim < 4:
            return state
        total, count = state or (torch.zeros(seen.value.shape[1], dtype=torch.float64), 0)
        for maps in stoppable(seen.value):  # one sample at a time, so that no copy of a whole batch is made
            if not maps.isfinite().all():
                raise NumericMismatchError("Feature maps of the data are not finite: they have no rank.")
            ranks = torch.linalg.matrix_rank(maps.to(torch.promote_types(maps.dtype, torch.float32)))
            total += ranks.double().flatten(1).mean(1).cpu() if ranks.ndim > 1 else ranks.double().cpu()
        return total, count + len(seen.value)

    def result(self, state: "_Ranks | None") -> "Tensor | None":
        """The mean rank of each filter's maps, (filters,)."""
        return None if state is None else state[0] / state[1]


@dataclass(frozen=True)
class HRank:
    """Mean rank of a filter's feature maps (Lin et al., "HRank", CVPR 2020).

    After HRank as read by prunec: maps are those behind the batch norm and the activation that alone follow a layer; of
    a layer that a residual block ends in, behind the block's sum. A unit has the mean of the filters that go with it,
    in a residual stream those of all layers that add to it. The rank is numerical: it counts singular values above the
    largest times max(H, W) times the number type's precision. Without an activation that cuts values off nearly all
    maps are of full rank, which tells filters little apart: linear bottlenecks are better left out. A map of one pixel
    has rank 1 where it isn't zero, so that behind a ReLU the score is the share of images on which a filter is active.
    Filters without maps, as those of linear layers behind a flattening, have no score: `ignore` them.

    It is unlabelled. The paper looks at 640 images. For the cost of each see `MapRanks`.

    Attributes:
        images: The most images that are looked at, of the samples that the step looks at.
    """

    images: int = 640

    name: ClassVar[str] = "hrank"
    paper: ClassVar[str] = "Lin et al., HRank, CVPR 2020"
    reading: ClassVar[str] = (
        "as read by prunec: maps are those behind the batch norm and the activation that alone follow a "
        "layer; a unit has the mean of its filters' ranks"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"outputs"})
    places: ClassVar[Mapping[str, str]] = {"images": PRUNING}

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"hrank: images is {self.images}.", hint="It is a number of images of at least 1.")

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The ranks of feature maps."""
        return (MapRanks(self.images),)

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Mean rank of the maps of the filters that go with a unit.

        Raises:
            UsageError: None of the group's layers gives maps.
        """
        from prunec.passes.criteria.units import unit_means

        statistic = MapRanks(self.images)
        with_maps = [
            position
            for position in group.producers
            if evidence.measured.get((statistic, group.members[position].parameter)) is not None
        ]
        if not with_maps:
            raise UsageError(
                f"hrank is not defined for the group {group.name}: none of its layers gives feature maps with a height "
                "and a width, whose rank could be taken.",
                hint="Leave such layers out with ignore, or use another criterion.",
            )
        return unit_means(group, lambda member: evidence.of(statistic, member.parameter), with_maps)
