"""Units by what their readers lose without them, in numbers that keep an error."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from prunec.passes.criteria.protocol import Statistic
from prunec.passes.criteria.sensitivity import InputSensitivity, Sensitivities
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.places import METHOD, PRUNING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group

#: Which units stay: those of the highest sensitivity, units drawn by it, or the highest ones and others drawn.
Variant = Literal["deterministic", "sampled", "hybrid"]


@dataclass(frozen=True)
class Provable:
    """The sensitivity of what reads a unit (Liebenwein et al., "Provable Filter Pruning for Efficient Neural Networks",
    ICLR 2020).

    After ProvableFP as read by prunec: a unit's sensitivity is the largest of the convolutions without groups and the
    linear layers that read it, over images, places, filters and parts by sign; where a layer reads several channels of
    a unit, as behind a flattening, their sum, at most 1. "deterministic" keeps the units of the highest sensitivity.
    "sampled" draws with replacement, in proportion to it, until as many units are found as stay; what their readers
    multiply them with is multiplied by how often each was drawn over how often it was to be. "hybrid" keeps units that
    would be drawn once or more in expectation as they are, and draws the others. Readers of other kinds (convolutions
    with groups, transposed ones) are neither looked at nor changed.

    For an error eps a group needs m = ceil(3 (6 + 2 eps) S 2 log(8 (places + 1) k / delta) c / eps^2) draws: S is the
    sum of its sensitivities, k the filters of the reader and places those looked at, of several readers the largest
    product, and c = 1. What is common to all groups changes eps, not the widths that a budget leaves. It needs the
    units that m draws find in expectation, for "deterministic" m itself, and none beyond those that there are.

    It is unlabelled. The paper looks at a small held-out set; the cost by image is that of `InputSensitivity`.

    Attributes:
        variant: Rule by which units are chosen: see above.
        images: The most images that are looked at, of the samples that the step looks at.
        delta: Probability with which the bound may fail.
    """

    variant: Variant = "deterministic"
    images: int = 16
    delta: float = 1e-16

    name: ClassVar[str] = "provable"
    paper: ClassVar[str] = "Liebenwein et al., Provable Filter Pruning for Efficient Neural Networks, ICLR 2020"
    reading: ClassVar[str] = (
        "as read by prunec: a unit has the largest sensitivity of the layers that read it, and the bound's "
        "constant is 1"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "inputs"})
    places: ClassVar[Mapping[str, str]] = {"variant": METHOD, "images": PRUNING, "delta": METHOD}

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            hint = did_you_mean(str(self.variant), get_args(Variant))
            raise UsageError(f"provable: variant is {self.variant!r}.", hint=hint)
        if self.images < 1:
            raise UsageError(f"provable: images is {self.images}.", hint="It is a number of images of at least 1.")
        if not 0 < self.delta < 1:
            raise UsageError(f"provable: delta is {self.delta}.", hint="It is a probability, as 1e-16.")

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """The sensitivities of layers' inputs."""
        return (InputSensitivity(self.images),)

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """The sensitivity of each unit.

        Raises:
            UsageError: No layer whose inputs are looked at reads the group; the other methods raise it, too.
        """
        import numpy as np

        readers = self._readers(group, evidence).items()
        channels = [seen.channels.numpy()[group.slices[position]] for position, seen in readers]
        scores: NDArray[np.float64] = np.max([np.minimum(each.sum(axis=1), 1.0) for each in channels], axis=0)
        return scores

    def draws(self, group: "Group", evidence: "Evidence", error: float) -> float:
        """The number of draws m that keeps what readers give within a relative error; it falls as the error grows."""
        outputs = max((seen.looked_at + 1) * seen.filters for seen in self._readers(group, evidence).values())
        sensitivity = float(self.score(group, evidence).sum())
        bound = 3 * (6 + 2 * error) * sensitivity * 2 * math.log(8 * outputs / self.delta) / error**2
        return float(math.ceil(bound))

    def needed(self, group: "Group", evidence: "Evidence", error: float) -> float:
        """Units that the group needs for an error."""
        from prunec.passes.criteria.sampling import expected_units, shares

        draws = self.draws(group, evidence, error)
        if self.variant == "deterministic":
            return min(draws, float(group.count))
        return expected_units(shares(self.score(group, evidence)), draws, keeps_certain=self.variant == "hybrid")

    def select(self, group: "Group", evidence: "Evidence", count: int) -> "NDArray[np.int64]":
        """The units that stay; by "deterministic" of equally sensitive ones the last."""
        return self._chosen(group, evidence, count)[0]

    def compensate(self, group: "Group", evidence: "Evidence", kept: "NDArray[np.int64]") -> "Mapping[str, Tensor]":
        """The weights that read drawn units, multiplied by what makes up for those that were not drawn."""
        import torch

        if self.variant == "deterministic":
            return {}
        factors = torch.from_numpy(self._chosen(group, evidence, len(kept))[1])
        values: dict[str, Tensor] = {}
        for position in self._readers(group, evidence):
            name, channels = group.members[position].parameter, torch.from_numpy(group.slices[position][kept])
            weight = evidence.tensors[name].detach()
            scale = torch.ones(weight.shape[1], dtype=torch.float64)
            scale[channels] = factors[:, None].expand(channels.shape)
            values[name] = weight * scale.to(weight).view(-1, *[1] * (weight.ndim - 2))
        return values

    def _chosen(
        self, group: "Group", evidence: "Evidence", count: int
    ) -> "tuple[NDArray[np.int64], NDArray[np.float64]]":
        """The units that stay, ascending, and the weight of each: the same ones for the same seed."""
        import numpy as np

        from prunec.passes.criteria.sampling import draw, draw_beside_certain, shares

        scores = self.score(group, evidence)
        if self.variant == "deterministic":
            return np.sort(np.argsort(scores, kind="stable")[group.count - count :]), np.ones(count)
        random = np.random.default_rng([evidence.seed, zlib.crc32(group.name.encode())])
        return (draw if self.variant == "sampled" else draw_beside_certain)(shares(scores), count, random)

    def _readers(self, group: "Group", evidence: "Evidence") -> "dict[int, Sensitivities]":
        """What was measured of the layers that read a group, by the position of the member that they read it by."""
        readers = {
            position: evidence.measured[key]
            for position, member in enumerate(group.members)
            if member.dim == 1
            and position not in group.producers
            and (key := (InputSensitivity(self.images), member.parameter)) in evidence.measured
        }
        if not readers:
            raise UsageError(
                f"provable is not defined for the group {group.name}: no convolution without groups and no linear "
                "layer reads its units, and sensitivity is that of such a layer's inputs.",
                hint="Leave such layers out with ignore, heads of attention by attention=none, or use another one.",
            )
        return readers
