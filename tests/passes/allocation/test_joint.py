"""Widths and ranks together: each step is the best of all that could be taken, and the budget is met."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.joint import JointCompression, JointStep, reach
from prunec.passes.allocation.space import Space
from prunec.passes.errors import OutOfReachError, UsageError
from prunec.passes.factorizing import factorized, obstacles
from prunec.passes.oracle import check_oracle
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.rewrite import plan_of, remove
from tests.methods.toy import Block
from tests.passes.checks import captured, images, normal


class Loop(nn.Module):
    """A layer whose filters and inputs go together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv(x))


def network(seed: int = 0) -> Program:
    """A residual stream with a branch of two layers and one of a single one."""
    return captured(
        nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), Block(6, 8), Loop(6), nn.Flatten(),
            nn.Linear(54, 3),
        ),
        normal(2, 1, 3, 3),
        seed=seed,
    )  # fmt: skip


def state_of(program: Program) -> JointCompression:
    options = PruneFilters(speedup=2.0, criterion="cc", allocation="joint")
    allocator = Allocator.of(program, options)
    scope = allocator.scope
    space = Space(scope.coupling.groups, scope.positions, options.rounding, allocator.workload, ())
    free = {name for name, reason in obstacles(program).items() if not reason}
    return JointCompression(program, free, space, 1)


def built(program: Program, state: JointCompression) -> Program:
    """The program that a state stands for, made by the primitive of all prunings and the rewriting of layers."""
    assert state.space is not None
    coupling = Allocator.of(program, PruneFilters(ratio=0.5)).scope.coupling
    removed = torch.zeros(len(coupling.roots), dtype=torch.bool).numpy()
    for group, kept in zip(coupling.groups, state.kept, strict=True):
        removed[coupling.units(group)[~kept]] = True
    cut = remove(program, coupling, plan_of(coupling, removed), removed)
    return factorized(cut, state.ranks)


def taken(state: JointCompression, step: JointStep) -> JointCompression:
    after = copy.copy(state)
    after.weights = {name: copy.copy(weight) for name, weight in state.weights.items()}
    for weight in after.weights.values():
        weight.kept = list(weight.kept)
    after.kept, after._cheapest = [kept.copy() for kept in state.kept], {}
    after.take(step)
    return after


@pytest.mark.parametrize("seed", [0, 1])
def test_every_step_is_the_best_of_all_candidates(seed: int) -> None:
    """What each would lose and save is found by doing it: the norm of what is left, and the MACs of the program."""
    program = network(seed)
    state, limit = state_of(program), program.macs() / 2.5
    assert state.macs == program.macs() and state.lost == 0
    kinds = set()
    while state.macs > limit:
        needed, candidates = state.macs - limit, list(state.steps())
        truth: list[tuple[float, float]] = []
        for step in candidates:
            after = taken(state, step)
            loss, saved = after.lost - state.lost, state.macs - after.macs
            assert (step.loss, step.saved) == (pytest.approx(loss, abs=1e-9), pytest.approx(saved))
            truth.append((loss / min(saved, needed), -min(saved, needed)))
        best = state.best(needed)
        assert best is not None
        chosen = next(place for place, step in enumerate(candidates) if step == best)
        assert truth[chosen][0] <= min(truth)[0] + 1e-12
        kinds.add(bool(best.weight))
        state.take(best)
        assert built(program, state).macs() == pytest.approx(state.macs)
    assert kinds == {True, False}, "units go, and ranks fall"


def test_units_that_could_go_are_the_cheapest_of_their_group() -> None:
    state = state_of(network())
    for step in state.steps():
        if step.group >= 0:
            singles = [
                taken(state, JointStep(0, 1, group=step.group, units=(unit,))).lost
                for unit in range(len(state.kept[step.group]))
            ]
            assert singles[step.units[0]] == pytest.approx(min(singles))


