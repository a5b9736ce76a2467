"""Fit laws of time to measured variants of a network, and check them on variants that were held back."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.fitted import FEATURES, REGIMES, Blocks, FittedCosts, features, regimes
from prunec.passes.costs.layers import DenseLayer, layers_of
from prunec.passes.costs.workload import COUNTS, Work

#: Rounds in which what lies far off its law counts less, and how many typical deviations off that is.
_ROUNDS, _FAR = 3, 2.5
#: Milliseconds below which a deviation is no matter of the layer but of the clock.
_CLOCK_MS = 0.005
#: Samples that tell a law, at least.
_FEWEST_SAMPLES = 4
#: Parts of the variants that are held back in turn.
_FOLDS = 3
#: Relative deviations that count as none, and what keeps sums of squares of equal features invertible.
_EXACT, _RIDGE = 1e-6, 1e-9
#: Turns of the search for a law, by feature.
_TURNS = 3
#: Ways to divide channels: those of ONNX Runtime with AVX-512, and without.
_CANDIDATES = (Blocks(16, 4, 4), Blocks(8, 4, 4))


@dataclass(frozen=True, eq=False)
class MeasuredVariants:
    """Measured variants of a network.

    Attributes:
        work: Their work, (variants, operations); the first variant is the whole network.
        layers_ms: Milliseconds of each operation, float64 (variants, operations).
        networks_ms: Milliseconds of each whole inference, float64 (variants,).
        two_four_gain: Time of the whole network without 2:4 and INT8 over that with them; 1 where the variants
            have neither.
    """

    work: Work
    layers_ms: NDArray[np.float64]
    networks_ms: NDArray[np.float64]
    two_four_gain: float = 1.0

    @property
    def whole(self) -> Work:
        """The work of the whole network."""
        return replace(self.work, **{name: getattr(self.work, name)[0] for name in COUNTS})

    def only(self, variants: NDArray[np.int64]) -> "MeasuredVariants":
        """Some of the variants."""
        counts = {name: getattr(self.work, name)[variants] for name in COUNTS}
        return MeasuredVariants(replace(self.work, **counts), self.layers_ms[variants], self.networks_ms[variants])


def fit_costs(samples: MeasuredVariants, key: CostKey) -> FittedCosts:
    """The laws that fit measured variants best, with their error on variants that they weren't fitted to.

    Layers that are alike share a law; where they are few, the law of less alike ones is brought to their level.
    Coefficients are never negative, as in non-negative least squares of relative deviations; outliers count less by
    Huber's weights. Of the ways to divide channels that engines have, the one with which the laws fit best is taken.
    """
    layers = layers_of(samples.whole)
    models = [_fitted(samples, key, blocks, layers) for blocks in _CANDIDATES]
    best = min(models, key=lambda model: errors_on(model, samples)["layers"])
    return replace(best, error=_held_back_errors(samples, best), two_four_gain=samples.two_four_gain)


def errors_on(model: FittedCosts, samples: MeasuredVariants) -> dict[str, float]:
    """Mean relative error of a layer, weighted by its time, and of the whole network."""
    layers = np.abs(model.layer_ms(samples.work) - samples.layers_ms).sum() / samples.layers_ms.sum()
    networks = np.abs(model.network_ms(samples.work) / samples.networks_ms - 1).mean()
    return {"layers": float(layers), "network": float(networks)}


def _held_back_errors(samples: MeasuredVariants, model: FittedCosts) -> dict[str, float]:
    """Mean over the variants, but for the whole network, of their errors by laws that were fitted without them."""
    variants = np.arange(len(samples.networks_ms))
    errors = []
    for held_back in np.array_split(variants[1:], min(_FOLDS, len(variants) - 1)):
        laws = _fitted(samples.only(np.setdiff1d(variants, held_back)), model.key, model.blocks, model.layers)
        errors += [errors_on(laws, samples.only(held_back[[each]])) for each in range(len(held_back))]
    return {name: float(np.mean([each[name] for each in errors])) for name in errors[0]} if errors else {}


def _fitted(samples: MeasuredVariants, key: CostKey, blocks: Blocks, layers: tuple[DenseLayer, ...]) -> FittedCosts:
    work, regime, values = samples.work, regimes(samples.work, blocks), features(samples.work, blocks)
    laws = np.zeros((len(REGIMES), len(work.operations), len(FEATURES)))
    likeness, is_timed = _likeness(work), (samples.layers_ms > 0).sum(axis=0) > 0
    for number in range(len(REGIMES)):
        known: dict[tuple[bytes, bytes], NDArray[np.float64]] = {}
        for position, classes in enumerate(likeness):
            if not is_timed[position]:
                continue
            counts = (regime == number) & is_timed
            used, own = _samples_of(classes, counts), counts & classes[0]
            drawn = used.tobytes(), own.tobytes()
            if drawn not in known:
                law = non_negative(values[used], samples.layers_ms[used])
                known[drawn] = law * _level(values[own] @ law, samples.layers_ms[own]) if (used != own).any() else law
            laws[number, position] = known[drawn]
    model = FittedCosts(key, {}, blocks, layers, laws)
    sums = model.layer_ms(work).sum(axis=-1)
    beside, factor = non_negative(np.stack([np.ones_like(sums), sums], axis=-1), samples.networks_ms).tolist()
    return replace(model, network=(beside, factor))


def _likeness(work: Work) -> list[list[NDArray[np.bool_]]]:
    """For each operation which others are alike, bool (operations,), in ever wider classes.

    First what is the same at full width (operator, kernel, sizes of the maps, channels, what follows), then what has
    the same operator, kernel and size of the map it reads, the same operator and kernel, the same operator, and all.
    """
    whole = np.array([getattr(work, name)[0] for name in COUNTS])
    channels, sizes = whole[[COUNTS.index(name) for name in ("in_channels", "reads")]]
    positions = (sizes / np.maximum(channels, 1)).round()
    classes: list[list[Hashable]] = [
        [(o.operator, o.kernel, o.is_grouped, o.tail, *whole[:, at].round()) for at, o in enumerate(work.operations)],
        [(o.operator, o.kernel, o.is_grouped, positions[at]) for at, o in enumerate(work.operations)],
        [(o.operator, o.kernel, o.is_grouped) for o in work.operations],
        [o.operator for o in work.operations],
        [None for _ in work.operations],
    ]
    return [
        [np.array([each == of_class[at] for each in of_class]) for of_class in classes]
        for at in range(len(work.operations))
    ]


def _samples_of(likeness: list[NDArray[np.bool_]], counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The samples, (variants, operations), that tell the law of an operation: of the narrowest class that has enough.

    Where a regime was met too seldom in all of them, the last class in any regime.
    """
    for alike in likeness:
        if (counts & alike).sum() >= _FEWEST_SAMPLES:
            return counts & alike
    return np.broadcast_to(likeness[0], counts.shape)


