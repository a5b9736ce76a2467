"""Widths of one error in every group, held against errors tried one by one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from prunec.passes import PruneFilters
from prunec.passes.allocation.allocator import Allocated, Allocator
from prunec.passes.allocation.goals import Goals
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.criteria import Evidence
from prunec.passes.criteria.provable import Provable, Variant
from prunec.passes.errors import UsageError
from prunec.passes.groups import Group
from tests.passes.allocation.fake_costs import BlockCosts
from tests.passes.allocation.test_allocation import chain
from tests.passes.criteria.networks import evidence_for, residual


@dataclass(frozen=True)
class Sized:
    """A criterion with a rule of its own for numbers of units: more in wide groups, whatever the weights are."""

    power: float = 1.5

    name: ClassVar[str] = "sized"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def select(self, group: Group, evidence: Evidence, count: int) -> NDArray[np.int64]:
        return np.arange(count)

    def needed(self, group: Group, evidence: Evidence, error: float) -> float:
        return float(group.count**self.power / error)


def prepared(criterion: Any, costs: CostModel | None = None, **options: Any) -> Allocator:
    return Allocator.of(chain(), PruneFilters(speedup=1, criterion=criterion, **options), costs)


def with_one_error(allocator: Allocator, error: float) -> NDArray[np.int64]:
    counts = np.array([group.count for group in allocator.scope.groups])
    needed = np.array([allocator.needs[position](error) for position in allocator.scope.positions])
    return np.clip(np.floor(needed + 0.5), 1, counts).astype(np.int64)


def keeping(allocator: Allocator, errors: NDArray[np.float64], speedup: float) -> list[float]:
    """The errors at which MACs fall by as much."""
    most = allocator.dense["macs"] / speedup
    return [e for e in errors.tolist() if allocator.figures(with_one_error(allocator, e))["macs"] <= most]


@pytest.mark.parametrize("speedup", [1.2, 2.0, 4.0, 10.0])
def test_widths_are_those_of_the_least_error_that_keeps_the_budget(speedup: float) -> None:
    allocator = prepared(Sized())
    found = allocator.allocate(Goals(speedup=speedup), "provable")
    assert allocator.dense["macs"] / found.figures["macs"] >= speedup
    errors = np.geomspace(0.1, 1e3, 4000)
    keeps = keeping(allocator, errors, speedup)
    least = with_one_error(allocator, keeps[0])
    assert (found.widths >= least).all()
    assert (found.widths <= with_one_error(allocator, keeps[0] / (errors[1] / errors[0])) + 1).all()


@pytest.mark.parametrize("round_to", [1, 8])
def test_wider_groups_keep_more_where_the_rule_says_so(round_to: int) -> None:
    allocator = prepared(Sized(2.0), round_to=round_to)
    found = allocator.allocate(Goals(speedup=3.0), "provable")
    shares = found.widths / np.array([48, 40, 64])
    assert shares[2] > shares[0] > shares[1]
    assert all(width % round_to == 0 for width in found.widths.tolist())


def test_nothing_goes_where_nothing_need() -> None:
    assert prepared(Sized()).allocate(Goals(speedup=1.0)).widths.tolist() == [48, 40, 64]


@pytest.mark.parametrize("goals", [Goals(latency_speedup=1.5), Goals(parameters=20_000), Goals(speedup=2, size_mb=0.1)])
def test_it_keeps_every_budget(goals: Goals) -> None:
    found = prepared(Sized(), costs=BlockCosts()).allocate(goals)
    assert found.allocation == "provable", "what a criterion with a rule of its own is allocated by"
    assert all(budget.holds(found.figures) for budget in found.budgets)
    assert found.importance_lost is None


def test_the_same_widths_come_twice() -> None:
    first, second = (prepared(Sized()).allocate(Goals(speedup=2.5)).widths.tolist() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("criterion", ["l1", "random"])
def test_a_criterion_without_a_rule_is_refused(criterion: str) -> None:
    with pytest.raises(UsageError, match=rf"allocation=provable gives .* criterion {criterion} has no rule"):
        PruneFilters(speedup=2.0, criterion=criterion, allocation="provable")
    with pytest.raises(UsageError, match="has no rule"):
        prepared(criterion).allocate(Goals(speedup=2.0), "provable")
    with pytest.raises(UsageError, match="allocation=provable chooses widths, and ratios by layer"):
        PruneFilters(ratio={"0": 0.5}, criterion=Sized(), allocation="provable")


@pytest.mark.parametrize("given_back", [lambda: float("nan"), lambda: float("inf"), lambda: "many"])
def test_numbers_of_units_that_make_no_sense(given_back: Callable[[], Any]) -> None:
    class Wrong(Sized):
        def needed(self, group: Group, evidence: Evidence, error: float) -> float:
            return given_back()  # type: ignore[no-any-return]

    with pytest.raises(UsageError, match=r"needs (nan|inf) units|Wrong' of your code failed"):
        prepared(Wrong()).allocate(Goals(speedup=2.0))


def provable(variant: Variant, speedup: float) -> tuple[Allocator, Allocated]:
    program, criterion = residual(), Provable(variant)
    options = PruneFilters(speedup=1, criterion=criterion)
    allocator = Allocator.of(program, options, evidence=evidence_for(program, criterion))
    return allocator, allocator.allocate(Goals(speedup=speedup))


@pytest.mark.parametrize("variant", ["deterministic", "sampled", "hybrid"])
@pytest.mark.parametrize("speedup", [1.3, 2.0, 4.0])
def test_provable_meets_the_budget_that_its_draws_are_expected_to(variant: Variant, speedup: float) -> None:
    """The widths are the expected numbers of units of one error, and one step back at most."""
    allocator, found = provable(variant, speedup)
    assert found.allocation == "provable"
    assert allocator.dense["macs"] / found.figures["macs"] >= speedup
    errors = np.geomspace(1e-6, 1e9, 3000)
    keeps = keeping(allocator, errors, speedup)
    least = with_one_error(allocator, keeps[0])
    assert (found.widths >= least).all() and (found.widths <= least + 1).all()
    program, criterion = residual(), Provable(variant)
    result = PruneFilters(speedup=speedup, criterion=criterion).run(program, evidence_for(program, criterion))
    assert [group["kept"] for group in result.stats["groups"]] == found.widths.tolist()
    assert program.macs() / result.program.macs() >= speedup


@pytest.mark.parametrize("speedup", [1.3, 2.0, 3.0])
def test_no_group_could_keep_one_unit_more(speedup: float) -> None:
    allocator = prepared(Sized())
    allocated = allocator.allocate(Goals(speedup=speedup), "provable")
    budget = allocated.dense["macs"] / speedup
    for position in allocator.scope.positions:
        wider = allocated.widths.copy()
        wider[position] += 1
        is_possible = wider[position] <= allocator.scope.coupling.groups[position].count
        assert not (is_possible and allocator.figures(wider)["macs"] <= budget)
