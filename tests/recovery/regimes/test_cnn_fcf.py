"""CNN-FCF: its projections are the nearest points, and its factors end at 0 and 1 with the sum asked for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from prunec.calibration.data import Data
from prunec.compiler.recovery.regimes.box_and_sphere import BinaryFactors, nearest_in_box, nearest_on_sphere
from prunec.compiler.recovery.regimes.cnn_fcf import CnnFcf
from prunec.compiler.recovery.regimes.unit_factors import UnitFactors
from prunec.passes.coupling import analyse
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import cifar_resnet
from tests.recovery.regimes.regime_runs import LAST, ONE_STEP, UNIFORM, difference, net, pruned, removed_units, watched


def by_all_faces(values: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """The nearest point of the box with a sum, by trying which of the coordinates are 0, 1 and between."""
    best, least = values, np.inf
    for pattern in np.ndindex(*[3] * len(values)):
        kinds = np.array(pattern)
        inner = kinds == 2
        point = (kinds == 1).astype(float)
        if inner.any():
            point[inner] = values[inner] + (total - point.sum() - values[inner].sum()) / inner.sum()
        inside = abs(point.sum() - total) < 1e-9 and point.min() >= -1e-12 and point.max() <= 1 + 1e-12
        if inside and np.linalg.norm(point - values) < least:
            best, least = point, float(np.linalg.norm(point - values))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_nearest_point_of_the_box_is_the_one_that_all_faces_have(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(0.5, [0.2, 1.0, 3.0][seed % 3], 6)
    if seed % 4 == 0:
        values[1] = values[0]
    for total in (1, 3, 5):
        nearest = nearest_in_box(values, total)
        assert nearest.sum() == pytest.approx(total, abs=1e-12)
        assert nearest.min() >= 0
        assert nearest.max() <= 1
        np.testing.assert_allclose(nearest, by_all_faces(values, total), atol=1e-9)


@pytest.mark.parametrize("total", [0, 4])
def test_the_ends_of_the_box(total: int) -> None:
    np.testing.assert_allclose(nearest_in_box(np.array([0.2, 3.0, -1.0, 0.2]), total), np.full(4, total / 4))


def test_the_nearest_point_of_the_sphere() -> None:
    random = np.random.default_rng(0)
    for count in (1, 2, 7, 64):
        values = random.normal(size=count)
        nearest = nearest_on_sphere(values)
        assert np.linalg.norm(nearest - 0.5) == pytest.approx(np.sqrt(count) / 2, rel=1e-12)
        others = [nearest_on_sphere(random.normal(size=count)) for _ in range(50)]
        assert all(np.linalg.norm(values - nearest) <= np.linalg.norm(values - other) + 1e-12 for other in others)
    assert nearest_on_sphere(np.full(4, 0.5)).tolist() == [1.0] * 4


def test_the_factors_gradient_is_the_papers() -> None:
    random = np.random.default_rng(1)
    factors = BinaryFactors(2, *random.normal(size=(3, 5)))
    gradient, rho = random.normal(size=5), 0.5
    v, y1, y2 = factors.values, factors.box, factors.sphere
    z1, z2 = nearest_in_box(v + y1 / rho, 2), nearest_on_sphere(v + y2 / rho)
    expected = v - 0.1 * (0.65 * (y1 + y2 + rho * (2 * v - z1 - z2)) + 0.35 * gradient)
    factors.step(gradient, rho, 0.65, 0.1)
    np.testing.assert_allclose(factors.values, expected)
    np.testing.assert_allclose(factors.box, y1 + rho * (expected - z1))
    np.testing.assert_allclose(factors.sphere, y2 + rho * (expected - z2))


@pytest.mark.parametrize(("count", "kept"), [(2, 1), (8, 3), (16, 8), (64, 13), (256, 200)])
def test_the_multipliers_settle_where_the_loss_wants_it(count: int, kept: int) -> None:
    """With the gradient of a linear loss, the units stay whose factors lower it most."""
    random = np.random.default_rng(count)
    factors, gradient = BinaryFactors.beginning(kept, np.ones(count)), random.normal(0, 0.1, count)
    rho = 1e-3
    for _ in range(3488):
        factors.step(gradient, rho, 0.65, 0.1)
        rho = min(6.0, rho * 1.005)
    assert factors.distance < 1e-3
    assert abs(factors.values.sum() - kept) < 1e-3 * count
    best = set(np.argsort(gradient)[:kept].tolist())
    assert len(best & set(np.flatnonzero(factors.values > 0.5).tolist())) >= 0.9 * kept


@pytest.mark.parametrize("epochs", [1, 4])
def test_factors_end_at_0_and_1_with_the_widths_asked_for(data: Data, epochs: int) -> None:
    result, hook = watched(net(), data, CnnFcf(), UNIFORM, replace(LAST, epochs=epochs))
    for name, parameter in hook.factors.values.items():
        values, count = parameter.detach(), len(parameter)
        assert float((values - values.round()).abs().max()) < 1e-3, name
        assert float(values.sum()) == pytest.approx(count / 2, abs=1e-3 * count)
    figures: Any = result.hooks[0].figures
    assert figures["largest_distance_from_0_or_1"] < 1e-3
    behind = pruned(result, UNIFORM)
    for name, values in hook.factors.values.items():
        assert removed_units(behind, name) == [int((values < 0.5).sum()), len(values)]
    assert difference(behind.program, result.program) < 1e-10, "nothing is lost"


def test_one_step_is_enough(data: Data) -> None:
    result, _ = watched(net(), data, CnnFcf(), UNIFORM, ONE_STEP)
    figures: Any = result.hooks[0].figures
    assert figures["largest_distance_from_0_or_1"] < 1e-3


@torch.no_grad()
def test_factors_are_merged_exactly_and_zero_is_gone() -> None:
    program = capture(redraw_(cifar_resnet(8).eval(), 0), (torch.randn(2, 3, 16, 16),)).double()
    coupling = analyse(program)
    factors = UnitFactors.on(program, coupling.groups)
    form = program.with_tensors(program.tensors())
    names = factors.insert(form)
    assert names.keys() == {group.name for group in coupling.groups}
    for number, values in enumerate(factors.values.values()):
        values.copy_(torch.rand(len(values), generator=torch.Generator().manual_seed(number)))
    merged = program.clone()
    for name, value in factors.merged(program.tensors(), factors.values).items():
        merged.tensors()[name].copy_(value)
    assert difference(merged, form) < 1e-12
    assert difference(merged, program) > 1e-2


def test_what_it_can_t_do_is_refused() -> None:
    with pytest.raises(UsageError, match="alpha is a share, above 0 and below 1"):
        CnnFcf(alpha=1.0)
    with pytest.raises(UsageError, match="rho_growth must be above 1"):
        CnnFcf(rho_growth=1.0)
