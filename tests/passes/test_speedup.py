"""Widths for a target speed-up, and the counts of MACs behind them."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.passes.allocation.goals import Allocation
from prunec.passes.coupling import analyse
from prunec.passes.errors import UnsupportedModelError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.ratios import Rounding
from tests.architectures.resnet import cifar_resnet
from tests.fuzz.checking import random_program
from tests.passes.checks import Net, captured, macs_at, normal, random_prune


@pytest.mark.parametrize("seed", range(12))
def test_the_model_is_exact(seed: int) -> None:
    program = random_program(seed)
    coupling = analyse(program)
    counts = np.array([group.count for group in coupling.groups])
    assert macs_at(program, counts) == program.macs()
    for ratio in (0.3, 0.6) if coupling.groups else ():
        result = PruneFilters(ratio=ratio).run(program)
        kept = np.array([group["kept"] for group in result.stats["groups"]])
        assert macs_at(program, kept) == pytest.approx(result.program.macs(), rel=1e-12)
        assert result.stats["macs"] == result.program.macs()


def test_the_model_knows_groups_flattening_transposition_and_shared_layers() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.up(torch.cat([s.g(s.a(x)), s.a(x)], 1)).relu()
        return s.head(s.l(s.l(s.hidden(y.flatten(1)))))  # type: ignore[no-any-return]

    network = Net(
        forward, a=nn.Conv2d(3, 8, 1), g=nn.Conv2d(8, 12, 1, groups=2), up=nn.ConvTranspose2d(20, 6, 2, 2),
        hidden=nn.Linear(6 * 36, 10), l=nn.Linear(10, 10), head=nn.Linear(10, 2),
    )  # fmt: skip
    program = captured(network, normal(2, 3, 3, 3))
    coupling = analyse(program)
    for seed in range(5):
        pruned = random_prune(program, seed).program
        plan = random_prune(program, seed).plan
        assert plan is not None
        kept = []
        for group in coupling.groups:
            member = group.members[0]
            indices = set(plan.kept.get(member.parameter, {}).get(member.dim, range(10**6)))
            kept.append(sum(int(row[0]) in indices for row in group.slices[0]))
        assert macs_at(program, kept) == pytest.approx(pruned.macs(), rel=1e-12)


def test_the_model_knows_depthwise_transposition() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, 2, groups=8), nn.Conv2d(8, 4, 1))
    program = captured(network, normal(2, 3, 3, 3))
    result = PruneFilters(ratio=0.5).run(program)
    kept = np.array([group["kept"] for group in result.stats["groups"]])
    assert macs_at(program, kept) == result.program.macs() < program.macs()


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, torch.Tensor]:
    return cifar_resnet(20).eval(), normal(2, 3, 16, 16).float()


@pytest.mark.parametrize("speedup", [1.2, 2.0, 3.0, 7.3])
def test_met_within_one_percent(resnet: tuple[nn.Module, torch.Tensor], speedup: float) -> None:
    program = capture(resnet[0], (resnet[1],))
    stats = PruneFilters(speedup=speedup).run(program).stats
    assert stats["macs_speedup"] == program.macs() / stats["macs"]
    assert speedup <= stats["macs_speedup"] <= 1.01 * speedup


@pytest.mark.parametrize(("round_to", "slack"), [(4, 1.1), (8, 1.25)])
def test_rounded_widths_reach_it_too(resnet: tuple[nn.Module, torch.Tensor], round_to: int, slack: float) -> None:
    program = capture(resnet[0], (resnet[1],))
    stats = PruneFilters(speedup=2.0, round_to=round_to).run(program).stats
    assert 2.0 <= stats["macs_speedup"] <= 2.0 * slack
    groups = {group.name: group for group in analyse(program).groups}
    for entry in stats["groups"]:
        step = Rounding(round_to).step(groups[entry["name"]])
        assert entry["kept"] == entry["width"] or entry["kept"] % step == 0


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_no_single_step_back_is_left(allocation: Allocation) -> None:
    """Nearest feasible: no one group can be widened by a step without falling short of the target."""
    layers = [nn.Conv2d(i, o, 1) for i, o in itertools.pairwise((3, 12, 10, 14, 3))]
    network = nn.Sequential(*layers)
    program = captured(network, normal(2, 3, 4, 4))
    coupling = analyse(program)
    for speedup in (1.1, 1.5, 2.0, 4.0, 9.0):
        stats = PruneFilters(speedup=speedup, allocation=allocation).run(program).stats
        kept = np.array([group["kept"] for group in stats["groups"]])
        budget = program.macs() / speedup
        assert macs_at(program, kept) <= budget
        for position, group in enumerate(coupling.groups):
            if kept[position] < group.count:
                wider = kept.copy()
                wider[position] += 1
                assert macs_at(program, wider) > budget


def test_a_speedup_of_one_keeps_everything() -> None:
    program = captured(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)), normal(2, 3, 4, 4))
    result = PruneFilters(speedup=1.0).run(program)
    assert not result.modified
    assert result.program.macs() == program.macs()


def test_unreachable_targets_name_what_can_be_reached() -> None:
    program = captured(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)), normal(2, 3, 4, 4))
    with pytest.raises(UsageError, match=r"9x in MACs can't be reached: the largest is 8\.00x"):
        PruneFilters(speedup=9).run(program)
    assert PruneFilters(speedup=8.0).run(program).stats["macs_speedup"] == 8.0
    with pytest.raises(UsageError, match=r"the largest is 2\.66x"):  # 8 / 3, rounded down: it can be asked for
        PruneFilters(speedup=4, min_channels=3).run(program)
    assert PruneFilters(speedup=2.66, min_channels=3).run(program).modified
    with pytest.raises(UsageError, match=r"the largest is 1\.00x"):
        PruneFilters(speedup=2, min_channels=8).run(program)


@pytest.mark.parametrize("network", [nn.Linear(5, 3), nn.ReLU(), nn.Sequential(nn.Linear(5, 3), nn.LayerNorm(3))])
def test_nothing_to_prune(network: nn.Module) -> None:
    program = captured(network, normal(2, 5))
    for options in ({"speedup": 2.0}, {"ratio": 0.5}):
        with pytest.raises(UnsupportedModelError, match="No filters of this network can be pruned"):
            PruneFilters(**options).run(program)  # type: ignore[arg-type]


def test_nothing_to_prune_lists_all_reasons() -> None:
    lstm = nn.LSTM(5, 4, batch_first=True)
    network = Net(
        lambda s, x: s.head(s.lstm(s.first(x))[0].relu()), first=nn.Linear(5, 5), lstm=lstm, head=nn.Linear(4, 3)
    )
    with pytest.raises(UnsupportedModelError) as failure:
        PruneFilters(ratio=0.5).run(captured(network, normal(2, 6, 5)))
    assert failure.value.message.splitlines()[1:] == [
        "  recurrent layer (lstm): first, lstm, lstm#2",
        "  an output of the network: head",
    ]
    prunable = captured(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), normal(2, 5))
    with pytest.raises(UnsupportedModelError, match=r"left out by ignore.*: 0\n"):
        PruneFilters(ratio=0.5, freeze=("0",)).run(prunable)


def test_nothing_to_prune_without_layers_that_cost_anything() -> None:
    network = Net(lambda s, x: (x[:, None] * s.w.sigmoid()).sum(1), w=nn.Parameter(torch.ones(4, 5)))
    with pytest.raises(UnsupportedModelError):
        PruneFilters(ratio=0.5).run(captured(network, normal(2, 5)))
