"""Depth as a choice beside widths."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.passes import PruneFilters, check_oracle
from prunec.passes.allocation.branch_parts import branches_of
from prunec.passes.allocation.importance import normalised, scores_of
from prunec.passes.applying import BranchesStayWarning, apply_plan
from prunec.passes.base import PassResult
from prunec.passes.branch_removal import remove_branches
from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.counting import workload_of
from prunec.passes.costs.workload import Work
from prunec.passes.coupling import analyse
from prunec.passes.criteria.catalogue import unit_criterion
from prunec.passes.criteria.evidence import evidence_for
from prunec.passes.criteria.protocol import ScoresUnits
from prunec.passes.errors import UsageError
from prunec.passes.oracle import TOLERANCE, relative_error
from prunec.passes.program import Program
from prunec.passes.rewrite import apply_plan_to_program
from tests.passes.checks import captured, normal


class Launches:
    """A cost model in which every layer costs a launch, and its MACs much less."""

    key, source, error = CostKey("cpu", "", "", 1, 1), "roofline", dict[str, float]()

    @property
    def plain(self) -> "Launches":
        return self

    def layer_ms(self, work: Work) -> NDArray[np.float64]:
        return 1.0 + work.macs * 1e-6

    def network_ms(self, work: Work) -> NDArray[np.float64]:
        total: NDArray[np.float64] = self.layer_ms(work).sum(axis=-1)
        return total


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.first(x).relu())).relu()


def network(blocks: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *(Block(8) for _ in range(blocks)), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip


def program() -> Program:
    return captured(network(), normal(2, 3, 8, 8))


def pruned(dense: Program, **options: object) -> PassResult:
    return PruneFilters(**options).run(dense, costs=Launches())  # type: ignore[arg-type]


def test_branches_go_where_launches_set_the_time() -> None:
    dense = program()
    with pytest.raises(UsageError, match=r"can't be reached: the largest is 1\."):
        pruned(dense, latency_speedup=1.5)
    result = pruned(dense, latency_speedup=1.5, depth=True)
    told = result.stats["allocation"]
    assert result.plan is not None
    assert [branch.name for branch in result.plan.removed_branches] == result.stats["branches"]
    assert 2 <= len(result.stats["branches"]) < 4
    assert told["predicted"]["latency_ms"] <= told["dense"]["latency_ms"] / 1.5
    assert 0 < told["importance_lost"] < 1
    assert result.aim is not None
    assert result.aim.share >= 1
    assert check_oracle(dense, result, dense.example_args).passed
    replayed = apply_plan_to_program(dense, result.plan)
    assert relative_error(replayed(normal(3, 3, 8, 8)), result.program(normal(3, 3, 8, 8))) == 0


def test_widths_are_kept_where_they_lose_less() -> None:
    dense = program()
    with_depth = PruneFilters(speedup=1.3, depth=True, allocation="greedy").run(dense)
    without = PruneFilters(speedup=1.3, allocation="greedy").run(dense)
    lost = [result.stats["allocation"]["importance_lost"] for result in (with_depth, without)]
    assert lost[0] <= lost[1]
    assert with_depth.program.macs() * 1.3 <= dense.macs()


def test_several_goals_and_what_is_possible() -> None:
    dense = program()
    result = pruned(dense, latency_speedup=1.4, parameters=1500, depth=True)
    assert result.program.parameter_count() <= 1500
    with pytest.raises(UsageError, match=r"the largest is [2-9]\."):
        pruned(dense, latency_speedup=50.0, depth=True)


def test_layers_that_are_ignored_or_frozen_stay() -> None:
    dense = program()
    result = pruned(dense, latency_speedup=1.5, depth=True, ignore=("1.first",), freeze=("0",))
    assert len(result.stats["branches"]) == 2
    assert "1.second" not in result.stats["branches"]


def test_the_users_own_module() -> None:
    own, x = network(), normal(2, 3, 8, 8)
    result = pruned(captured(own, x), latency_speedup=1.5, parameters=1200, depth=True, for_module=True)
    assert result.plan is not None
    assert result.plan.kept
    with pytest.warns(BranchesStayWarning):
        assert apply_plan(own, result.plan, (x,)).checked
    with torch.no_grad():
        assert relative_error(own(x), result.program(x)) < TOLERANCE


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"speedup": 2.0, "allocation": "uniform"}])
def test_depth_without_goals_or_comparison(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="weighs branches against widths"):
        PruneFilters(depth=True, **options)  # type: ignore[arg-type]


def test_what_a_branch_is_worth_and_costs() -> None:
    dense = program()
    coupling, criterion = analyse(dense), unit_criterion("l1", "")
    assert isinstance(criterion, ScoresUnits)
    evidence, workload = evidence_for(criterion, dense, None), workload_of(dense, coupling)
    scores = {p: scores_of(criterion, group, evidence) for p, group in enumerate(coupling.groups)}
    parts = branches_of(dense, coupling, workload)
    assert [each.branch.name for each in parts] == ["1.second", "2.second", "3.second", "4.second"]
    first = parts[0]
    assert [coupling.groups[p].name for p in first.inside] == ["1.first"]
    stream = coupling.groups[first.across[0]]
    work = workload.at(np.array([group.count for group in coupling.groups]))
    left = remove_branches(dense, ["1.second"])
    assert work.of_operations(~first.operations).macs.sum() == left.macs()
    left_coupling = analyse(left)
    rest = next(group for group in left_coupling.groups if group.name == stream.name)
    stays = scores_of(criterion, rest, evidence_for(criterion, left, None)).sum()
    whole = scores[first.across[0]]
    expected = normalised(scores[first.inside[0]]).sum() + (whole.sum() - stays) / np.linalg.norm(whole)
    assert first.importance(criterion, coupling.groups, evidence, scores) == pytest.approx(expected)
