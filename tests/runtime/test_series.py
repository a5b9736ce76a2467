"""Judging measured times: series with a known warm-up, drift, outliers and sessions. No clock is read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunec.runtime.series import WINDOW, has_settled, median_interval, steadiness

seeds = st.integers(0, 2**32 - 1)


def noisy(runs: int, seed: int, noise: float = 0.02) -> NDArray[np.float64]:
    return 5.0 * (1 + noise * np.random.default_rng(seed).standard_normal(runs))


def settled_after(ms: NDArray[np.float64]) -> int | None:
    """Number of runs after which a series counts as warm."""
    return next((n for n in range(WINDOW, len(ms) + 1, WINDOW) if has_settled(ms[:n].tolist())), None)


@given(st.integers(0, 2 * WINDOW - 1))
def test_a_short_series_is_not_known_to_be_warm(runs: int) -> None:
    assert not has_settled([1.0] * runs)


@given(seeds, st.floats(0, 0.1))
def test_a_steady_series_is_warm_soon(seed: int, noise: float) -> None:
    found = settled_after(noisy(20 * WINDOW, seed, noise))
    assert found is not None
    assert found <= 10 * WINDOW


@given(seeds, st.integers(4, 12), st.floats(0.3, 3))
def test_a_falling_series_is_not_warm(seed: int, windows: int, extra: float) -> None:
    """Each window is at least 5 % of the steady time faster than the one before."""
    steps = np.maximum(0, windows - np.arange(20)).repeat(WINDOW) / windows
    ms = noisy(20 * WINDOW, seed, 0.005) + 5.0 * max(extra, 0.06 * windows) * steps
    found = settled_after(ms)
    assert found is not None
    assert found >= windows * WINDOW


def test_times_that_rise_are_warm_and_drift() -> None:
    ms = noisy(200, 0) * np.linspace(1, 1.3, 200)
    assert has_settled(ms[:20].tolist())
    assert steadiness([ms]).drifts


@given(seeds, st.floats(0.06, 1), st.booleans(), st.integers(1, 4))
def test_a_drift_is_found_and_measured(seed: int, change: float, rises: bool, sessions: int) -> None:
    slope = 1 + (change if rises else -change / 2) * (np.arange(100) / 99 - 0.5)
    found = steadiness([noisy(100, seed + i, 0.005) * slope for i in range(sessions)])
    assert found.drifts
    assert found.drift == pytest.approx(change if rises else -change / 2, rel=0.3)


def test_noise_is_rarely_a_drift() -> None:
    found = [steadiness([noisy(70, 3 * seed + i, 0.05) for i in range(3)]) for seed in range(500)]
    assert np.mean([each.drift_chance < 0.01 for each in found]) <= 0.025
    assert np.mean([each.drifts for each in found]) <= 0.025


@given(seeds)
def test_sessions_that_differ_as_a_whole_are_no_drift(seed: int) -> None:
    steady = [np.full(50, level) for level in (4.0, 5.0, 6.0)]
    assert steadiness(steady) == steadiness([np.full(50, 1.0)])
    alike, apart = ([noisy(60, seed + i) * level**i for i in range(3)] for level in (1, 2))
    assert steadiness(apart).drift_chance == steadiness(alike).drift_chance


@given(seeds, st.integers(0, 20))
def test_outliers_are_counted(seed: int, count: int) -> None:
    ms = np.random.default_rng(seed).uniform(4.9, 5.1, 200)  # nothing of a uniform series is outside
    ms[np.random.default_rng(seed).permutation(200)[:count]] *= 3
    assert steadiness([ms]).outliers == count / 200


@given(seeds, st.integers(2, 20), st.floats(0, 1))
def test_the_interval_covers_all_sessions(seed: int, count: int, spread: float) -> None:
    levels = 1 + spread * np.random.default_rng(seed).random(count)
    sessions = [noisy(30, seed + i, 0.01) * level for i, level in enumerate(levels)]
    low, high = median_interval(sessions, seed=0)
    medians = [float(np.median(session)) for session in sessions]
    inside = [low <= median <= high for median in medians]
    assert all(inside) if count <= 10 else np.mean(inside) >= 0.8


@pytest.mark.parametrize("runs", [5, 24, 101])
def test_the_interval_of_one_session_is_the_bootstrap_of_its_median(runs: int) -> None:
    ms = np.random.default_rng(runs).exponential(1, runs)
    samples = np.random.default_rng(1).integers(0, runs, (20_000, runs))
    expected = np.percentile(np.median(ms[samples], axis=1), [2.5, 97.5])
    found = median_interval([ms], seed=0)
    spacing = np.diff(np.sort(ms)).max()
    assert np.allclose(found, expected, atol=max(0.15 * float(expected[1] - expected[0]), 0.5 * spacing))


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    covered = [low <= 5.0 <= high for low, high in (median_interval([noisy(60, s)], seed=0) for s in range(400))]
    assert 0.91 <= np.mean(covered) <= 0.99


def test_one_run_is_its_own_interval() -> None:
    assert median_interval([np.array([2.0])], seed=0) == (2.0, 2.0)
    assert steadiness([np.array([2.0])]).drift_chance == 1.0
