"""The processes that train one network together: this one alone, or as many as ``torchrun`` started.

Hugging Face Accelerate joins them; it isn't loaded where there is one.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from prunec.calibration.splits import Share
from prunec.compiler.ranks import is_distributed

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: of this one, from 0; 0 writes and speaks for all.
        count: of all.
        device: that this one trains on.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls) -> "Processes":
        """Join the others, where ``torchrun`` started some."""
        if not is_distributed():
            return cls(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        accelerator = _accelerator()
        return cls(accelerator.process_index, accelerator.num_processes, accelerator.device)

    @property
    def share(self) -> Share:
        """The part of every batch that this process takes."""
        return Share(self.rank, self.count)

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes; they start from the tensors of rank 0."""
        return module if self.count == 1 else _accelerator().prepare_model(module)

    def sums(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.count == 1:
            return list(values)
        total: Tensor = _accelerator().reduce(torch.tensor(values, dtype=torch.float64, device=self.device))
        return [float(value) for value in total]

    def gathered(self, value: Value) -> list[Value]:
        """What every process gives, in the order of the ranks."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object  # type: ignore[import-untyped]

        _accelerator()
        return list(gather_object([value]))

    def from_main(self, value: Value) -> Value:
        """What rank 0 gives."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        _accelerator()
        values: list[Value] = broadcast_object_list([value])
        return values[0]


@cache
def _accelerator() -> "Accelerator":
    from accelerate import Accelerator

    return Accelerator(cpu=not torch.cuda.is_available())
