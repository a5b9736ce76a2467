"""Training the captured program against training the eager module: images a second, and peak memory.

Both run in one hand-written loop: the same batches, SGD with momentum and weight decay, cross-entropy, and 2:4 masks
multiplied in after every step. Blocks of steps alternate; the lower bound of the ratio is a 95 % bootstrap over them.
Peak memory is of fresh processes, less what they hold before the network is made.

Run from the top folder: python -m benchmarks.training
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from benchmarks.tables import finish
from prunec.passes import Program, capture
from prunec.passes.sparsify import Sparsify
from tests.architectures import mobilenet_v2, resnet

_BLOCKS, _STEPS = 60, 3
_LOWEST_RATIO, _HIGHEST_MEMORY = 0.95, 1.1
_PROCESSES = 3
Step = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Case:
    """A network, the inputs that it is trained on, and their number of classes."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int

    def batch(self) -> tuple[Tensor, Tensor]:
        """Random inputs and labels."""
        torch.manual_seed(0)
        return torch.randn(self.shape), torch.randint(0, self.classes, (self.shape[0],))


def example() -> nn.Module:
    """The ResNet of examples/fashion_mnist."""
    sys.path.insert(0, "examples/fashion_mnist")
    from model import ResNet  # type: ignore[import-not-found]

    module: nn.Module = ResNet()
    return module


CASES = {
    "example, 128 x 1x28x28": Case(example, (128, 1, 28, 28), 10),
    "ResNet-18, 16 x 3x64x64": Case(
        partial(resnet.imagenet_resnet, resnet.BasicBlock, (2, 2, 2, 2)), (16, 3, 64, 64), 1000
    ),
    "MobileNetV2, 16 x 3x64x64": Case(mobilenet_v2.mobilenet_v2, (16, 3, 64, 64), 1000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "FORM"), help=argparse.SUPPRESS)
    peak = parser.parse_args().peak
    torch.set_num_threads(1)
    if peak:
        print(peak_bytes(CASES[peak[0]], captured=peak[1] == "captured"))
        return
    rows, missed = [], []
    for name, case in CASES.items():
        eager, captured = block_times(case)
        ratio, lowest = speed_ratio(eager, captured)
        memory = measured_peak(name, "captured") / measured_peak(name, "eager")
        images = case.shape[0] * _STEPS
        rates = [f"{images / float(np.median(times)):.0f}" for times in (eager, captured)]
        rows.append((name, *rates, f"{ratio:.3f}", f"{lowest:.3f}", f"{memory:.2f}"))
        if lowest < _LOWEST_RATIO:
            missed.append(f"{name}: the ratio's lower bound is {lowest:.3f}, asked {_LOWEST_RATIO}")
        if memory > _HIGHEST_MEMORY:
            missed.append(f"{name}: {memory:.2f} times the memory, at most {_HIGHEST_MEMORY}")
    columns = ("network", "eager, images/s", "captured", "captured / eager", "lower 95 %", "peak memory")
    finish("Training with 2:4 masks, one thread", columns, rows, missed)


def steps(case: Case) -> tuple[Step, Step]:
    """One training step of the eager and of the captured network, from the same weights under the same masks."""
    torch.manual_seed(0)
    module = case.make().train()
    example_input = torch.zeros(2, *case.shape[1:])
    program = Sparsify().run(capture(module, (example_input,))).program.train()
    masks = dict(program.masks)
    weights = dict(module.named_parameters())

    @torch.no_grad()
    def mask_eager() -> None:
        for name, mask in masks.items():
            weights[name].mul_(mask)

    module.train()
    mask_eager()
    return stepper(module, module, mask_eager), stepper(program, program.module, program.apply_masks)


def stepper(forward: nn.Module | Program, owner: nn.Module, mask: Callable[[], None]) -> Step:
    """The hand-written loop's step."""
    optimizer = SGD(owner.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step(inputs: Tensor, labels: Tensor) -> float:
        loss = cross_entropy(forward(inputs), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        mask()
        return loss.item()

    return step


def block_times(case: Case) -> tuple[list[float], list[float]]:
    """Seconds of each block of steps, eager and captured in turns."""
    inputs, labels = case.batch()
    both = steps(case)
    first = [seeded(step, inputs, labels) for step in both]
    if abs(first[0] - first[1]) > 1e-5 * abs(first[0]):
        raise AssertionError(f"eager and captured don't train the same: losses {first}")
    times: tuple[list[float], list[float]] = ([], [])
    for block in range(_BLOCKS):
        for which in (0, 1) if block % 2 else (1, 0):
            started = time.perf_counter()
            for _ in range(_STEPS):
                both[which](inputs, labels)
            times[which].append(time.perf_counter() - started)
    return times


def seeded(step: Step, inputs: Tensor, labels: Tensor) -> float:
    """A step whose dropout draws the same numbers every time."""
    torch.manual_seed(0)
    return step(inputs, labels)


def speed_ratio(eager: list[float], captured: list[float]) -> tuple[float, float]:
    """Median of eager over captured time by block, and the lower end of its 95 % bootstrap interval."""
    ratios = np.array(eager) / np.array(captured)
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    return float(np.median(ratios)), float(np.quantile(np.median(draws, axis=1), 0.025))


def measured_peak(name: str, form: str) -> int:
    """Peak memory of training in a fresh process, bytes: the least of several, since allocators keep more at times."""
    command = [sys.executable, "-m", "benchmarks.training", "--peak", name, form]
    runs = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(_PROCESSES))
    return min(int(run.stdout) for run in runs)


def peak_bytes(case: Case, *, captured: bool) -> int:
    """How much more this process held at most while it trained than before; both forms are made either way. Linux."""
    both = steps(case)
    inputs, labels = case.batch()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of the capture, is forgotten
    before = _memory("VmRSS")
    for _ in range(_STEPS):
        both[captured](inputs, labels)
    return _memory("VmHWM") - before


def _memory(what: str) -> int:
    """A line of this process's status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])


if __name__ == "__main__":
    main()
