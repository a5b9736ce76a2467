"""CCP's sets against all sets, and its model of the loss against gradients taken one by one."""

import itertools

import numpy as np
import pytest
import torch
from numpy.random import Generator
from torch.nn.functional import cross_entropy

from prunec.passes import PruneFilters, analyse
from prunec.passes.criteria import GateGradient, Seen
from prunec.passes.criteria.ccp import CCP, GateProducts
from prunec.passes.criteria.quadratic import Gone, LossModel, least_change, removal_order
from tests.passes.criteria.networks import data, evidence_for, linear, residual

#: Problems of which the loss may be this much above the least, and of how many of 100 it must not.
_ABOVE, _MOST_ABOVE = 0.05, 5


def random_model(random: Generator, units: int) -> LossModel:
    """Gate gradients of a few batches about a mean, as they come from data."""
    gradients = random.normal(size=units) + 2 * random.normal(size=(int(random.integers(1, 20)), units))
    return LossModel(gradients.mean(0), gradients.T @ gradients / len(gradients))


def every_set(units: int, count: int) -> list[Gone]:
    rows = (np.isin(np.arange(units), chosen) for chosen in itertools.combinations(range(units), count))
    return [np.asarray(row) for row in rows]


def best(model: LossModel, count: int) -> float:
    return min(model.change(gone) for gone in every_set(len(model), count))


def test_the_change_of_the_loss_is_that_of_the_polynomial() -> None:
    model = LossModel(np.array([1.0, 2.0, -1.0]), np.array([[2.0, 1.0, 0.0], [1.0, 4.0, -3.0], [0.0, -3.0, 6.0]]))
    assert model.change(np.array([True, False, False])) == 1 - 1
    assert model.change(np.array([True, True, False])) == 1 + 2 + 1 - 3
    assert model.change(np.array([False, True, True])) == 2 + 3 - 3 - 1


@pytest.mark.parametrize("seed", range(20))
def test_without_cross_terms_the_set_is_the_best_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    units = int(random.integers(1, 11))
    model = LossModel(random.normal(size=units), np.diag(random.exponential(size=units)))
    for count in range(units + 1):
        gone = least_change(model, count)
        assert gone.sum() == count
        assert model.change(gone) == pytest.approx(best(model, count))
        assert gone.tolist() in [each.tolist() for each in every_set(units, count)]


def test_of_equal_units_the_first_go() -> None:
    model = LossModel(np.zeros(6), np.eye(6))
    assert np.flatnonzero(least_change(model, 2)).tolist() == [0, 1]


def test_the_set_is_near_the_best_of_all() -> None:
    """Of 100 random problems, with n up to 12 and any number of units that go."""
    random, above = np.random.default_rng(0), []
    for _ in range(100):
        model = random_model(random, int(random.integers(2, 13)))
        count = int(random.integers(1, len(model)))
        least = best(model, count)
        found = model.change(least_change(model, count))
        assert found >= least - 1e-9
        above.append(found > least + _ABOVE * abs(least) + 1e-12)
    assert sum(above) <= _MOST_ABOVE


@pytest.mark.parametrize("seed", range(10))
def test_each_greedy_step_is_the_best_of_all_candidates(seed: int) -> None:
    model = random_model(np.random.default_rng(seed), 9)
    gone = np.zeros(9, dtype=bool)
    for unit, added in zip(*removal_order(model), strict=True):
        tried = {}
        for candidate in np.flatnonzero(~gone).tolist():
            after = gone.copy()
            after[candidate] = True
            tried[candidate] = model.change(after) - model.change(gone)
        assert added == pytest.approx(min(tried.values()))
        assert tried[int(unit)] == pytest.approx(min(tried.values()))
        gone[unit] = True
    assert gone.all()


@pytest.mark.parametrize("seed", range(10))
def test_no_exchange_of_two_units_lowers_the_loss(seed: int) -> None:
    model = random_model(np.random.default_rng(seed), 10)
    gone = least_change(model, 4)
    for back, goes in itertools.product(np.flatnonzero(gone), np.flatnonzero(~gone)):
        other = gone.copy()
        other[back], other[goes] = False, True
        assert model.change(other) >= model.change(gone) - 1e-9


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_the_model_is_that_of_the_gradients(per: str) -> None:
    """Of each batch, or of each sample, as `GateGradient` measures them one by one."""
    program, criterion = residual(), CCP(per)  # type: ignore[arg-type]
    model = evidence_for(program, criterion).of(GateProducts(per), analyse(program).groups[0])  # type: ignore[arg-type]
    parts = data() if per == "batch" else [(x[i : i + 1], y[i : i + 1]) for x, y in data() for i in range(len(x))]

    class Gates(CCP):
        statistics = (GateGradient("mean"),)  # type: ignore[assignment]

    group = analyse(program).groups[0]
    found = [evidence_for(program, Gates(), [part]).of(GateGradient("mean"), group).numpy() for part in parts]
    gradients = np.stack(found)
    np.testing.assert_allclose(model.gradient, gradients.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.hessian, gradients.T @ gradients / len(gradients), rtol=1e-9, atol=1e-12)


def test_what_is_kept_of_the_data_does_not_grow() -> None:
    statistic, state = GateProducts(), None
    for _ in range(4):
        state = statistic.update(state, Seen(torch.randn(7)))
        assert [tensor.shape for tensor in state[:2]] == [(7,), (7, 7)]
    assert state is not None and state[2] == 4


def test_the_units_that_stay_are_those_of_the_best_set() -> None:
    program, criterion = residual(), CCP("sample")
    evidence = evidence_for(program, criterion)
    plan = PruneFilters(ratio={"stem": 0.5, "b": 0.5}, criterion=criterion).run(program, evidence).plan
    assert plan is not None
    model = evidence.of(GateProducts("sample"), analyse(program).groups[0])
    gone = np.ones(8, dtype=bool)
    gone[plan.kept["stem.weight"][0]] = False
    assert model.change(gone) <= best(model, 4) + 0.05 * abs(best(model, 4))


def test_scores_are_what_each_greedy_step_costs() -> None:
    program, criterion = residual(), CCP()
    evidence, group = evidence_for(program, criterion), analyse(program).groups[0]
    model = evidence.of(GateProducts(), group)
    scores = criterion.score(group, evidence)
    assert scores.sum() == pytest.approx(model.change(np.ones(8, dtype=bool)))
    order, added = removal_order(model)
    assert scores[order].tolist() == added.tolist()


def test_it_predicts_what_removal_does_to_the_loss_of_a_nearly_linear_network() -> None:
    """The first-order part alone: small weights that read the units make their removal a small change."""
    program = linear()
    with torch.no_grad():
        program.tensors()["3.weight"].mul_(1e-4)
    batch = data(1)
    criterion = CCP()
    evidence = evidence_for(program, criterion, batch)
    group = next(group for group in analyse(program).groups if group.name == "1")
    before = float(cross_entropy(program(batch[0][0]), batch[0][1]).detach())
    for unit in range(group.count):
        copy = program.clone()
        with torch.no_grad():
            copy.tensors()["3.weight"][:, unit] = 0
        after = float(cross_entropy(copy(batch[0][0]), batch[0][1]).detach())
        gone = np.arange(group.count) == unit
        model = evidence.of(GateProducts(), group)
        assert after - before == pytest.approx(model.change(gone), rel=0.02, abs=1e-8)
