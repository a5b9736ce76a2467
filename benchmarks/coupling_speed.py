"""How long coupling analysis and filter pruning take after capture, on one core.

The limits are on processor time, which is what an idle core needs; wall-clock time, which other work on the machine
lengthens, is printed beside it.

Run from the top folder: python -m benchmarks.coupling_speed
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.tables import finish
from prunec.passes.coupling import analyse
from prunec.passes.frontend import capture
from prunec.passes.prune_filters import PruneFilters
from tests.architectures.resnet import resnet50, resnet152

#: Seconds for analysis and pruning together.
LIMITS = {"ResNet-50": (resnet50, 0.3), "ResNet-152": (resnet152, 1.0)}


def median_seconds(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of processor and of wall-clock time."""
    processor, wall = [], []
    for _ in range(repeats):
        started_processor, started = time.process_time(), time.perf_counter()
        function()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - started_processor)
    return statistics.median(processor), statistics.median(wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the median counts (default 5)")
    repeats: int = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows, missed = [], []
    for name, (network, limit) in LIMITS.items():
        program = capture(network(), (torch.zeros(2, 3, 224, 224),))
        analysis, _ = median_seconds(partial(analyse, program), repeats)
        # A pruning pass contains an analysis.
        whole, wall = median_seconds(partial(PruneFilters(ratio=0.5).run, program), repeats)
        rows.append((name, *(f"{s:.3f}" for s in (analysis, whole, wall, limit)), f"{whole / limit:.2f}"))
        if whole >= limit:
            missed.append(f"{name} took {whole:.3f} s, the limit is {limit} s")
    columns = ("network", "analysis (s)", "analysis + pruning (s)", "wall-clock (s)", "limit (s)", "of limit")
    finish(f"Coupling analysis and pruning, one thread, median of {repeats}", columns, rows, missed)


if __name__ == "__main__":
    main()
