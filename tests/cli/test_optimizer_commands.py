"""The optimizer of a recovery from the project file: chosen by the dense training, named, or the user's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Prunec

COMPILE = ("compile", "model.pt", "--target", "cpu")
OWN = """
from torch.optim import SGD

def careful(groups):
    return SGD(groups, momentum=0.5)

def careless(groups):
    return None
"""


def retrained_by(project: Path, recover: str, pretraining: str = "") -> None:
    """Let the recipe's table [recipe.recover] hold these lines instead of a schedule."""
    config = project / "prunec.toml"
    text = config.read_text().replace('schedule = "constant:0.05"', recover)
    config.write_text(text.replace("[data]", f"pretraining = {{{pretraining}}}\n[data]") if pretraining else text)


def report() -> Any:
    return json.loads(Path("model.cpu.bundle/report.json").read_text())


def test_the_dense_training_s_optimizer_is_the_default_and_the_rate_is_one_for_it(
    prunec: Prunec, project: Path
) -> None:
    retrained_by(project, "", 'epochs = 4, schedule = "cosine:0.002", optimizer = "adamw"')
    outcome = prunec(*COMPILE)
    assert outcome.code == 0, outcome.err
    recovery = report()["recovery"]
    assert (recovery["optimizer"], recovery["optimizer_reason"]) == ("AdamW", "the dense network was trained with it")
    assert (recovery["betas"], recovery["eps"], recovery["weight_decay"]) == ([0.9, 0.999], 1e-8, 0.01)
    assert recovery["momentum"] is None
    assert recovery["decay_norms_and_biases"] is True
    assert recovery["schedule"] == "clr:0.002", "more than 65 % of the MACs are gone"
    assert report()["pretraining"]["optimizer"] == "AdamW"
    assert "AdamW (the dense network was trained with it)" in Path("model.cpu.bundle/report.html").read_text()


def test_what_nothing_states_is_not_known(prunec: Prunec, project: Path) -> None:
    assert prunec(*COMPILE).code == 0
    recovery = report()["recovery"]
    assert recovery["optimizer"] == "SGD"
    assert "nothing states" in recovery["optimizer_reason"]
    assert (recovery["momentum"], recovery["weight_decay"], recovery["betas"]) == (0.9, 5e-4, None)
    assert report()["pretraining"]["optimizer"] is None
    assert "pretraining" in report()["reasons"]


@pytest.mark.parametrize(
    ("recover", "settings"),
    [
        ('optimizer = "own:careful"\nschedule = "constant:0.01"', "SGD(momentum=0.5,"),
        ('optimizer = "torch.optim:RMSprop"\nschedule = "constant:1e-3"', "RMSprop("),
    ],
)
def test_an_optimizer_of_the_user_s_own_is_loaded_beside_the_project_file(
    prunec: Prunec, project: Path, recover: str, settings: str
) -> None:
    (project / "own.py").write_text(OWN)
    retrained_by(project, recover)
    outcome = prunec(*COMPILE)
    assert outcome.code == 0, outcome.err
    recovery = report()["recovery"]
    assert f'"{recovery["optimizer"]}"' in recover
    assert recovery["optimizer_reason"] is None
    assert recovery["optimizer_settings"].startswith(settings)
    assert (recovery["momentum"], recovery["weight_decay"]) == (None, None)


def test_the_user_s_optimizer_may_be_the_dense_training_s(prunec: Prunec, project: Path) -> None:
    (project / "own.py").write_text(OWN)
    retrained_by(project, "", 'epochs = 4, schedule = "cosine:0.02", optimizer = "own:careful"')
    assert prunec(*COMPILE).code == 0
    assert (report()["recovery"]["optimizer"], report()["recovery"]["schedule"]) == ("own:careful", "clr:0.02")


@pytest.mark.parametrize(
    ("recover", "pretraining", "words"),
    [
        ('optimizer = "own:missing"\nschedule = "constant:0.01"', "", "no callable 'missing'"),
        ('optimizer = "nowhere:sgd"\nschedule = "constant:0.01"', "", "no module 'nowhere'"),
        ('optimizer = "own:careful"', "", "no learning rate is known to fit the optimizer own:careful"),
        ('optimizer = "own:careless"\nschedule = "constant:0.01"', "", "gave NoneType; expected a torch.optim"),
        ('optimizer = "adamv"', "", "'adamw'"),
        ('optimizer = "adamw"\nmomentum = 0.9', "", "AdamW has no option momentum"),
        ("momentum = 0.8", 'epochs = 4, schedule = "cosine:0.01", optimizer = "adamw"', "AdamW has no option momentum"),
        ("", 'epochs = 4, schedule = "cosine:0.01", optimizer = "adamv"', "'adamv' is unknown"),
        ("", 'epochs = 0, optimizer = "sgd"', "an optimizer belongs to epochs"),
    ],
)
def test_optimizers_that_can_t_be_are_usage_errors(
    prunec: Prunec, project: Path, recover: str, pretraining: str, words: str
) -> None:
    (project / "own.py").write_text(OWN)
    retrained_by(project, recover, pretraining)
    outcome = prunec(*COMPILE)
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert not list(project.glob("*.bundle"))


def test_a_network_trained_from_scratch_has_the_dense_training_s_optimizer(prunec: Prunec, project: Path) -> None:
    """Its schedule is the dense one's: SGD at AdamW's rate, or the other way round, would be no control."""
    retrained_by(
        project,
        'optimizer = "sgd"\nmomentum = 0.8\nschedule = "constant:0.05"',
        'epochs = 1, schedule = "constant:0.001", optimizer = "adamw"',
    )
    outcome = prunec(*COMPILE, "--control", "scratch-e")
    assert outcome.code == 0, outcome.err
    assert report()["recovery"]["momentum"] == 0.8
