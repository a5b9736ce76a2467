"""The criterion of what a training decided, and scores that are compared between groups as they are."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from prunec.passes import Program, PruneFilters, capture
from prunec.passes.coupling import Group, analyse
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.errors import UsageError
from prunec.passes.filter_pruning import kept_by
from tests.passes.checks import macs_at


@dataclass(frozen=True)
class Scale:
    """The mean magnitude of each filter; of a class that compares groups or not."""

    name: ClassVar[str] = "scale"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})
    comparable: ClassVar[bool] = True

    def score(self, group: Group, evidence: Evidence) -> NDArray[np.float64]:
        member = group.members[group.producers[0]]
        return evidence.tensors[member.parameter].detach().double().flatten(1).abs().mean(1).numpy()


@dataclass(frozen=True)
class ScaleWithin(Scale):
    """The same numbers, compared by their share of a group's norm."""

    comparable: ClassVar[bool] = False


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    )
    with torch.no_grad():
        network[2].weight.mul_(100)  # its scores are a hundred times the others'
    return capture(network.eval(), (torch.randn(2, 1, 8, 8),))


def widths(program: Program, options: PruneFilters, evidence: Evidence | None = None) -> dict[str, int]:
    return {group["name"]: group["kept"] for group in options.run(program, evidence).stats["groups"]}


def test_comparable_scores_are_ranked_as_they_are(program: Program) -> None:
    first, second = [group.name for group in analyse(program).groups]
    raw = widths(program, PruneFilters(ratio=0.5, allocation="global", criterion=Scale()))
    assert raw[first] < raw[second] == 16
    shares = widths(program, PruneFilters(ratio=0.5, allocation="global", criterion=ScaleWithin()))
    assert shares[second] < 16


def test_what_a_dear_last_unit_leaves_room_for_comes_back_the_best_first() -> None:
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.AvgPool2d(4), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 4)).eval()
    with torch.no_grad():
        for layer, least in ((0, 100.0), (2, 1.0), (3, 10.0)):  # the dear layer's units go last, then those of 3
            for unit, weight in enumerate(network[layer].weight):
                weight.fill_(least + unit)
    program = capture(network, (torch.randn(2, 1, 16, 16),))
    budget = macs_at(program, np.array([3, 1, 3]))
    assert macs_at(program, np.array([4, 1, 1])) > budget
    options = PruneFilters(speedup=program.macs() / budget, allocation="global", criterion=Scale())
    assert widths(program, options) == {"0": 3, "2": 1, "3": 3}


@pytest.mark.parametrize("allocation", ["global", "greedy", "balanced"])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_one_ratio_and_an_allocation_ask_for_the_macs_of_that_ratio(
    program: Program, allocation: str, ratio: float
) -> None:
    uniform = PruneFilters(ratio=ratio).run(program).program.macs()
    allocated = PruneFilters(ratio=ratio, allocation=allocation).run(program)  # type: ignore[arg-type]
    assert allocated.program.macs() <= uniform
    assert allocated.aim is not None
    assert allocated.aim.what == "MACs removed"
    assert PruneFilters(ratio=ratio, allocation=allocation).ratio_everywhere is None  # type: ignore[arg-type]


def test_ratios_by_layer_leave_nothing_to_allocate() -> None:
    with pytest.raises(UsageError, match="ratios by layer give them"):
        PruneFilters(ratio={"0": 0.5}, allocation="global")


def test_learned_keeps_what_a_hook_decided(program: Program) -> None:
    groups = analyse(program).groups
    scores = {group.name: torch.arange(group.count).double().flip(0) for group in groups}
    evidence = Evidence({}, decisions={"units": scores})
    coupling, kept = kept_by(program, PruneFilters(ratio=0.5, criterion="learned"), evidence)
    assert [group.name for group, _ in kept] == [group.name for group in coupling.groups]
    assert all(units.tolist() == list(range(8)) for _, units in kept)
    result = PruneFilters(ratio=0.5, criterion="learned").run(program, evidence)
    assert [len(units) for _, units in kept] == [group["kept"] for group in result.stats["groups"]]


def test_learned_needs_a_decision_on_every_group(program: Program) -> None:
    options = PruneFilters(ratio=0.5, criterion="learned")
    with pytest.raises(UsageError, match="none did"):
        options.run(program)
    with pytest.raises(UsageError, match="No training hook decided"):
        options.run(program, Evidence({}, decisions={"units": {}}))


@pytest.mark.parametrize("options", [{"latency_speedup": 2.0}, {"speedup": 2.0, "depth": True}])
def test_a_training_works_towards_no_goal_that_it_cannot_foresee(program: Program, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="works towards a ratio or MACs"):
        kept_by(program, PruneFilters(**options))  # type: ignore[arg-type]
