"""Whether the speed-up that was asked for is the one that is measured: seven networks at 1.5x, 2.0x and 3.0x.

Of each network a cost model is measured once. For each goal widths are chosen by it, the pruned network is measured in
turns with the dense one, and the goal corrected at most twice, as `prunec compile` does. The widths that were taken are
then measured once more in new sessions: that is the figure. ONNX Runtime, one thread, batch 1, weights drawn anew. Of
ResNet-50 at 2.0x the importance lost is compared with that of one ratio everywhere at the same measured time, and
choosing its widths may take a second.

Run from the top folder: python -m benchmarks.latency_target [NETWORK ...]
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
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
from prunec.passes.allocation.allocator import Allocator
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
#: Seconds that choosing widths for ResNet-50 may take.
_MOST_SECONDS = 1.0
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

    def allocation_seconds(self, speedup: float) -> float:
        """Seconds of choosing widths, of which the analysis of the program and the criterion are parts."""
        started = time.perf_counter()
        options = PruneFilters(latency_speedup=speedup, round_to=16)
        Allocator.of(self.program, options, self.costs).allocate(options.goals)
        return time.perf_counter() - started

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


@dataclass(frozen=True)
class Case:
    """A network at one speed-up: what was measured, or why it is out of reach, and figures on the way."""

    network: str
    asked: float
    measured: LatencyComparison | str
    tries: int = 0
    lost: float = 0.0
    seconds: float = 0.0

    @property
    def off(self) -> float | None:
        """Relative distance of what was measured from what was asked; None where that is out of reach."""
        return None if isinstance(self.measured, str) else self.measured.speedup / self.asked - 1

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        if isinstance(self.measured, str):
            return self.network, f"{self.asked:.1f}x", "", self.measured, "", "", ""
        low, high = self.measured.speedup_interval
        measured = f"{self.measured.speedup:.2f}x [{low:.2f}, {high:.2f}]"
        cells = str(self.tries), measured, f"{self.off:+.1%}", f"{self.lost:.1%}", f"{self.seconds:.2f}"
        return self.network, f"{self.asked:.1f}x", *cells


def case(bench: Bench, speedup: float, allocation: Allocation = "auto") -> Case:
    """One speed-up of a network."""
    name = bench.name if allocation == "auto" else f"  {allocation}"
    try:
        seconds = bench.allocation_seconds(speedup)
        choice, measured, tries = bench.pruned(speedup, allocation)
    except UsageError as error:
        return Case(name, speedup, error.message)
    return Case(name, speedup, measured, tries, choice.result.stats["allocation"]["importance_lost"], seconds)


def missed_by(cases: Sequence[Case]) -> list[str]:
    """What the cases miss of what is asked of them."""
    goals = [each for each in cases if not each.network.startswith(" ")]
    offs = [each.off for each in goals if each.off is not None]
    close, unreached = sum(abs(off) <= CLOSE for off in offs), len(goals) - len(offs)
    missed = [f"{off:+.1%} is off by more than {NEAR:.0%}" for off in offs if abs(off) > NEAR]
    if close + unreached < len(goals) - (len(NETWORKS) * len(SPEEDUPS) - REQUIRED_CLOSE):
        missed.append(f"{close} of {len(goals)} are within {CLOSE:.0%}, {REQUIRED_CLOSE} of 21 asked")
    if unreached > MOST_OUT_OF_REACH:
        missed.append(f"{unreached} are out of reach, at most {MOST_OUT_OF_REACH} asked")
    by_name = {(each.network, each.asked): each for each in cases}
    if (even := by_name.get(("  uniform", 2.0))) is not None:
        share = by_name["  greedy", 2.0].lost / even.lost
        missed += [f"ResNet-50 loses {share:.2f} of what one ratio does"] * (share > REQUIRED_LOST)
    slow = [each for each in cases if each.network == "ResNet-50" and each.seconds > _MOST_SECONDS]
    return missed + [f"choosing widths for {each.asked:.1f}x took {each.seconds:.2f} s" for each in slow]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"by default all: {', '.join(NETWORKS)}")
    parser.add_argument("--runs", type=int, default=60, help="measurements of each network (default 60)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases: list[Case] = []
    for name in options.networks or NETWORKS:
        with tempfile.TemporaryDirectory() as scratch:
            bench, seconds = prepare(name, Path(scratch), options.runs)
            print(f"{name}: cost model in {seconds:.0f} s, held-back errors {bench.costs.error}", flush=True)
            for speedup in SPEEDUPS:
                cases.append(case(bench, speedup))
                print(*cases[-1].row(), flush=True)
                if (name, speedup) == ("ResNet-50", 2.0):
                    cases += [case(bench, speedup, how) for how in ("greedy", "uniform")]
    columns = ("network", "asked", "tries", "measured [95 %]", "off by", "importance lost", "choosing (s)")
    rows = [each.row() for each in cases]
    finish("Speed-ups for cpu, ONNX Runtime, one thread, batch 1", columns, rows, missed_by(cases))


if __name__ == "__main__":
    main()
