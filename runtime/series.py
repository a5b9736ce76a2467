"""How far a series of measured times can be trusted: whether it is warm, its drift and outliers, its interval.

Pure functions of milliseconds in the order of measurement, one array (runs,) for each session: no clock is read here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Runs whose medians are compared to tell whether times still fall.
WINDOW = 10
#: Share by which the median may fall from one window to the next once a series is warm.
_SETTLED_SHARE = 0.01
#: Blocks of a session whose medians are searched for a trend: enough for a test, few enough for all their pairs.
_BLOCKS = 20
#: A trend is reported where chance gives one like it less often, and where it is this large.
_DRIFT_CHANCE, _DRIFT_SHARE = 0.01, 0.02
#: Tukey's fences lie so many interquartile ranges beyond the quartiles; normal noise leaves 0.7 % outside.
_FENCE = 1.5
_RESAMPLES = 2000
#: Standard error of a median over that of a mean, and the median distance of two normal draws, in deviations.
_MEDIAN_ERROR, _MEDIAN_DISTANCE = math.sqrt(math.pi / 2), 0.6745 * math.sqrt(2)


@dataclass(frozen=True)
class Steadiness:
    """What speaks against a series.

    Attributes:
        drift: Change of the time from a session's start to its end, as a share of the median (Theil-Sen).
        drift_chance: Probability of such a trend by chance (Mann-Kendall, sessions as strata).
        drifts: Whether it is beyond chance, and at least 2 %.
        outliers: Share of the runs beyond Tukey's fences of their session.
    """

    drift: float
    drift_chance: float
    drifts: bool
    outliers: float


def has_settled(ms: Sequence[float]) -> bool:
    """Whether times have stopped falling: the last `WINDOW` runs are as fast as those before, up to their noise.

    Noise is taken from neighbours' differences, which a slow fall hardly changes.
    """
    if len(ms) < 2 * WINDOW:
        return False
    recent = np.asarray(ms[-2 * WINDOW :])
    before, last = np.median(recent[:WINDOW]), np.median(recent[WINDOW:])
    noise = np.median(np.abs(np.diff(recent))) / _MEDIAN_DISTANCE
    error = _MEDIAN_ERROR * noise * math.sqrt(2 / WINDOW)
    return bool(before - last <= max(_SETTLED_SHARE * before, 2 * error))


def steadiness(sessions: Sequence[NDArray[np.float64]]) -> Steadiness:
    """Drift and outliers of all sessions of one measurement.

    The trend is that of Hirsch, Slack and Smith (Water Resources Research 18(1), 1982): pairs are compared within a
    session only, so that sessions which differ as a whole are no drift.
    """
    score, variance, changes = 0.0, 0.0, []
    for session in sessions:
        medians = np.array([np.median(block) for block in np.array_split(session, min(len(session), _BLOCKS))])
        first, second = np.triu_indices(len(medians), 1)
        rises, count = medians[second] - medians[first], len(medians)
        score += float(np.sign(rises).sum())
        variance += count * (count - 1) * (2 * count + 5) / 18
        changes.append(rises / (second - first) * (count - 1) / np.median(session))
    pooled = np.concatenate(changes)
    change = float(np.median(pooled)) if len(pooled) else 0.0
    chance = math.erfc(max(abs(score) - 1, 0) / math.sqrt(2 * variance)) if variance else 1.0
    drifts = chance < _DRIFT_CHANCE and abs(change) >= _DRIFT_SHARE
    outside = sum(int(_is_outside(session).sum()) for session in sessions)
    return Steadiness(change, chance, drifts, outside / sum(map(len, sessions)))


def median_interval(sessions: Sequence[NDArray[np.float64]], seed: int) -> tuple[float, float]:
    """95 % interval of the median of a session like these, by bootstrap over sessions and the runs in them.

    A session is drawn, then its runs; so that sessions which differ as a whole all lie within. The median of n draws
    from n runs is the order statistic at a Beta((n + 1)/2, (n + 1)/2) quantile.
    """
    generator = np.random.default_rng(seed)
    counts = np.bincount(generator.integers(len(sessions), size=_RESAMPLES), minlength=len(sessions))
    medians = []
    for session, count in zip(sessions, counts.tolist(), strict=True):
        runs = len(session)
        quantiles = generator.beta((runs + 1) / 2, (runs + 1) / 2, count)
        medians.append(np.sort(session)[np.minimum((quantiles * runs).astype(np.int64), runs - 1)])
    low, high = np.percentile(np.concatenate(medians), [2.5, 97.5]).tolist()
    return low, high


def _is_outside(session: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a run lies beyond Tukey's fences."""
    low, high = np.percentile(session, [25, 75])
    margin = _FENCE * (high - low)
    outside: NDArray[np.bool_] = (session < low - margin) | (session > high + margin)
    return outside