def test_low_rank_is_found_where_it_is_and_zero_filters_where_they_are() -> None:
    """A weight of rank 2, and filters that are zero, cost nothing: nothing else is touched."""
    program = network()
    tensors = program.tensors()
    with torch.no_grad():
        weight = tensors["3.conv.weight"]
        weight.copy_((normal(6, 2, seed=1) @ normal(2, 54, seed=2)).reshape(6, 6, 3, 3))
        for name, dim in (("2.conv1.weight", 0), ("2.conv2.weight", 1)):
            tensors[name].index_fill_(dim, torch.tensor([1, 5]), 0)
    state = state_of(program)
    reach(state, 1.2)
    assert state.lost < 1e-9
    assert state.ranks.get("3.conv.weight", 6) >= 2
    result = PruneFilters(speedup=1.2, criterion="cc", allocation="joint").run(program)
    assert result.plan is not None
    gone = set(range(8)) - set(result.plan.kept.get("2.conv1.weight", {}).get(0, range(8)))
    assert gone <= {1, 5}


@pytest.mark.parametrize("asked", [{"speedup": 1.5}, {"speedup": 3.0}, {"ratio": 0.5}])
def test_a_pruning_meets_its_budget_and_is_exact(asked: dict[str, float]) -> None:
    program = network()
    options: dict[str, Any] = {"min_channels": 2, **asked}
    result = PruneFilters(criterion="cc", allocation="joint", **options).run(program)
    uniform = PruneFilters(**options).run(program).program.macs() if "ratio" in asked else None
    limit = program.macs() / asked["speedup"] if uniform is None else uniform
    assert limit * 0.9 < result.program.macs() <= limit * (1 + 1e-12)
    assert check_oracle(program, result, images(program)).passed
    assert result.plan is not None and result.plan.ranks
    assert result.plan.kept or asked == {"speedup": 1.5}
    assert PruningPlan.from_json(result.plan.to_json()) == result.plan
    told = result.stats["allocation"]
    assert told["allocation"] == "joint"
    assert told["predicted"] == {"macs": result.program.macs(), "parameters": result.program.parameter_count()}
    assert 0 <= told["importance_lost"] <= 1
    again = PruneFilters(criterion="cc", allocation="joint", **options).run(program)
    assert again.plan == result.plan


def test_layers_that_keep_their_filters_keep_their_rank() -> None:
    program = network()
    options = {"criterion": "cc", "allocation": "joint", "speedup": 1.3}
    result = PruneFilters(**options, ignore=("3.conv",), freeze=("5",)).run(program)
    assert result.plan is not None
    assert not result.plan.ranks.keys() & {"3.conv.weight", "5.weight"}


def test_what_joint_is_not_for() -> None:
    with pytest.raises(UsageError, match="Use criterion=cc"):
        PruneFilters(speedup=2.0, allocation="joint")
    for goals in ({"parameters": 100}, {"latency_ms": 1.0}, {"speedup": 2.0, "size_mb": 1.0}):
        with pytest.raises(UsageError, match="widths and ranks for multiply-accumulates"):
            PruneFilters(criterion="cc", allocation="joint", **goals)  # type: ignore[arg-type]
    with pytest.raises(OutOfReachError, match="the largest is"):
        PruneFilters(speedup=1e6, criterion="cc", allocation="joint").run(network())
    with pytest.raises(UsageError, match="widths alone can't be told"):
        options = PruneFilters(speedup=2.0, criterion="cc", allocation="joint")
        Allocator.of(network(), options).allocate(options.goals, "joint")


def test_units_are_scored_alone_by_what_weights_lose_with_them() -> None:
    program = network()
    state = state_of(program)
    allocator = Allocator.of(program, PruneFilters(speedup=2.0, criterion="cc"))
    group = next(place for place, each in enumerate(allocator.scope.coupling.groups) if each.name == "2.conv1")
    alone = [taken(state, JointStep(0, 1, group=group, units=(unit,))).lost for unit in range(len(state.kept[group]))]
    assert allocator.scores[group].tolist() == pytest.approx(alone)
