"""What importance is left at which speed: monotone, of no dominated points, from the dense network to the least."""

from itertools import pairwise

import pytest

from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.curve import pareto_curve
from prunec.passes.allocation.goals import Allocation
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.counting import work_of
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.costs.roofline import RooflineCosts, roofline_costs
from prunec.runtime.target import Target
from tests.architectures.resnet import cifar_resnet
from tests.passes.checks import captured, normal
from tests.passes.costs.synthetic import engine
from tests.passes.criteria.plugins import Ends


@pytest.fixture(scope="module")
def program() -> Program:
    return captured(cifar_resnet(8, width=32), normal(2, 3, 16, 16))


def roofline(batch: int = 256) -> CostModel:
    costs = roofline_costs(Target.parse("t4"), batch)
    assert isinstance(costs, RooflineCosts)
    return costs


@pytest.mark.parametrize("allocation", ["greedy", "uniform", "global"])
@pytest.mark.parametrize("source", ["roofline", "measured"])
def test_faster_from_point_to_point_and_less_important(program: Program, allocation: Allocation, source: str) -> None:
    costs = roofline() if source == "roofline" else engine(work_of(program), seed=3)
    allocator = Allocator.of(program, PruneFilters(ratio=0.0, round_to=8), costs)
    curve = pareto_curve(allocator, allocation)
    latencies = [point.figures["latency_ms"] for point in curve]
    lost = [point.importance_lost for point in curve]
    assert len(curve) > 4
    assert all(after < before for before, after in pairwise(latencies))
    assert all(after > before for before, after in pairwise(lost))  # type: ignore[operator]
    assert lost[0] == 0
    assert latencies[0] <= allocator.dense["latency_ms"] * (1 + 1e-9)
    assert latencies[-1] <= allocator.least["latency_ms"] * (1 + 1e-9)


def test_a_criterion_that_only_selects_has_speeds_alone(program: Program) -> None:
    allocator = Allocator.of(program, PruneFilters(ratio=0.0, criterion=Ends()), roofline())
    curve = pareto_curve(allocator)
    assert {point.importance_lost for point in curve} == {None}
    latencies = [point.figures["latency_ms"] for point in curve]
    assert latencies == sorted(set(latencies), reverse=True)


def test_nothing_is_possible_where_the_least_widths_are_the_dense_ones(program: Program) -> None:
    allocator = Allocator.of(program, PruneFilters(ratio=0.0, min_channels=1000), roofline())
    (only,) = pareto_curve(allocator)
    assert only.figures == dict(allocator.dense)
