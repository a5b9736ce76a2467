"""The processes that train one network together: this one alone, or as many as ``torchrun`` started.

Hugging Face Accelerate joins them; it isn't loaded where there is one.
"""

import atexit
import signal
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, distributed, nn

from prunec.calibration.splits import Share
from prunec.compiler.machine.ranks import is_distributed
from prunec.passes.errors import UsageError
from prunec.passes.interruption import asked_to_stop

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, from 0; 0 writes and speaks for all.
        count: Number of all processes.
        device: The device that this process trains on.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls) -> "Processes":
        """Join the others, where ``torchrun`` started some.

        Raises:
            UsageError: It started more than there are GPUs: no two may share one.
        """
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

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the mean of its gradients in all processes, which must name the same ones."""
        for parameter in parameters if self.count > 1 else ():
            if parameter.grad is not None:
                parameter.grad = _accelerator().reduce(parameter.grad, reduction="mean")

    def sums(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.count == 1:
            return list(values)
        total: Tensor = _accelerator().reduce(torch.tensor(values, dtype=torch.float64, device=self.device))
        return [float(value) for value in total]

    def gathered(self, value: Value) -> list[Value]:
        """The value of every process, in the order of the ranks."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object  # type: ignore[import-untyped]

        _accelerator()  # joins the processes
        return list(gather_object([value]))

    def asked_to_stop(self) -> int:
        """The signal that asked any of the processes to stop, 0 where none has; all look at the same step."""
        own = asked_to_stop()
        (anyone,) = self.sums(own)
        return own or (signal.SIGTERM if anyone else 0)

    def from_main(self, value: Value) -> Value:
        """The value that rank 0 passes, in every process."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        _accelerator()  # joins the processes
        values: list[Value] = broadcast_object_list([value])
        return values[0]


@cache
def _accelerator() -> "Accelerator":
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    atexit.register(accelerator.end_training)  # a process that ends with its connections open may abort
    if accelerator.device.type == "cuda":
        own = socket.gethostname(), str(torch.cuda.get_device_properties(accelerator.device).uuid)
        everyone: list[tuple[str, str]] = [own] * accelerator.num_processes
        # NCCL dies where two processes share a GPU.
        distributed.all_gather_object(everyone, own, group=distributed.new_group(backend="gloo"))
        check_own_gpus(everyone)
    return accelerator


def check_own_gpus(places: Sequence[tuple[str, str]]) -> None:
    """Refuse processes that share a GPU; ``places`` are machine and GPU of each.

    Raises:
        UsageError: Two have the same.
    """
    for machine in dict.fromkeys(name for name, _ in places):
        gpus = [gpu for name, gpu in places if name == machine]
        different = len(set(gpus))
        if different < len(gpus):
            raise UsageError(
                f"{len(gpus)} processes on {machine} train on {different} GPU{'s' * (different > 1)}.",
                hint=f"Start one process for each GPU (--nproc-per-node={different}), or hide the GPUs, to train on "
                "the processor: CUDA_VISIBLE_DEVICES= in front of the command.",
            )
