"""Depth as a choice beside widths."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.passes import PruneFilters, check_oracle
from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.branch_parts import Worth, removable_branches
from prunec.passes.allocation.importance import normalised, scores_of
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.applying import BranchesStayWarning, apply_plan
from prunec.passes.base import PassResult
from prunec.passes.branch_removal import remove_branches
from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.fitted import FEATURES, REGIMES, Blocks, FittedCosts
from prunec.passes.costs.layers import layers_of
from prunec.passes.costs.workload import Work
from prunec.passes.criteria.evidence import Evidence, evidence_for
from prunec.passes.criteria.protocol import ScoresUnits
from prunec.passes.errors import UsageError
from prunec.passes.groups import Group
from prunec.passes.oracle import TOLERANCE, relative_error
from prunec.passes.program import Program
from prunec.passes.rewrite import apply_plan_to_program
from tests.passes.checks import captured, normal
from tests.passes.criteria.plugins import Ends


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


def test_sizes_that_were_chosen_before_are_told_alike() -> None:
    """The figures are those of the whole network, as in the first choice, and not of what the branches leave."""
    options = PruneFilters(latency_speedup=2.0, depth=True)
    first = options.run(program(), costs=Launches())
    assert first.plan is not None
    branches = tuple(branch.name for branch in first.plan.removed_branches)
    assert branches
    sizes = ChosenSizes({group["name"]: group["kept"] for group in first.stats["groups"]}, branches)
    again = options.run(program(), costs=Launches(), sizes=sizes)
    assert again.plan == first.plan and again.aim == first.aim
    assert again.stats == first.stats


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


@pytest.mark.parametrize("goals", [{"speedup": 2.0}, {"parameters": 500}, {"latency_speedup": 1.5}])
def test_a_criterion_that_only_selects_compares_no_branches(goals: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="depth=true compares groups by the scores"):
        PruneFilters(depth=True, criterion=Ends(), **goals)  # type: ignore[arg-type]


def test_one_ratio_is_a_goal_for_branches_too() -> None:
    """The MACs that the ratio would leave in every group."""
    dense = program()
    result = PruneFilters(ratio=0.5, allocation="balanced", depth=True).run(dense)
    budget = PruneFilters(ratio=0.5).run(dense).program.macs()
    assert result.program.macs() <= budget
    by_goal = PruneFilters(speedup=dense.macs() / budget, allocation="balanced", depth=True).run(dense)
    assert (result.plan, result.stats["branches"]) == (by_goal.plan, by_goal.stats["branches"])


@pytest.mark.parametrize("goals", [{"speedup": 1.5}, {"parameters": 1500}])
def test_auto_is_balanced(goals: dict[str, object]) -> None:
    result = PruneFilters(depth=True, **goals).run(program())  # type: ignore[arg-type]
    assert result.stats["allocation"]["allocation"] == "balanced"


@dataclass(frozen=True)
class Infinite:
    """Scores that can't be compared."""

    name: ClassVar[str] = "infinite"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def score(self, group: Group, evidence: Evidence) -> NDArray[np.float64]:
        return np.where(np.arange(group.count) == 0, np.inf, 1.0)


@pytest.mark.parametrize("goal", [1.1, 1.5, 50.0])
def test_scores_that_are_not_finite_speak_for_themselves(goal: float) -> None:
    with pytest.raises(UsageError, match=r"criterion infinite gives units of the group .* not finite"):
        pruned(program(), latency_speedup=goal, depth=True, criterion=Infinite())


class Stream(nn.Module):
    """A stem and branches that all add to one residual stream, and a linear layer behind its mean."""

    def __init__(self, branches: list[nn.Module], width: int = 16) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 4)
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for branch in self.branches:
            x = x + branch(x).relu()
        return self.last(x.mean((2, 3)))  # type: ignore[no-any-return]


def stream(branches: int = 6, *, shared: bool = False) -> Program:
    convs = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(branches)]
    for conv in convs[1:]:
        conv.load_state_dict(convs[0].state_dict())
    return captured(Stream(convs[:1] * branches if shared else list(convs)), normal(2, 3, 8, 8))


def l1_sum(dense: Program, *layers: str) -> float:
    return sum(float(dense.tensors()[f"{layer}.weight"].detach().abs().sum()) for layer in layers)


@pytest.mark.parametrize("shared", [False, True])
def test_branches_lose_their_part_of_the_stream(shared: bool) -> None:
    """With l1, the sum of a branch's weights over that of all that add to the stream; calls in equal parts."""
    dense = stream(shared=shared)
    result = pruned(dense, latency_speedup=2.2, depth=True, min_channels=16)
    gone = result.stats["branches"]
    assert len(gone) == 5
    added = l1_sum(dense, "stem", *(f"branches.{number}" for number in range(6)))
    expected = l1_sum(dense, *gone) / added
    assert 0.7 < expected < 5 / 6
    assert result.stats["allocation"]["importance_lost"] == pytest.approx(expected)


