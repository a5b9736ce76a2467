"""Whether the speed-up that was asked for is the one that is measured: seven networks at 1.5x, 2.0x and 3.0x.

Of each network a cost model is measured once. For each goal widths are chosen by it, the pruned network is measured in
turns with the dense one, and the goal corrected at most twice, as `prunec compile` does. The widths that were taken are
then measured once more in new sessions: that is the figure. ONNX Runtime, one thread, batch 1, weights drawn anew. Of
ResNet-50 at 2.0x the importance lost is compared with that of one ratio everywhere at the same measured time.

Run from the top folder: python -m benchmarks.latency_target [NETWORK ...]
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.tables import finish
from prunec.compiler.facts.costs import TimeGoal
from prunec.compiler.stages.closed_loop import SizeChoice, close_the_loop
from prunec.passes.allocation.goals import Allocation
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.costs.measuring import measure_costs
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.latency import LatencyComparison, compare_latency, wall_clock
from prunec.runtime.numerics import random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.target import Target
from tests.architectures.redraw import redraw_
from tests.zoo.corpus import build, example

SPEEDUPS = (1.5, 2.0, 3.0)
#: Of all cases so many are within 5 %, and all of them within 10 %; so many may be out of reach, said before.
CLOSE, NEAR, REQUIRED_CLOSE, MOST_OUT_OF_REACH = 0.05, 0.10, 19, 3
#: Importance lost by ResNet-50 at 2.0x over that of one ratio everywhere.
REQUIRED_LOST = 0.5


class RetinaHeads(nn.Module):
    """RetinaNet's two heads on feature maps of five sizes, as its ResNet-50 and pyramid yield them at 224 pixels."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.detection.retinanet import RetinaNetHead  # type: ignore[import-not-found]

        self.head = RetinaNetHead(256, 9, 91)

    def forward(self, maps: list[torch.Tensor]) -> Any:
        return self.head(maps)


def _zoo(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    return build(name), (example(name, batch=1),)


def _heads() -> tuple[nn.Module, tuple[Any, ...]]:
    return redraw_(RetinaHeads().eval(), 0), ([torch.randn(1, 256, side, side) for side in (28, 14, 7, 4, 2)],)


def _example() -> tuple[nn.Module, tuple[Any, ...]]:
    from examples.fashion_mnist.model import wide_resnet

    return redraw_(wide_resnet().eval(), 0), (torch.randn(1, 1, 28, 28),)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = {
    "ResNet-18": partial(_zoo, "tv:resnet18"),
    "ResNet-50": partial(_zoo, "tv:resnet50"),
    "MobileNetV2": partial(_zoo, "tv:mobilenet_v2"),
    "EfficientNet-B0": partial(_zoo, "tv:efficientnet_b0"),
    "DeiT-tiny": partial(_zoo, "timm:deit_tiny_patch16_224"),
    "RetinaNet heads": _heads,
    "example": _example,
}


@dataclass(frozen=True, eq=False)
class Bench:
    """A network with its cost model and what runs it."""

    name: str
    program: Program
    costs: CostModel
    inputs: list[NDArray[Any]]
    folder: Path
    runs: int

    def measured(self, program: Program, name: str) -> LatencyComparison:
        """A program against the dense network, in new sessions."""
        path = self.folder / f"{name}.onnx"
        if program is not self.program:
            export_onnx(program, path)
        timers = [
            wall_clock(partial(OnnxRuntimeSession(each), *self.inputs)) for each in (self.folder / "dense.onnx", path)
        ]
        return compare_latency(*timers, runs=self.runs)

    def pruned(self, speedup: float, allocation: Allocation) -> tuple[SizeChoice, LatencyComparison, int]:
        """Widths for a speed-up, what they measure, and the number of tries."""
        goal = TimeGoal(speedup, None)

        def choose(tightened: float) -> SizeChoice:
            options = PruneFilters(latency_speedup=speedup * tightened, allocation=allocation, round_to=16)
            result = options.run(self.program, costs=self.costs)
            predicted = result.stats["allocation"]["predicted"]["latency_ms"]
            return SizeChoice(result, result.stats["allocation"]["dense"]["latency_ms"] / predicted, predicted)

        def measure(choice: SizeChoice) -> LatencyComparison:
            return self.measured(choice.result.program, "try")

        choice, timed = close_the_loop(goal, choose, measure)
        return choice, self.measured(choice.result.program, "chosen"), len(timed.tries)


def prepare(name: str, folder: Path, runs: int) -> tuple[Bench, float]:
    """A network with its cost model, and the seconds that this took."""
    network, inputs = NETWORKS[name]()
    program = capture(network, inputs)
    export_onnx(program, folder / "dense.onnx")
    started = time.perf_counter()
    costs = measure_costs(program, Target.parse("cpu"))
    seconds = time.perf_counter() - started
    return Bench(name, program, costs, random_inputs(program, 1, 0), folder, runs), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"by default all: {', '.join(NETWORKS)}")
    parser.add_argument("--runs", type=int, default=60, help="measurements of each network (default 60)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows, missed, misses = list[tuple[str, ...]](), list[str](), list[float]()
    out_of_reach, cases = 0, 0
    for name in options.networks or NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            bench, seconds = prepare(name, Path(scratch), options.runs)
            for speedup in SPEEDUPS:
                cases += 1
                try:
                    choice, latency, tries = bench.pruned(speedup, "auto")
                except UsageError as error:
                    out_of_reach += 1
                    rows.append((name, f"{seconds:.0f}", f"{speedup:.1f}x", "", error.message, "", ""))
                    continue
                misses.append(latency.speedup / speedup - 1)
                low, high = latency.speedup_interval
                lost = choice.result.stats["allocation"]["importance_lost"]
                figures = f"{latency.speedup:.2f}x [{low:.2f}, {high:.2f}]", f"{misses[-1]:+.1%}", f"{lost:.1%}"
                rows.append((name, f"{seconds:.0f}", f"{speedup:.1f}x", str(tries), *figures))
                if (name, speedup) == ("ResNet-50", 2.0):
                    even, uniform, tries = bench.pruned(speedup, "uniform")
                    even_lost = even.result.stats["allocation"]["importance_lost"]
                    rows.append(("  one ratio", "", "", str(tries), f"{uniform.speedup:.2f}x", "", f"{even_lost:.1%}"))
                    if lost > REQUIRED_LOST * even_lost:
                        missed.append(f"ResNet-50 loses {lost / even_lost:.2f} of what one ratio does")
            print(*rows[-4:], sep="\n", flush=True)
    close = sum(abs(miss) <= CLOSE for miss in misses)
    if close + out_of_reach < cases - (len(NETWORKS) * len(SPEEDUPS) - REQUIRED_CLOSE):
        missed.append(f"{close} of {cases} are within {CLOSE:.0%}, {REQUIRED_CLOSE} of 21 asked")
    missed += [f"{miss:+.1%} is off by more than {NEAR:.0%}" for miss in misses if abs(miss) > NEAR]
    if out_of_reach > MOST_OUT_OF_REACH:
        missed.append(f"{out_of_reach} are out of reach, at most {MOST_OUT_OF_REACH} asked")
    columns = ("network", "costs (s)", "asked", "tries", "measured [95 %]", "off by", "importance lost")
    finish("Speed-ups for cpu, ONNX Runtime, one thread, batch 1", columns, rows, missed)


if __name__ == "__main__":
    main()
