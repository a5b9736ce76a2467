"""Criteria of single weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Statistic
from prunec.passes.criteria.statistics import InputMoments, Moments
from prunec.passes.errors import UsageError
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence


@dataclass(frozen=True)
class Magnitude:
    """The largest magnitudes stay."""

    name: ClassVar[str] = "magnitude"
    paper: ClassVar[str] = "Han et al., Learning both Weights and Connections, NIPS 2015"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """Absolute weights."""
        return weight.abs()


@dataclass(frozen=True)
class Wanda:
    """Magnitude times norm of the input (Sun et al., "A Simple and Effective Pruning Approach for Large Language
    Models", ICLR 2024, eq. 1).

    The norms stand for the inputs as if these were uncorrelated, and nothing makes up for what is masked. Behind batch
    norms they differ little, so that a network keeps no more accuracy than by magnitude with its batch norms measured
    anew; what pays there is `SparseGPT`.
    """

    name: ClassVar[str] = "wanda"
    paper: ClassVar[str] = "Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "inputs"})
    statistics: ClassVar[tuple[Statistic, ...]] = (InputMoments(),)

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """Absolute weights times the norms of their inputs."""
        from prunec.passes.one_shot import wanda_scores

        moments: Moments = evidence.of(InputMoments())
        return wanda_scores(weight, moments.raw)


@dataclass(frozen=True)
class SparseGPT:
    """Cost of masking a weight once the others have made up for it, which they then do (Frantar and Alistarh,
    "SparseGPT", ICML 2023, alg. 1).

    Where a layer has a bias, or a batch norm behind it, that takes over what the masked weights gave in mean, it looks
    at what is left, the inputs' deviation from their mean (as An et al., "Fluctuation-based Adaptive Structured
    Pruning", AAAI 2024).

    Attributes:
        damping: Number that is added to the diagonal of the inputs' second moments, as a share of its mean.
    """

    damping: float = 0.01

    name: ClassVar[str] = "sparsegpt"
    paper: ClassVar[str] = "Frantar and Alistarh, SparseGPT, ICML 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "inputs"})
    statistics: ClassVar[tuple[Statistic, ...]] = (InputMoments(),)
    places: ClassVar[Mapping[str, str]] = {"damping": METHOD}

    def __post_init__(self) -> None:
        if not 0 < self.damping < float("inf"):
            raise UsageError(f"sparsegpt: damping is {self.damping}.", hint="It is a positive number, as 0.01.")

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """Costs: of N:M those that every group of M columns has when those before it are masked, else before any is."""
        from prunec.passes.one_shot import sparse_gpt_scores

        return sparse_gpt_scores(weight, self._moments(evidence), self.damping, evidence.pattern)

    def compensate_elements(self, weight: "Tensor", evidence: "Evidence", mask: "Tensor") -> "Tensor":
        """Weights that make up for those masked before them."""
        from prunec.passes.one_shot import sparse_gpt_weights

        return sparse_gpt_weights(weight, self._moments(evidence), self.damping, mask)

    def _moments(self, evidence: "Evidence") -> "Tensor":
        moments: Moments = evidence.of(InputMoments())
        return moments.centred if evidence.mean_restored else moments.raw
