"""Laws are found again from what an engine of known law takes, on any widths."""

from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from prunec.passes.costs.fitted import REGIMES, Blocks, FittedCosts, regimes
from prunec.passes.program import Program
from prunec.runtime.costs.fitting import MeasuredVariants, errors_on, fit_costs, least_squares, non_negative
from prunec.runtime.costs.variants import variant_widths
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.resnet import cifar_resnet
from tests.architectures.vit import ViT
from tests.passes.checks import captured, normal
from tests.passes.costs.synthetic import KEY, engine, workload

NETWORKS = {
    "resnet": lambda: cifar_resnet(20, width=64),
    "mobilenet": lambda: mobilenet_v2(10),
    "vit": lambda: ViT(32, 8, 64, 2, 4, 10),
}


@cache
def captured_once(name: str) -> Program:
    return captured(NETWORKS[name](), normal(2, 3, 32, 32))


@pytest.fixture(params=NETWORKS)
def program(request: pytest.FixtureRequest) -> Program:
    return captured_once(request.param)


def measured(
    program: Program, truth_seed: int, noise: float, blocks: Blocks | None = None
) -> tuple[MeasuredVariants, MeasuredVariants, MeasuredVariants]:
    """Variants to fit to, others of any widths, and others of aligned ones."""
    flow, counts = workload(program)
    truth = engine(flow.at(counts), truth_seed, blocks)
    generator = np.random.default_rng(truth_seed)

    def variants(kept: NDArray[np.int64], noise: float) -> MeasuredVariants:
        work = flow.at(kept)
        layers = truth.layer_ms(work)
        layers = layers * generator.normal(1, noise, layers.shape)
        return MeasuredVariants(work, layers, truth.network_ms(work))

    fitted_to = variants(variant_widths(counts, 12, 0), noise)
    others = generator.integers(np.maximum(counts // 16, 1), counts + 1, (20, len(counts)))
    aligned = np.maximum(others // 16 * 16, np.minimum(counts, 16))
    return fitted_to, variants(others, 0), variants(aligned, 0)


@pytest.mark.parametrize("seed", range(2))
def test_an_exact_law_is_found_again(program: Program, seed: int) -> None:
    fitted_to, _, aligned = measured(program, seed, 0)
    model = fit_costs(fitted_to, KEY)
    assert model.blocks == Blocks(16, 4, 4)
    assert errors_on(model, fitted_to)["layers"] < 5e-3
    assert max(errors_on(model, aligned).values()) < 0.01
    assert max(model.error.values()) < 0.1


def test_noise_and_outliers_cost_little(program: Program) -> None:
    fitted_to, others, aligned = measured(program, 3, 0.02)
    ms = fitted_to.layers_ms.copy()
    ms[np.random.default_rng(0).random(ms.shape) < 0.03] *= 5  # another process took the core
    model = fit_costs(replace(fitted_to, layers_ms=ms), KEY)
    assert max(errors_on(model, aligned).values()) < 0.05
    assert max(errors_on(model, others).values()) < 0.15


def test_blocks_are_found(program: Program) -> None:
    fitted_to, _, aligned = measured(program, 1, 0, Blocks(8, 4, 4))
    model = fit_costs(fitted_to, KEY)
    assert max(errors_on(model, aligned).values()) < 0.02


def test_widths_within_a_block_cost_the_same(program: Program) -> None:
    flow, counts = workload(program)
    truth = engine(flow.at(counts), 0)
    full = flow.at(counts)
    blocked = (
        (regimes(full, truth.blocks) == REGIMES.index("blocked"))
        & (full.in_channels % 16 == 0)
        & (full.in_channels > 16)
    )
    cut = replace(full, in_channels=np.where(blocked, full.in_channels - 4, full.in_channels))
    ratio = np.where(blocked, cut.in_channels / np.maximum(full.in_channels, 1), 1)
    grouped = np.array([each.is_grouped for each in full.operations])
    cut = replace(cut, reads=full.reads * ratio, macs=full.macs * np.where(grouped, 1, ratio))
    np.testing.assert_allclose(truth.layer_ms(cut), truth.layer_ms(full), rtol=1e-12)


def test_a_network_that_lost_layers_is_still_known(program: Program) -> None:
    flow, counts = workload(program)
    truth: FittedCosts = engine(flow.at(counts), 0)
    work = flow.at(np.stack([counts, np.maximum(counts // 2, 1)]))
    kept = [position for position in range(len(flow.operations)) if position % 3]
    fields = {name: getattr(work, name)[:, kept] for name in vars(work) if name != "operations"}
    part = replace(work, operations=tuple(flow.operations[position] for position in kept), **fields)
    np.testing.assert_allclose(truth.layer_ms(part), truth.layer_ms(work)[:, kept])


@pytest.mark.parametrize("seed", range(50))
def test_non_negative_least_squares_meets_the_conditions_of_its_optimum(seed: int) -> None:
    """Karush, Kuhn, Tucker: the gradient is 0 where a coefficient isn't, and not negative where it is."""
    generator = np.random.default_rng(seed)
    features = generator.uniform(0, 1, (12, 5))
    features[:, 4] = 3 * features[:, 1] * (seed % 2)  # a multiple of another one, or nothing
    ms = features @ np.maximum(generator.normal(0, 1, 5), 0) * generator.normal(1, 0.01, 12) + 1
    law = non_negative(features, ms)
    assert (law >= 0).all()
    weights = _huber(features, ms, law)
    gradient = (features * weights[:, None] ** 2).T @ (features @ law - ms)
    scale = np.abs(features * weights[:, None] ** 2).T @ ms + 1e-12
    assert (gradient / scale > -0.02).all()
    assert (np.abs(gradient / scale)[law > 0] < 0.02).all()


def _huber(features: NDArray[np.float64], ms: NDArray[np.float64], law: NDArray[np.float64]) -> NDArray[np.float64]:
    relative = 1 / (ms + 0.005)
    off = np.abs(features @ law - ms) * relative
    far = 2.5 * max(float(np.median(off)), 1e-6)
    return relative * np.sqrt(far / np.maximum(off, far))


def test_layers_without_a_time_of_their_own_are_named(program: Program) -> None:
    fitted_to, _, aligned = measured(program, 0, 0)
    assert fit_costs(fitted_to, KEY).untimed == ()
    ms = fitted_to.layers_ms.copy()
    ms[:, 2] = 0
    model = fit_costs(replace(fitted_to, layers_ms=ms), KEY)
    assert model.untimed == (fitted_to.work.operations[2].name,)
    assert not model.layer_ms(aligned.work)[:, 2].any()


def test_few_samples_of_a_layer_set_the_level_of_a_law_of_others(program: Program) -> None:
    """A layer that takes three times as long as its like, met in blocks twice: no law of its own, but its level."""
    fitted_to, _, _ = measured(program, 0, 0)
    names = [operation.operator for operation in fitted_to.work.operations]
    row = max(row for row, name in enumerate(names) if name in ("conv2d", "linear"))
    ms = fitted_to.layers_ms.copy()
    ms[:, row] *= 3
    few = replace(fitted_to, layers_ms=ms).only(np.array([0, 1, 2]))
    predicted = fit_costs(few, KEY).layer_ms(few.work)[:, row]
    assert np.abs(predicted / few.layers_ms[:, row] - 1).mean() < 0.3


@pytest.mark.parametrize("seed", range(30))
def test_non_negative_least_squares_is_that_of_the_best_subset(seed: int) -> None:
    """The optimum is the least squares without the constraint of some subset of the features: all are tried."""
    generator = np.random.default_rng(seed)
    rows = generator.uniform(0, 1, (6 + seed, 6)) * 10.0 ** generator.integers(-6, 6, 6)
    rows[:, 5] = 2 * rows[:, 2] if seed % 3 else 0
    values = generator.uniform(0, 1, len(rows))

    def squares(law: NDArray[np.float64]) -> float:
        return float(((rows @ law - values) ** 2).sum())

    least = squares(np.zeros(6))
    for size in range(1, 6):
        for subset in combinations(range(5), size):
            law = np.zeros(6)
            law[list(subset)] = np.linalg.lstsq(rows[:, subset], values)[0]
            least = min(least, squares(law)) if (law >= 0).all() else least
    found = least_squares(rows, values)
    assert (found >= 0).all()
    assert squares(found) == pytest.approx(least, rel=1e-6, abs=1e-9)
