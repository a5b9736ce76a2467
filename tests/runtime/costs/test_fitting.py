"""Laws are found again from what an engine of known law takes, on any widths."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from prunec.passes.costs.fitted import REGIMES, Blocks, FittedCosts, regimes
from prunec.passes.coupling import analyse
from prunec.passes.program import Program
from prunec.runtime.costs.fitting import MeasuredVariants, errors_on, fit_costs, non_negative
from prunec.runtime.costs.variants import are_mixed, variant, variant_widths
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


def test_widths_of_variants() -> None:
    counts = np.array([512, 64, 24, 3, 1])
    widths = variant_widths(counts, 17, 0)
    assert widths.shape == (17, 5) and (widths[0] == counts).all()
    assert (widths >= 1).all() and (widths <= counts).all()
    mixed = np.flatnonzero(are_mixed(17))
    assert len(mixed) == 5
    aligned = np.delete(widths, mixed, axis=0)
    assert (aligned[:, :2] % 16 == 0).all() and (aligned[:, 2] % 8 == 0).all()
    odd = widths[mixed, :3] % 4 != 0
    assert (odd.sum(axis=0) >= 2).all() and not odd.all(axis=0).any()  # met both ways
    assert len(np.unique(widths[1:, 0] * 4 // 513)) == 4  # every quarter of the range
    assert (widths == variant_widths(counts, 17, 0)).all()
    assert (variant_widths(counts, 1, 0) == counts).all()


def test_variants_have_their_widths(program: Program) -> None:
    flow, counts = workload(program)
    kept = variant_widths(counts, 3, 5)[2]
    pruned = variant(program, analyse(program), kept, 7)
    again, whole = workload(pruned)
    np.testing.assert_allclose(again.at(whole).macs, flow.at(kept).macs)
