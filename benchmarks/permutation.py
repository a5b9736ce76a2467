"""Channel permutation search: quality against time, on one core.

Weights are normal, or normal times a lognormal scale of each column. Efficacy is the share of 2:4's loss that the order
undoes, where 100 % is each row's own larger half kept; means over the seeds. Compilation (Numba) is done before.

Run from the top folder: python -m benchmarks.permutation
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import finish
from prunec.passes.permutation_search import Order, efficacy, search

#: What the pairs of stripes must do on one core once compiled.
_LEAST_PAIR_ROWS_PER_SECOND = 5.0e7


@dataclass(frozen=True)
class Case:
    """Matrices of one kind, and what must hold of a search over them.

    Attributes:
        rows: Number of rows of the matrix.
        columns: Number of input channels.
        scale: Standard deviation of the logarithm of the columns' scales.
        seeds: Number of matrices.
        exchanges: Number of exchanges tried in the annealing; 0 for pairs of stripes alone.
        efficacy: Smallest efficacy allowed, in the mean.
        seconds: Largest processor time allowed, in the mean.
        better_than_pairs: Smallest gain in points of efficacy over the pairs alone.
    """

    rows: int
    columns: int
    scale: float
    seeds: int
    exchanges: int = 0
    efficacy: float | None = None
    seconds: float | None = None
    better_than_pairs: float | None = None

    @property
    def name(self) -> str:
        """Shape, and the scales if there are."""
        return f"{self.rows}x{self.columns}" + (f" lognormal {self.scale}" if self.scale else "")

    def matrix(self, seed: int) -> NDArray[np.float64]:
        """Weights of a seed."""
        rng = np.random.default_rng(seed)
        weights = rng.standard_normal((self.rows, self.columns))
        return weights * rng.lognormal(0, self.scale, self.columns) if self.scale else weights


CASES = (
    Case(64, 64, 0, 5, efficacy=0.455),
    Case(64, 64, 0, 5, exchanges=1_600_000, efficacy=0.46, better_than_pairs=1),
    Case(256, 1152, 0, 5, efficacy=0.30, seconds=2),
    Case(256, 1152, 0, 5, exchanges=28_800_000, efficacy=0.30, better_than_pairs=1),
    Case(256, 1152, 0.5, 5),
    Case(256, 1152, 0.5, 5, exchanges=100_000_000, efficacy=0.48),
    Case(256, 1152, 1, 5, seconds=2),
    Case(256, 1152, 1, 5, exchanges=28_800_000, efficacy=0.66, seconds=60, better_than_pairs=1),
    Case(512, 2048, 0, 5, efficacy=0.23, seconds=12),
    Case(1024, 4096, 0, 1, seconds=60),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    search(np.random.default_rng(0).random((8, 16)), 0, exchanges=10)
    rows, missed = [], []
    pairs: dict[str, float] = {}
    for case in CASES:
        found, seconds = zip(*(_timed(case, seed) for seed in range(case.seeds)), strict=True)
        quality = float(np.mean([efficacy(case.matrix(seed), order.retained) for seed, order in enumerate(found)]))
        rate = sum(order.pair_rows for order in found) / sum(seconds)
        pairs.setdefault(case.name, quality)
        gain = 100 * (quality - pairs[case.name])
        rows.append(_row(case, quality, float(np.mean(seconds)), rate, gain))
        missed += _missed(case, quality, float(np.mean(seconds)), rate, gain)
    retained = search(_published(), 0).retained
    rows.append(("128x64, NVIDIA's own", "0", f"retained {retained:.1f}", "", "", "", "2919.7"))
    if retained < 2919.7:
        missed.append(f"the published case keeps {retained:.1f}, asked 2919.7")
    columns = ("weights", "exchanges", "efficacy", "seconds", "pair-rows/s", "points over pairs", "asked")
    finish("Channel permutation search, one core", columns, rows, missed)


def _timed(case: Case, seed: int) -> tuple[Order, float]:
    weights = case.matrix(seed)
    started = time.process_time()
    order = search(weights, seed, exchanges=case.exchanges)
    return order, time.process_time() - started


def _row(case: Case, quality: float, seconds: float, rate: float, gain: float) -> tuple[str, ...]:
    asked = [f"{case.efficacy:.1%}"] if case.efficacy else []
    asked += [f"{case.seconds:g} s"] if case.seconds else []
    asked += [f"+{case.better_than_pairs:g}"] if case.better_than_pairs else []
    speed = "" if case.exchanges else f"{rate:.2g}"
    over = f"{gain:+.1f}" if case.exchanges else ""
    return (case.name, f"{case.exchanges:,}", f"{quality:.1%}", f"{seconds:.3g}", speed, over, ", ".join(asked))


def _missed(case: Case, quality: float, seconds: float, rate: float, gain: float) -> list[str]:
    missed = []
    if case.efficacy and quality < case.efficacy:
        missed.append(f"{case.name}: efficacy {quality:.1%}, asked {case.efficacy:.1%}")
    if case.seconds and seconds >= case.seconds:
        missed.append(f"{case.name}: {seconds:.1f} s, asked under {case.seconds:g}")
    if case.better_than_pairs and gain < case.better_than_pairs:
        missed.append(f"{case.name}: {gain:.1f} points over pairs of stripes, asked {case.better_than_pairs:g}")
    if not case.exchanges and case.columns > 1000 and rate < _LEAST_PAIR_ROWS_PER_SECOND:
        missed.append(f"{case.name}: {rate:.2g} pair-rows a second, asked {_LEAST_PAIR_ROWS_PER_SECOND:.2g}")
    return missed


def _published() -> NDArray[np.float64]:
    """The matrix of NVIDIA's permutation tests (apex, contrib/sparsity)."""
    np.random.seed(1)
    return np.random.rand(128, 64)


if __name__ == "__main__":
    main()
