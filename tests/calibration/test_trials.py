"""Questions to networks that can't take every input, and networks whose inputs are numbers of things."""

import pytest
import torch
from torch import Tensor, nn

from prunec.calibration.plausibility import Plausibility, check_plausibility
from prunec.calibration.trials import CannotRunError, Examiner, tried
from prunec.passes.discrete import numbers_of_things
from prunec.passes.errors import InputError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.runtime.evaluate import top1
from prunec.runtime.numerics import random_inputs
from tests.plausibility.__main__ import data_of

TOKENS = 50


class Tokens(nn.Module):
    """Classes of token sequences, given as floats as all data are."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(TOKENS, 8), nn.Linear(8, 16)
        self.norm, self.out = nn.BatchNorm1d(16) if norm else nn.Identity(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.norm(self.linear(self.embedding(x.long()).mean(1)))))


class Positions(nn.Module):
    """Pictures, whose places are looked up by constants, whose masks are counted, and whose features become codes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.codes = nn.Conv2d(3, 8, 3), nn.Embedding(8, 6)
        self.register_buffer("order", torch.tensor([2, 1, 0]))

    def forward(self, x: Tensor) -> Tensor:
        visible = (x > 0).int().sum((1, 2, 3))
        features = self.conv(x[:, self.order]).mean((2, 3))
        return (
            self.codes(features.argmax(1)) + self.codes(features.round().long().clamp(0, 7)).sum(1) + visible[:, None]
        )


def program_of(network: nn.Module, *shape: int) -> Program:
    return capture(network.eval(), (torch.rand(2, *shape),))


@pytest.mark.parametrize("norm", [False, True])
def test_token_networks_are_asked_about_their_labels_alone(norm: bool) -> None:
    """Half trained, so that every change would be tried."""
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (900,))
    tokens = torch.where(torch.rand(900, 12) < 0.15, 7 * labels[:, None], torch.randint(0, TOKENS, (900, 12))).float()
    net = Tokens(norm)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(4):
        for rows in torch.randperm(600).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(tokens[rows]), labels[rows]).backward()
            optimizer.step()
    data = data_of((tokens[:600], labels[:600]), (tokens[600:], labels[600:]))
    program = capture(net.eval(), (tokens[:2],))
    assert numbers_of_things(program) == (True,)
    found = check_plausibility(program, data)
    assert isinstance(found, Plausibility)
    assert found.findings == ()
    turned = data_of((tokens[:600], 2 - labels[:600]), (tokens[600:], 2 - labels[600:]))
    spoilt = check_plausibility(program, turned)
    assert isinstance(spoilt, Plausibility)
    assert "reverse order" in " ".join(spoilt.findings)


def test_numbers_of_things_are_told_from_quantities() -> None:
    assert numbers_of_things(program_of(Positions(), 3, 8, 8)) == (False,)
    assert numbers_of_things(capture(Tokens(False).eval(), (torch.randint(0, TOKENS, (2, 12)),))) == (True,)

    class Both(Tokens):
        def forward(self, weights: Tensor, x: Tensor, other: Tensor | None = None) -> Tensor:
            return weights * super().forward(x)

    program = capture(Both(False).eval(), (torch.rand(2, 1), torch.zeros(2, 12), None))
    assert numbers_of_things(program) == (False, True)
    tokens = torch.from_numpy(random_inputs(program, 5, 0)[1])
    assert tokens.shape == (5, 12)
    assert bool((tokens == 0).all())  # rows of the example inputs


def test_a_trial_that_cannot_run_is_an_answer_and_other_errors_are_bugs() -> None:
    def out_of_range(inputs: Tensor) -> Tensor:
        return torch.nn.functional.embedding(inputs.long(), torch.zeros(4, 2))

    with pytest.raises(CannotRunError):
        tried(out_of_range, torch.full((2,), 9.0))
    with pytest.raises(TypeError):
        tried(lambda inputs: inputs + None, torch.zeros(2))  # type: ignore[operator]


def test_a_trial_costs_nothing_where_network_or_metric_cannot_take_it_and_the_users_run_fails() -> None:
    def choosy(outputs: Tensor, labels: Tensor) -> Tensor:
        if outputs.abs().max() > 10:
            raise ValueError("outputs are too large")
        return (outputs.argmax(1) == labels).float()

    program = capture(nn.Linear(3, 3).eval(), (torch.zeros(2, 3),))
    inputs, labels = torch.ones(4, 3), torch.zeros(4).long()
    asked = Examiner(program, choosy)
    assert asked.tried(inputs, labels) is not None
    assert asked.tried(1e3 * inputs, labels) is None
    with pytest.raises(InputError, match="outputs are too large"):
        asked.answers(1e3 * inputs, labels)
    tokens = capture(Tokens(False).eval(), (torch.zeros(2, 12),))
    assert Examiner(tokens, top1).tried(torch.full((4, 12), 1e4), labels) is None
    with pytest.raises(InputError, match="index out of range"):
        Examiner(tokens, top1).answers(torch.full((4, 12), 1e4), labels)
