"""Options of batch norm re-estimation: statistics measured anew on the pruned network."""

from dataclasses import dataclass
from typing import ClassVar

from prunec.passes.errors import UsageError


@dataclass(frozen=True)
class ReestimateBatchNorm:
    """Measure the mean and variance of every batch norm's inputs on training inputs, without their labels.

    Attributes:
        samples: Number of training inputs that are measured, at least 2.
    """

    samples: int = 256

    name: ClassVar[str] = "re-estimate-batchnorm"

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UsageError(f"re-estimate-batchnorm: samples must be at least 2, got {self.samples}.")
