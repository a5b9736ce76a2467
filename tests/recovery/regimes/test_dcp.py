"""DCP: each greedy pick is the best found by trying all, and the loss falls on the batch of every step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from prunec.calibration.data import Data
from prunec.compiler.recovery.regimes.channel_choice import ChannelChoice
from prunec.compiler.recovery.regimes.dcp import Dcp
from prunec.compiler.recovery.regimes.input_channels import readers_of
from prunec.compiler.recovery.regimes.pivot_head import PivotHead
from prunec.passes.coupling import analyse
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from tests.recovery.regimes.networks import Attention
from tests.recovery.regimes.regime_runs import LAST, UNIFORM, difference, net, pruned, removed_units, watched


def toy() -> tuple[ChannelChoice, Tensor, Tensor, Tensor]:
    """A linear layer of 6 inputs whose outputs are to be those of all inputs, and to tell classes."""
    generator = torch.Generator().manual_seed(0)
    program = capture(
        nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)).eval(), (torch.randn(2, 5, generator=generator),)
    )
    groups = analyse(program).groups
    (readers,) = readers_of(program, groups, "dcp")
    weight = program.tensors()["2.weight"].detach().clone()
    x, labels = torch.rand(32, 6, generator=generator), torch.randint(0, 4, (32,), generator=generator)

    def loss(weights: Any) -> Tensor:
        outputs = x @ weights["2.weight"].T
        return mse_loss(outputs, x @ weight.T) + cross_entropy(outputs, labels)

    return ChannelChoice(readers, loss, lambda gradients: gradients, {"2.weight": weight.clone()}), x, labels, weight


def test_greedy_picks_are_the_largest_gradients() -> None:
    choice, x, labels, weight = toy()
    for _ in range(4):
        norms = []
        for unit in range(6):
            if unit in choice.order:
                norms.append(-1.0)
                continue
            column = choice.masked(choice.weights)["2.weight"].clone()
            slope = torch.zeros(4, dtype=torch.float64)
            for row in range(4):  # the derivative by each weight of the channel, by differences
                values = []
                for step in (1e-4, -1e-4):
                    moved = column.double()
                    moved[row, unit] += step
                    outputs = x.double() @ moved.T
                    values.append(mse_loss(outputs, x.double() @ weight.double().T) + cross_entropy(outputs, labels))
                slope[row] = (values[0] - values[1]) / 2e-4
            norms.append(float(slope.norm()))
        choice.add(1)
        assert choice.order[-1] == max(range(6), key=norms.__getitem__)
        choice.step(0.1)
    assert len(set(choice.order)) == 4


def test_the_loss_falls_on_the_batch_of_every_step() -> None:
    choice, *_ = toy()
    choice.choose(5, rounds=16, rate=10.0)
    assert len(choice.steps) == 5
    assert all(after < before for before, after in choice.steps)
    removed = [unit for unit in range(6) if unit not in choice.order]
    masked = choice.masked(choice.weights)["2.weight"]
    assert not masked[:, removed].any()
    assert masked[:, choice.order].abs().sum(0).min() > 0
    assert choice.passes[1] == 2 * 5


def test_several_channels_are_taken_in_one_round() -> None:
    choice, *_ = toy()
    choice.choose(5, rounds=2, rate=0.1)
    assert len(choice.order) == len(set(choice.order)) == 5
    assert choice.passes[1] == 2 * 2


@pytest.mark.parametrize("epochs", [1, 3])
def test_channels_are_chosen_stage_by_stage(data: Data, epochs: int) -> None:
    result, hook = watched(net(), data, Dcp(), UNIFORM, replace(LAST, epochs=epochs))
    figures: Any = result.hooks[0].figures
    assert figures["stages"] == len(hook.stages) == 3
    assert [row["group"] for row in figures["choices"]] == ["features.0", "features.3", "features.6"]
    assert [row["stage"] for row in figures["choices"]] == [1, 2, 3]
    assert all(row["fallen"] > 0 for row in figures["choices"])
    behind = pruned(result, UNIFORM)
    assert removed_units(behind, "features.3") == [6, 12]
    assert difference(behind.program, result.program) < 1e-9
    assert {name: int((ranks == 0).sum()) for name, ranks in hook.ranks.items()} == {
        "features.0": 4, "features.3": 6, "features.6": 4,
    }  # fmt: skip
    assert result.hooks[0].macs > result.hooks[0].samples * net().macs() > 0


def test_heads_learn_where_their_stage_is(data: Data) -> None:
    _, hook = watched(net(), data, Dcp(), UNIFORM, replace(LAST, epochs=3))
    first, second, last = hook.stages
    assert last.head is None
    assert (first.pivot, second.pivot) == ("conv2d_1", "conv2d_2")
    assert first.head.classify.weight.shape == (4, 12)


def test_a_head_takes_channels_last_too() -> None:
    head = PivotHead(6, 3, axis=-1)
    tokens = torch.randn(5, 7, 6)
    other = PivotHead(6, 3, axis=1)
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(head(tokens), other(tokens.movedim(-1, 1)))
    assert PivotHead(6, 3, axis=-1)(torch.randn(5, 6)).shape == (5, 3)


def test_units_that_no_layer_reads_are_refused() -> None:
    program = capture(Attention().eval(), (torch.randn(2, 5, 12),))
    with pytest.raises(UsageError, match="no layer reads the units of"):
        readers_of(program, analyse(program).groups, "dcp")
    with pytest.raises(UsageError, match="pivots must be at least 0"):
        Dcp(pivots=-1)
