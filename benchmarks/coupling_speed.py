"""How long coupling analysis and filter pruning take after capture, on one core.

Run from the top folder: python -m benchmarks.coupling_speed
"""

import argparse
import statistics
import time

import torch

from benchmarks.tables import finish
from prunec.passes.coupling import analyse
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from tests.architectures.resnet import resnet50, resnet152

#: Seconds for analysis and pruning together.
LIMITS = {"ResNet-50": (resnet50, 0.3), "ResNet-152": (resnet152, 1.0)}


def median_seconds(program: Program, repeats: int) -> tuple[float, float]:
    """Median seconds of the analysis alone, and of a whole pruning pass, which contains an analysis."""
    analysis, whole = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        analyse(program)
        analysed = time.perf_counter()
        PruneFilters(ratio=0.5).run(program)
        analysis.append(analysed - started)
        whole.append(time.perf_counter() - analysed)
    return statistics.median(analysis), statistics.median(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the median counts (default 5)")
    repeats: int = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows, missed = [], []
    for name, (network, limit) in LIMITS.items():
        program = capture(network(), (torch.zeros(2, 3, 224, 224),))
        analysis, whole = median_seconds(program, repeats)
        rows.append((name, f"{analysis:.3f}", f"{whole:.3f}", f"{limit:.1f}", f"{whole / limit:.2f}"))
        if whole >= limit:
            missed.append(f"{name} took {whole:.3f} s, the limit is {limit} s")
    columns = ("network", "analysis (s)", "analysis + pruning (s)", "limit (s)", "of limit")
    finish(f"Coupling analysis and pruning, one thread, median of {repeats}", columns, rows, missed)


if __name__ == "__main__":
    main()
