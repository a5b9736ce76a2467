"""The facts that prunec's own passes leave."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.facts.costs import Timed
from prunec.compiler.facts.layer_choice import LayerChoice
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.low_rank import Decompose
from prunec.passes.oracle import OracleReport
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.quantization.placement import LayerPrecision
from prunec.passes.sparsify import Sparsify


@dataclass(frozen=True)
class LowRankLayer:
    """A layer in the place of which two stand.

    Attributes:
        layer: Path of the layer.
        weight: Name of its weight.
        rank: The rank of their product.
        full_rank: The rank that its weight could have, slices that went not counted.
        lost: Share of its weight's squared norm that the product lacks.
    """

    layer: str
    weight: str
    rank: int
    full_rank: int
    lost: float


@dataclass(frozen=True)
class Decomposed:
    """The facts of a decomposition.

    Attributes:
        options: The options that were followed.
        layers: The layers that were decomposed, in the order of execution.
        left: Layers that can't be, or are left out, with the reason.
        oracle: Report on the check of the program.
    """

    options: Decompose
    layers: tuple[LowRankLayer, ...]
    left: Mapping[str, str]
    oracle: OracleReport

    @property
    def ranks(self) -> dict[str, int]:
        """What it decomposed to."""
        return {layer.weight: layer.rank for layer in self.layers}


@dataclass(frozen=True)
class Pruned:
    """The facts of a filter pruning.

    Attributes:
        options: The options that were followed.
        widths: Name of each group, its width in the dense network, and the number of units that it keeps.
        oracle: Report on the check of the pruned program.
        rounds: Number of filter prunings so far, this one included.
        allocation: What the pass tells of the allocation of widths for goals; None where a ratio or a plan gives them.
        timed: What was tried for a goal in time; None where none was asked for.
        branches: Residual branches that it removed, each by its last layer.
        low_rank: Layers that it decomposed as well.
    """

    options: PruneFilters
    widths: tuple[tuple[str, int, int], ...]
    oracle: OracleReport
    rounds: int
    allocation: Mapping[str, Any] | None = None
    timed: Timed | None = None
    branches: tuple[str, ...] = ()
    low_rank: tuple[LowRankLayer, ...] = ()

    @property
    def sizes(self) -> ChosenSizes:
        """What it pruned to."""
        ranks = {layer.weight: layer.rank for layer in self.low_rank}
        return ChosenSizes({group: kept for group, _, kept in self.widths}, self.branches, ranks)


@dataclass(frozen=True)
class Permuted:
    """The facts of a channel permutation.

    Attributes:
        retained_before: Share of each layer's magnitude that 2:4 would have kept, by layer.
        gain: Share of its magnitude that 2:4 keeps more by the new order, by layer.
        efficacy: Share of 2:4's loss that the order undoes, by layer.
        refused: Groups that kept their order, with the reason.
        cut_short: Groups whose search ended because the time was up.
    """

    retained_before: Mapping[str, float]
    gain: Mapping[str, float]
    efficacy: Mapping[str, float]
    refused: Mapping[str, str]
    cut_short: tuple[str, ...]

    @classmethod
    def of(cls, stats: Mapping[str, Any]) -> Self:
        """The fact, from the stats of the pass."""
        return cls(
            {layer["layer"]: layer["retained_before"] for layer in stats["layers"]},
            {layer["layer"]: layer["retained_after"] - layer["retained_before"] for layer in stats["layers"]},
            {layer["layer"]: layer["efficacy"] for layer in stats["layers"]},
            {group["name"]: group["reason"] for group in stats["groups"] if group["reason"]},
            tuple(group["name"] for group in stats["groups"] if group["complete"] is False),
        )


@dataclass(frozen=True)
class Sparsified:
    """The facts of a masking.

    Attributes:
        options: The options that were followed.
        retained_magnitude: Share of its magnitude that the mask keeps, by layer.
        weights: Number of weights of the layers that can carry the pattern.
        masked: Number of those that are masked, by this step or before.
        wanted: Number that were asked for.
        masked_by_weight: Number that are masked, by the weight.
    """

    options: Sparsify
    retained_magnitude: Mapping[str, float]
    weights: int
    masked: int
    wanted: float
    masked_by_weight: Mapping[str, int]


@dataclass(frozen=True)
class Calibrated:
    """The facts of a calibration.

    Attributes:
        options: The options that were followed, with what was found by trying.
        images: Number of training inputs that were looked at.
        sha256: Hash of these inputs, as the network sees them.
        layers: What every layer computes in, in the order of execution.
        fallbacks: Tensors whose values tell no range or hardly any, by name, with what is the matter.
        output_errors: Error of the outputs on some of the inputs, where it is finite: with channels neither equalized
            nor smoothed, where they are, equalized alone, where they are both, with weights rounded to the nearest, and
            as the options ask; empty where all of that is the same.
        tried: Settings that were tried, in words, and the same error by them on the inputs that were held back, where
            it is finite.
        held_back: Number of these.
        choice: The layers that stay in higher precision for a limit; None where none is asked for.
        largest_factor: Largest factor of an equalized channel, or inverse of one; None where none was equalized.
    """

    options: Calibrate
    images: int
    sha256: str
    layers: tuple[LayerPrecision, ...]
    fallbacks: Mapping[str, str]
    output_errors: Mapping[str, float]
    tried: Mapping[str, float]
    held_back: int
    choice: LayerChoice | None = None
    largest_factor: float | None = None
