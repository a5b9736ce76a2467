"""OBD and OBS: exact on quadratics, the recursion equals the inverse, and no choice of one weight is better."""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.calibration import collect_evidence
from prunec.passes import Sparsify
from prunec.passes.criteria import Evidence, Seen
from prunec.passes.criteria.obd import OBD
from prunec.passes.criteria.obs import OBS, InverseHessian
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from tests.passes.checks import normal

INPUTS, SAMPLES = 7, 24


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs - labels).square().sum(1).mean() / 2


def quadratic(seed: int = 0) -> tuple[Any, Tensor, Tensor]:
    """A linear layer at the minimum of its loss; its residuals are 1 and -1: squares of gradients are those of inputs.

    Every input comes twice, once with each residual, so that the mean gradient is zero and the mean of g g^T is exactly
    the matrix of second derivatives, the mean of x x^T.
    """
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(INPUTS, INPUTS, generator=generator, dtype=torch.float64)
    x = torch.randn(SAMPLES // 2, INPUTS, generator=generator, dtype=torch.float64) @ mixing
    x = torch.cat([x, x])
    layer = nn.Linear(INPUTS, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(1, INPUTS, generator=generator, dtype=torch.float64))
        residuals = torch.cat([torch.ones(SAMPLES // 2), -torch.ones(SAMPLES // 2)]).double()[:, None]
        labels = layer(x) - residuals
    return capture(layer, (x[:2],)), x, labels


def evidence_of(criterion: Any, seed: int = 0) -> tuple[Evidence, Tensor, Tensor, Tensor]:
    program, x, labels = quadratic(seed)
    evidence = collect_evidence(program, [criterion], [(x, labels)], squared_error)
    name, weight = next(iter(program.parameters().items()))
    object.__setattr__(evidence, "layer", name)
    return evidence, weight.detach(), x, labels


def loss(weight: Tensor, x: Tensor, labels: Tensor) -> float:
    return float(squared_error(x @ weight.T, labels))


@pytest.mark.parametrize("seed", range(5))
def test_obd_is_the_exact_change_of_a_quadratic_by_zeroing_one_weight(seed: int) -> None:
    evidence, weight, x, labels = evidence_of(OBD(), seed)
    scores = OBD().score_elements(weight, evidence)
    before = loss(weight, x, labels)
    for k in range(INPUTS):
        without = weight.clone()
        without[0, k] = 0
        assert float(scores[0, k]) == pytest.approx(loss(without, x, labels) - before, abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_recursion_is_the_inverse(seed: int) -> None:
    criterion = OBS(images=SAMPLES)
    evidence, _, x, _ = evidence_of(criterion, seed)
    hessian = 1e-4 * torch.eye(INPUTS, dtype=torch.float64) + x.T @ x / SAMPLES
    found = evidence.of(criterion.hessian)
    assert found.shape == (1, INPUTS, INPUTS)
    direct = torch.linalg.inv(hessian)
    assert float((found[0] - direct).abs().max() / direct.abs().max()) < 1e-11


def curvature(x: Tensor) -> Tensor:
    return 1e-4 * torch.eye(INPUTS, dtype=torch.float64) + x.T @ x / SAMPLES


def best_change(hessian: Tensor, weight: Tensor, gone: list[int]) -> tuple[float, Tensor]:
    """The least 1/2 d^T H d over all d that zero some weights, and its d, from the conditions of Lagrange."""
    size, count = len(weight), len(gone)
    chosen = torch.eye(size, dtype=torch.float64)[gone]
    system = torch.cat([torch.cat([hessian, chosen.T], 1), torch.cat([chosen, torch.zeros(count, count)], 1)])
    right = torch.cat([torch.zeros(size, dtype=torch.float64), -weight[gone]])
    change = torch.linalg.solve(system, right)[:size]
    return float(change @ hessian @ change / 2), change


@pytest.mark.parametrize("seed", range(5))
def test_obs_zeroes_at_the_cost_that_it_tells_and_no_other_weight_costs_less(seed: int) -> None:
    criterion = OBS(images=SAMPLES)
    evidence, weight, x, _ = evidence_of(criterion, seed)
    hessian, scores = curvature(x), criterion.score_elements(weight, evidence)[0]
    costs = []
    for q in range(INPUTS):
        mask = torch.ones_like(weight, dtype=torch.bool)
        mask[0, q] = False
        change = (criterion.compensate_elements(weight, evidence, mask) - weight)[0]
        assert float(weight[0, q] + change[q]) == 0
        cost = float(change @ hessian @ change / 2)
        best, expected = best_change(hessian, weight[0], [q])
        assert cost == pytest.approx(float(scores[q]), rel=1e-9)
        assert cost == pytest.approx(best, rel=1e-9)
        torch.testing.assert_close(change, expected, rtol=1e-8, atol=1e-9)
        assert float(scores[q]) <= float(hessian[q, q] * weight[0, q].square() / 2) * (1 + 1e-12), "OBD's is no less"
        costs.append(best)
    assert int(scores.argmin()) == costs.index(min(costs)), "the greedy step is the best of all"


@pytest.mark.parametrize("gone", [list(some) for some in combinations(range(4), 2)])
def test_the_others_make_up_best_for_all_that_goes_together(gone: list[int]) -> None:
    criterion = OBS(images=SAMPLES)
    evidence, weight, x, _ = evidence_of(criterion)
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[0, gone] = False
    new = criterion.compensate_elements(weight, evidence, mask)
    assert not new[~mask].any()
    torch.testing.assert_close((new - weight)[0], best_change(curvature(x), weight[0], gone)[1], rtol=1e-8, atol=1e-9)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 3), st.integers(1, 30))
def test_blocks_give_the_weight_again_and_hold_no_more_than_a_whole_layer(k: int, c: int, r: int, whole: int) -> None:
    statistic = InverseHessian(4, 1e-4, whole)
    weight = torch.randn(k, c, r, dtype=torch.float64)
    blocks = statistic.blocks(weight)
    assert torch.equal(statistic.joined(blocks, weight), weight)
    count, size = blocks.shape
    if weight.numel() <= whole:
        assert (count, size) == (1, weight.numel())
    else:
        assert count % k == 0, "no block has weights of two filters"
        assert size * weight.numel() <= max(whole**2, weight.numel())


def test_blocks_are_filters() -> None:
    """With blocks of filters the inverse is that of each filter's own mean of g g^T."""
    statistic = InverseHessian(images=8, alpha=1e-2, whole_layer=11)
    gradients = torch.randn(8, 3, 2, 2, dtype=torch.float64)
    state = None
    for gradient in gradients:
        state = statistic.update(state, Seen(gradient))
    inverse = statistic.result(state)
    assert inverse is not None
    assert inverse.shape == (3, 4, 4)
    for k in range(3):
        rows = gradients[:, k].flatten(1)
        direct = torch.linalg.inv(1e-2 * torch.eye(4, dtype=torch.float64) + rows.T @ rows / 8)
        torch.testing.assert_close(inverse[k], direct, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seen", [3, 8, 20])
def test_what_is_held_does_not_grow_with_the_images(seen: int) -> None:
    """Further images aren't looked at; with fewer the mean is over those, and alpha counts for more."""
    statistic, gradients = InverseHessian(images=8, alpha=1e-2, whole_layer=99), normal(20, 2, 5)
    state = None
    for gradient in gradients[:seen]:
        state = statistic.update(state, Seen(gradient))
    assert state is not None
    assert state[0].shape == (1, 10, 10)
    rows = gradients[: min(seen, 8)].flatten(1)
    alpha = 1e-2 * max(1.0, 8 / seen)
    direct = torch.linalg.inv(alpha * torch.eye(10, dtype=torch.float64) + rows.T @ rows / len(rows))
    found = statistic.result(state)
    assert found is not None
    torch.testing.assert_close(found[0], direct, rtol=1e-9, atol=1e-9)


def test_vectors_are_left_out() -> None:
    statistic = InverseHessian(8, 1e-4, 99)
    assert statistic.update(None, Seen(torch.ones(5))) is None
    assert statistic.result(None) is None


@pytest.mark.parametrize("criterion", ["obd", "obs{images=16}", "obs{images=16,whole_layer=64}"])
@pytest.mark.parametrize("pattern", ["elements", "2:4", "rows"])
def test_they_mask_a_network(criterion: str, pattern: str) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 4)
    )
    x, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))
    program = capture(layers.eval(), (x[:2],))
    options = Sparsify(pattern=pattern, criterion=criterion, ratio=None if pattern == "2:4" else 0.5)
    evidence = collect_evidence(program, [options.criterion], [(x, labels)], nn.functional.cross_entropy)
    assert evidence.passes == (1, 1), "each sample goes through the network once"
    result = options.run(program, evidence)
    tensors, before = result.program.tensors(), program.tensors()
    for name, mask in result.program.masks.items():
        assert not tensors[name][~mask].any()
        # Of a filter that goes as a whole nothing is left in its block to make up for it.
        is_plain = criterion == "obd" or ("64" in criterion and pattern == "rows")
        assert torch.equal(tensors[name], before[name] * mask) == is_plain
    with pytest.raises(UsageError, match="needs gradients and labels on data"):
        options.run(program)


def test_more_of_the_loss_is_kept_than_without_the_update() -> None:
    """On the quadratic, half of the weights by OBS lose less than the same ones plainly zeroed, and than OBD's half."""
    for seed in range(5):
        program, x, labels = quadratic(seed)
        losses = {}
        for criterion in ("obd", f"obs{{images={SAMPLES}}}"):
            options = Sparsify(pattern="elements", ratio=0.5, criterion=criterion)
            evidence = collect_evidence(program, [criterion], [(x, labels)], squared_error)
            result = options.run(program, evidence).program
            weight = next(iter(result.parameters().values())).detach()
            losses[criterion[:3]] = loss(weight, x, labels)
            if criterion != "obd":
                (mask,) = result.masks.values()
                plain = next(iter(program.parameters().values())).detach() * mask
                assert losses["obs"] < loss(plain, x, labels)
        assert math.isfinite(losses["obd"])


@pytest.mark.parametrize("options", ["images=0", "alpha=0", "alpha=inf", "whole_layer=0"])
def test_options_that_can_not_be(options: str) -> None:
    with pytest.raises(UsageError, match="obs: "):
        Sparsify(criterion=f"obs{{{options}}}")