def _level(predicted: NDArray[np.float64], ms: NDArray[np.float64]) -> float:
    """Factor by which a law of other layers fits the few samples of a layer best; 1 where there are none."""
    factor = float(non_negative(predicted[:, None], ms)[0])
    return factor or 1.0


def non_negative(features: NDArray[np.float64], ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """The law without negative coefficients whose relative deviations are least, float64 (features,).

    Args:
        features: What the coefficients multiply, none of it negative, float64 (samples, features).
        ms: The milliseconds, float64 (samples,).
    """
    relative = 1 / (ms + _CLOCK_MS)
    weights, law = relative, np.zeros(features.shape[-1])
    for _ in range(_ROUNDS if len(ms) else 0):
        law = least_squares(features * weights[:, None], ms * weights)
        off = np.abs(features @ law - ms) * relative
        far = _FAR * max(float(np.median(off)), _EXACT)
        weights = relative * np.sqrt(far / np.maximum(off, far))
    return law


def least_squares(features: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative least squares by active sets (Lawson, Hanson, Solving Least Squares Problems, 1974, chapter 23)."""
    scale = features.max(axis=0)
    used = np.flatnonzero(scale)
    scaled = features[:, used] / scale[used]
    gram, moments = scaled.T @ scaled, scaled.T @ values
    gram[np.diag_indices_from(gram)] *= 1 + _RIDGE  # features may be multiples of each other
    law, is_free = np.zeros(len(used)), np.zeros(len(used), dtype=bool)
    for _ in range(_TURNS * len(used)):
        gains = np.where(is_free, 0.0, moments - gram @ law)
        if gains.max() <= _EXACT * np.abs(moments).max():
            break
        is_free[gains.argmax()] = True
        law = _freed(law, is_free, gram, moments)
    whole_law = np.zeros(features.shape[-1])
    whole_law[used] = law / scale[used]
    return whole_law


def _freed(
    law: NDArray[np.float64], is_free: NDArray[np.bool_], gram: NDArray[np.float64], moments: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The best law of some free coefficients, on the way to which those that reach zero stay there, in ``is_free``."""
    while is_free.any():
        best = np.zeros_like(law)
        best[is_free] = np.linalg.solve(gram[np.ix_(is_free, is_free)], moments[is_free])
        falling = np.flatnonzero(is_free & (best <= 0))
        if not len(falling):
            return best
        steps = law[falling] / (law[falling] - best[falling])
        law = np.where(is_free, law + steps.min() * (best - law), 0.0)
        is_free[falling[steps <= steps.min()]] = False
        law[~is_free] = 0.0
    return law
