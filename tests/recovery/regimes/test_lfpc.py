"""LFPC: with one criterion it is that criterion; the sampler learns which criterion's masks cost less."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.recovery.regimes.lfpc import Lfpc
from prunec.passes.errors import UsageError
from tests.recovery.networks import same, state
from tests.recovery.regimes.regime_runs import GLOBAL, LAST, UNIFORM, net, pruned, trained, watched


@pytest.mark.parametrize("criterion", ["l1", "l2", "random"])
@pytest.mark.parametrize("pruning", [UNIFORM, GLOBAL], ids=["uniform", "global"])
def test_with_one_criterion_it_is_that_criterion(data: Data, criterion: str, pruning: Any) -> None:
    result = trained(net(), data, Lfpc(criteria=(criterion,)), pruning, replace(LAST, epochs=1))
    plan = pruned(result, pruning).plan
    assert plan is not None
    assert plan == replace(pruning, criterion=criterion).run(result.program).plan
    assert not plan.is_empty


def test_the_network_trains_as_without_it(data: Data) -> None:
    """The sampler's steps leave no trace in the network but the samples that are held out."""
    options = replace(LAST, epochs=1)
    runs = [trained(net(), data, Lfpc(criteria=names), UNIFORM, options) for names in (("l1",), ("l1", "random"))]
    assert same(state(runs[0].program), state(runs[1].program))
    assert runs[0].hooks[0].held_out_samples == 54
    assert (runs[0].hooks[0].samples, runs[0].hooks[0].macs) == (15 * 32, 3 * 15 * 32 * net().macs())


def test_the_sampler_prefers_what_the_held_out_loss_prefers(data: Data) -> None:
    trained_well = replace(LAST, epochs=20, schedule="cosine:0.1")  # else any filters are as good as any others
    program = trained(net(), data, Lfpc(criteria=("l1",)), UNIFORM, trained_well).program
    hook = Lfpc(criteria=("random", "l1"), travel=12.0)
    still = replace(LAST, epochs=6, schedule="constant:1e-9", weight_decay=0.0)
    result, running = watched(program, data, hook, replace(UNIFORM, ratio=0.3), still)
    rows: Any = result.hooks[0].figures["probabilities"]
    assert {row["group"] for row in rows} == {"features.0", "features.3", "features.6"}
    assert all(abs(row["random"] + row["l1"] - 1) < 1e-6 for row in rows)
    losses = {choice: held_out_loss(running, choice) for choice in (0, 1)}
    assert abs(losses[0] - losses[1]) > 0.1, "one of the two is better"
    better = "random" if losses[0] < losses[1] else "l1"
    assert all(row[better] > 0.6 for row in rows)


@torch.no_grad()
def held_out_loss(running: Any, choice: int) -> float:
    """The held-out loss where all groups are masked by one criterion."""
    running.preferences.copy_(torch.tensor([[1e4, 0.0], [0.0, 1e4]])[choice].expand_as(running.preferences))
    zero = torch.zeros(())
    values = []

    def remembered(outputs: Any, labels: Any) -> Any:
        values.append(torch.nn.functional.cross_entropy(outputs, labels))
        return values[-1].clone().requires_grad_()

    running.training = replace(running.training, loss=remembered)
    for _ in range(8):
        running.loss(None, zero)
    return float(torch.stack(values).mean())


def test_its_default_criteria_look_at_weights_alone(data: Data) -> None:
    with pytest.raises(UsageError, match="learned doesn't score units by their weights alone"):
        trained(net(), data, Lfpc(criteria=("l1", "learned")), UNIFORM)
    with pytest.raises(UsageError, match="criteria must name different ones"):
        Lfpc(criteria=("l1", "l1"))
    with pytest.raises(UsageError, match="held_out is a share, above 0 and below 1"):
        Lfpc(held_out=0.0)
