"""Latency of two models in interleaved runs, with an interval for their ratio."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunec.passes.interruption import stoppable
from prunec.runtime.series import WINDOW, has_settled

#: Runs something once and returns the milliseconds that it took.
Timer = Callable[[], float]

_RESAMPLES = 2000
#: Runs of a warm-up at most, where those that count are fewer.
_MOST_WARM_UP = 10 * WINDOW


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of latency, in milliseconds."""

    median: float
    p90: float
    p99: float


@dataclass(frozen=True)
class LatencyComparison:
    """Latency of two models that were measured in turns, so that a drift of the machine meets both.

    Attributes:
        speedup: Median latency of the dense model over that of the compiled one.
        speedup_interval: 95 % bootstrap interval of that ratio.
        runs: Number of measurements of each model.
    """

    dense: Percentiles
    compiled: Percentiles
    speedup: float
    speedup_interval: tuple[float, float]
    runs: int


@dataclass(frozen=True)
class WarmUp:
    """Runs before those that count: how many, and whether times had stopped falling by their end."""

    runs: int
    settled: bool


@dataclass(frozen=True, eq=False)
class SessionTimes:
    """Times of one session of an engine, in the order of measurement: milliseconds (runs,), and its warm-up."""

    ms: NDArray[np.float64]
    warm_up: WarmUp


def percentiles(milliseconds: NDArray[np.float64]) -> Percentiles:
    """Median, 90th and 99th percentile of measurements in milliseconds, (runs,)."""
    median, p90, p99 = np.percentile(milliseconds, [50, 90, 99]).tolist()
    return Percentiles(median, p90, p99)


def wall_clock(function: Callable[[], Any]) -> Timer:
    """A timer that runs a function and takes the wall clock's time."""

    def timed() -> float:
        started = time.perf_counter_ns()
        function()
        return (time.perf_counter_ns() - started) / 1e6

    return timed


def warm_up(timer: Timer, runs: int) -> WarmUp:
    """Run until times have stopped falling, at most as often as the ``runs`` that follow, or 100 times."""
    times: list[float] = []
    while not has_settled(times):
        if len(times) >= max(runs, _MOST_WARM_UP):
            return WarmUp(len(times), settled=False)
        times += [timer() for _ in stoppable(range(WINDOW))]
    return WarmUp(len(times), settled=True)


def time_session(timer: Timer, runs: int) -> SessionTimes:
    """The times of ``runs`` runs after a warm-up."""
    warm = warm_up(timer, runs)
    return SessionTimes(np.array([timer() for _ in stoppable(range(runs))]), warm)


def time_runs(timers: Sequence[Timer], runs: int, warmup: int, seed: int) -> NDArray[np.float64]:
    """Call every timer once in each run, in an order that ``seed`` decides, after ``warmup`` calls of each.

    Returns:
        Milliseconds, (runs, timers).
    """
    for timer in timers:
        for _ in stoppable(range(warmup)):
            timer()
    generator = np.random.default_rng(seed)
    result = np.empty((runs, len(timers)))
    for run in stoppable(range(runs)):
        for index in generator.permutation(len(timers)).tolist():
            result[run, index] = timers[index]()
    return result


def compare_latency(
    dense: Timer, compiled: Timer, *, runs: int = 200, warmup: int = 20, seed: int = 0
) -> LatencyComparison:
    """Measure two models in interleaved runs, at least 2; ``seed`` decides their order and the bootstrap."""
    times = time_runs([dense, compiled], runs, warmup, seed)
    medians = np.median(times, axis=0)
    samples = np.random.default_rng(seed).integers(0, runs, (_RESAMPLES, runs))
    resampled = np.median(times[samples], axis=1)
    low, high = np.percentile(resampled[:, 0] / resampled[:, 1], [2.5, 97.5]).tolist()
    speedup = float(medians[0] / medians[1])
    return LatencyComparison(percentiles(times[:, 0]), percentiles(times[:, 1]), speedup, (low, high), runs)
