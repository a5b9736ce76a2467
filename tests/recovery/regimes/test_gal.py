"""GAL: soft thresholding, masks whose zeros are gone exactly, a discriminator that climbs what the network descends."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.recovery.recover import DenseNetwork, Objective, recover
from prunec.compiler.recovery.regimes.filter_budget import FilterBudget
from prunec.compiler.recovery.regimes.gal import Gal
from prunec.compiler.recovery.regimes.soft_masks import LEAST, SoftMasks, soft_threshold
from prunec.passes.errors import UsageError
from tests.recovery.networks import same, state
from tests.recovery.regimes.regime_runs import GLOBAL, LAST, difference, net, pruned, trained, watched


def test_the_proximal_step_is_soft_thresholding() -> None:
    values = np.random.default_rng(0).normal(size=200)
    for threshold in (0.0, 0.3, 5.0):
        expected = np.sign(values) * np.maximum(np.abs(values) - threshold, 0)
        np.testing.assert_array_equal(soft_threshold(values, threshold), expected)
    grid = np.linspace(-3, 3, 60001)
    for value in (-2.0, -0.1, 0.2, 1.5):
        best = grid[np.argmin(0.5 * (grid - value) ** 2 + 0.7 * np.abs(grid))]
        assert soft_threshold(np.array([value]), 0.7)[0] == pytest.approx(best, abs=1e-4)


@pytest.fixture
def budget(data: Data) -> FilterBudget:
    _, hook = watched(net(), data, Gal(), GLOBAL, replace(LAST, epochs=1))
    return hook.budget  # type: ignore[no-any-return]


def test_masks_take_fista_s_steps(budget: FilterBudget) -> None:
    """Without a penalty and without anything to remove they are its accelerated gradient steps."""
    nothing = (replace(budget.space.budgets[0], asked=1.0),)
    free = FilterBudget(budget.scope, replace(budget.space, budgets=nothing), budget.allocator)
    masks, random = SoftMasks.ones([8, 12, 8]), np.random.default_rng(0)
    x = y = np.ones(28)
    t = 1.0
    for _ in range(4):
        gradient = random.normal(0, 0.01, 28)
        new = y - 0.1 * gradient
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        x, y, t = new, new + (t - 1) / following * (new - x), following
        masks.step(np.split(gradient, [8, 20]), 0.1, 1e-9, free, last=False)
        np.testing.assert_allclose(np.concatenate(masks.masks), x, atol=1e-8)
        np.testing.assert_allclose(np.concatenate(masks.ahead), y, atol=1e-8)


def test_zeros_keep_the_budget_in_the_last_step_and_never_more(budget: FilterBudget) -> None:
    random = np.random.default_rng(0)
    gradients = [random.normal(0, 0.5, count) for count in (8, 12, 8)]
    masks = SoftMasks.ones([8, 12, 8])
    none = masks.step(gradients, 0.1, 1.0, budget, last=False)
    assert not any(each.any() for each in none)
    assert all((each > 0).all() for each in masks.masks)
    masks.step(gradients, 0.1, 1.0, budget, last=True)
    zeros = [each == 0 for each in masks.masks]
    assert budget.space.fits(budget._without(np.array([each.sum() for each in zeros])))
    at_once = SoftMasks.ones([8, 12, 8])
    alone = at_once.step(gradients, 1.0, 100.0, budget, last=False)
    assert all(each.all() for each in alone), "the penalty alone would leave nothing"
    found = np.concatenate([each == 0 for each in at_once.masks])
    assert 0 < found.sum() < 28
    assert min(each[each > 0].min() for each in at_once.masks) >= LEAST


def test_a_unit_that_stays_below_others_that_go_keeps_its_mask() -> None:
    """As one of a cheap layer does, which comes back since there is room for it."""
    masks, moved = SoftMasks.ones([2, 2]), [np.array([0.1, 0.5]), np.array([0.3, 0.9])]
    going: Any = SimpleNamespace(lowest=lambda _: [np.array([True, True]), np.array([False, False])])
    masks.step([1 - each for each in moved], 1.0, 0.0, going, last=True)
    np.testing.assert_allclose(masks.masks, [[0, 0], [0.2, 0.8]])


def test_the_pruned_network_equals_the_masked_one(data: Data) -> None:
    result, hook = watched(net(), data, Gal(), GLOBAL, replace(LAST, epochs=3))
    figures: Any = result.hooks[0].figures
    assert 0 < figures["zeros"] < figures["units"] == 28
    behind = pruned(result, GLOBAL)
    uniform = replace(GLOBAL, allocation="uniform", criterion="l1").run(net()).stats["macs"]
    assert behind.stats["macs"] <= uniform
    assert figures["macs_without_zeros"] == behind.stats["macs"]
    assert sum(row["width"] - row["kept"] for row in behind.stats["groups"]) == figures["zeros"]
    assert difference(behind.program, result.program) < 1e-9
    assert {"zeros_by_the_penalty_alone", "macs_by_the_penalty_alone"} < figures.keys()
    assert all(float(values.detach().min()) >= 0 for values in hook.factors.values.values())


def test_labels_have_no_part(data: Data) -> None:
    def shuffled(outputs: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(outputs, labels.flip(0))

    options = replace(LAST, epochs=1)
    plain = trained(net(), data, Gal(), GLOBAL, options)
    others = recover(
        net(), replace(options, hooks=(Gal(),)), data, objective=Objective(loss=shuffled),
        dense=DenseNetwork(net(), pruning=GLOBAL),
    )  # fmt: skip
    assert same(state(plain.program), state(others.program))


def test_discriminator_and_network_have_gradients_of_their_own(data: Data) -> None:
    _, hook = watched(net(), data, Gal(), GLOBAL, replace(LAST, epochs=1))
    student = torch.randn(16, 4, requires_grad=True)
    teacher = torch.randn(16, 4)

    class One:
        outputs, teacher_outputs = student, teacher

    loss = hook.loss(One(), torch.zeros(()))
    loss.backward()
    scores = hook.discriminator(student)
    deceived = -torch.nn.functional.logsigmoid(scores).mean() + (student - teacher).square().mean()
    torch.testing.assert_close(loss, deceived)
    (expected,) = torch.autograd.grad(deceived, student)
    torch.testing.assert_close(student.grad, expected)
    judged = -torch.nn.functional.logsigmoid(hook.discriminator(teacher)).mean()
    judged = judged - torch.nn.functional.logsigmoid(-hook.discriminator(student.detach())).mean()
    weight = hook.discriminator[0].weight
    (expected,) = torch.autograd.grad(judged, weight)
    before = hook_gradient(hook, weight, student, teacher)
    torch.testing.assert_close(before, expected)


def hook_gradient(hook: Any, weight: Any, student: Any, teacher: Any) -> Any:
    class One:
        outputs, teacher_outputs = student, teacher

    (gradient,) = torch.autograd.grad(hook.loss(One(), torch.zeros(())), weight)
    return gradient


def test_it_needs_a_teacher_and_a_classifier(data: Data) -> None:
    with pytest.raises(UsageError, match="gal needs the dense network as its teacher"):
        recover(net(), replace(LAST, hooks=(Gal(),)), data, dense=DenseNetwork(pruning=GLOBAL))
    with pytest.raises(UsageError, match="sparsity must be above 0"):
        Gal(sparsity=0.0)
