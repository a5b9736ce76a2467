"""The criterion of weights times what they read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Statistic
from prunec.passes.criteria.statistics import InputActivation
from prunec.passes.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group, Member


@dataclass(frozen=True)
class MagnitudeActivation:
    """Magnitude of a weight times the mean magnitude of the input channel that it reads (Blalock et al., "What is the
    State of Neural Network Pruning?", MLSys 2020).

    Inputs are those of the network as it is, in a mean over samples and places. A unit has the sum over its weights.
    Weights of convolutions and linear layers have inputs; other layers that make a group's units are refused.
    """

    name: ClassVar[str] = "magnitude-activation"
    paper: ClassVar[str] = "Blalock et al., What is the State of Neural Network Pruning?, MLSys 2020"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "outputs"})
    statistics: ClassVar[tuple[Statistic, ...]] = (InputActivation("absolute"),)

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Sum over the weights of each unit.

        Raises:
            UsageError: A layer that makes the units is neither a convolution nor linear.
        """
        from prunec.passes.criteria.units import as_filters, unit_sums

        statistic = InputActivation("absolute")

        def of_filters(member: "Member") -> "Tensor":
            if (statistic, member.parameter) not in evidence.measured:
                raise UsageError(
                    f"The criterion {self.name} looks at inputs of convolutions and linear layers, and none multiplies "
                    f"with {member.parameter}.",
                    hint="Name its layer under ignore.",
                )
            inputs = evidence.of(statistic, member.parameter)
            return as_filters(_scaled(evidence.tensors[member.parameter], inputs, member.dim), member).sum(1)

        return unit_sums(group, evidence.tensors, of_filters)

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """Magnitude of each weight times that of its input."""
        filter_dim = 1 if evidence.layer in evidence.transposed else 0
        return _scaled(weight, evidence.of(InputActivation("absolute")), filter_dim)


def _scaled(weight: "Tensor", inputs: "Tensor", filter_dim: int) -> "Tensor":
    """Magnitudes of a weight times those (C,) of the input channels that its elements read, float64.

    A weight (K, C / groups, ...) has its filters along axis 0, that of a transposed convolution (C, K / groups, ...)
    along axis 1.
    """
    magnitudes = weight.detach().double().abs()
    if filter_dim == 1:
        return magnitudes * inputs.reshape(-1, *[1] * (weight.ndim - 1))
    per_group = inputs.reshape(-1, weight.shape[1])  # (groups, C / groups)
    read = per_group.repeat_interleave(len(weight) // len(per_group), dim=0)
    return magnitudes * read.reshape(*read.shape, *[1] * (weight.ndim - 2))