def test_losing_widths_and_branches_adds_up() -> None:
    """With every unit and branch in one stream, what is kept is the weights that stay at the weight of their units."""
    dense = stream()
    result = pruned(dense, latency_speedup=2.0, parameters=4000, depth=True)
    assert result.stats["branches"]
    told = result.stats["allocation"]["importance_lost"]
    weights = {
        name: tensor.detach()
        for name, tensor in dense.tensors().items()
        if name.endswith("weight") and tensor.dim() > 2
    }
    per_unit = sum(tensor.abs().sum((1, 2, 3)) for tensor in weights.values())
    assert isinstance(per_unit, Tensor)
    assert result.plan is not None
    kept = result.plan.kept["stem.weight"][0] if "stem.weight" in result.plan.kept else list(range(16))
    parts = sum(float(weights[name].abs().sum()) for name in weights if name in result.program.tensors())
    left = parts / float(per_unit.sum()) * float(per_unit[kept].sum() / per_unit.sum())
    assert 1 - told == pytest.approx(left)


class Tokens(nn.Module):
    """A transformer whose stream only its branches give filters to."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.embedding = nn.Embedding(20, 16)
        self.layers, self.last = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.layers(self.embedding(ids)).mean(1))  # type: ignore[no-any-return]


def test_a_stream_that_loses_all_its_branches() -> None:
    dense = captured(Tokens(), torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0)))
    result = pruned(dense, latency_speedup=2.5, depth=True)
    assert len(result.stats["branches"]) >= 3
    assert 0.5 < result.stats["allocation"]["importance_lost"] <= 1
    assert check_oracle(dense, result, dense.example_args).passed


@pytest.mark.parametrize("residual_streams", [False, True])
def test_what_a_branch_is_worth(residual_streams: bool) -> None:
    """All normalised scores inside it, and its part of the stream's, also where that keeps all units."""
    dense = program()
    allocator = Allocator.of(dense, PruneFilters(speedup=1.0, residual_streams=residual_streams))
    criterion, groups = allocator.criterion, allocator.scope.coupling.groups
    assert isinstance(criterion, ScoresUnits)
    evidence = evidence_for(criterion, dense, None)
    worth = Worth.of(dense, criterion, allocator, evidence)
    assert [each.name for each in removable_branches(dense)] == ["1.second", "2.second", "3.second", "4.second"]
    inside, across = (next(g for g in groups if layer in g.layers) for layer in ("1.first", "1.second"))
    importance = [float(normalised(scores_of(criterion, group, evidence)).sum()) for group in (inside, across)]
    part = importance[1] * l1_sum(dense, "1.second") / l1_sum(dense, *across.layers)
    lost, whole = importance[0] + part, sum(normalised(each).sum() for each in allocator.scores.values())
    kept = worth.kept(remove_branches(dense, ["1.second"]))
    assert worth.lost_in_sum(kept) == pytest.approx(lost)
    assert worth.whole[worth.is_chosen].sum() == pytest.approx(whole)
    assert worth.share(kept) == pytest.approx(lost / (whole if residual_streams else whole + part))
    logarithm = np.log(1 - l1_sum(dense, "1.second") / l1_sum(dense, *across.layers))
    assert worth.lost_in_product(kept) == pytest.approx(-len(across.layers) * logarithm)


def test_widths_are_worth_the_same_with_depth_and_without() -> None:
    """Of a program that keeps its branches, both measures are those that widths alone are chosen by."""
    dense = program()
    allocator = Allocator.of(dense, PruneFilters(speedup=1.0))
    criterion = allocator.criterion
    assert isinstance(criterion, ScoresUnits)
    worth = Worth.of(dense, criterion, allocator, evidence_for(criterion, dense, None))
    widths = np.maximum(allocator.dense_widths // 2, 1)
    kept = worth.kept(dense, allocator, widths)
    assert worth.share(kept) == pytest.approx(allocator.importance.in_sum.lost(widths))
    assert worth.lost_in_product(kept) == pytest.approx(allocator.importance.in_product.lost(widths), rel=0.1)


def test_what_follows_a_branch_is_not_saved_with_it() -> None:
    """By laws of a network in which only the last branch's operation has a tail, which others take over from it."""
    dense = stream(3)
    names = [operation.name for operation in work_of(dense).operations]
    laws = np.zeros((len(REGIMES), len(names), len(FEATURES)))
    laws[:, :, FEATURES.index("macs")] = 1e-6
    laws[:, names.index("branches.2"), FEATURES.index("tail_moves")] = 1e-3
    costs = FittedCosts(CostKey("cpu", "", "", 1, 1), {}, Blocks(1, 1, 1), layers_of(work_of(dense)), laws)
    left, before_ms = dense, float(costs.network_ms(work_of(dense)))
    for branch in ("branches.2", "branches.1", "branches.0"):
        macs = left.macs()
        left = remove_branches(left, [branch])
        after_ms = float(costs.network_ms(work_of(left)))
        assert before_ms - after_ms == pytest.approx((macs - left.macs()) * 1e-6)
        before_ms = after_ms
    pruned_after = PruneFilters(ratio=0.5).run(left).program
    assert [each.tail_of for each in work_of(pruned_after).operations if each.tail] == ["branches.2"]
