"""A small project as a user would have it: model.py, prunec.toml, data, a checkpoint."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from prunec.calibration.user_code import import_callable
from prunec.compiler.cli.main import run

MODEL = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
    )

def wider():
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32))
"""
CONFIG = """
[model]
factory = "model:network"
input = [1, 8, 8]
[data]
train = "npz:data.npz"
test = "npz:data.npz"
[recipe.prune-filters]
ratio = 0.5
round_to = 4
min_channels = 1
[recipe.recover]
epochs = 1
schedule = "constant:0.05"
batch_size = 32
"""


def make_data(path: Path, classes: int = 4, seed: int = 0) -> None:
    """300 + 100 grey images of 8x8 whose class is the bright quadrant."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", 300), ("test", 100)):
        labels = rng.integers(0, classes, count)
        images = rng.integers(0, 60, (count, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 120
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images.astype(np.uint8), labels
    np.savez(path, **arrays)


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of one command."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.rstrip().splitlines()[-1]


Prunec = Callable[..., Outcome]
#: (exit code, *words of the message, arguments=...) -> what the command printed
Refused = Callable[..., Outcome]
COMPILE = ("compile", "model.pt", "--target", "cpu")


@pytest.fixture
def prunec(capfd: pytest.CaptureFixture[str]) -> Prunec:
    """Run one command in this process."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    (folder / "model.py").write_text(MODEL)
    (folder / "prunec.toml").write_text(CONFIG)
    make_data(folder / "data.npz")
    torch.manual_seed(0)
    torch.save(import_callable("model:network", folder)().state_dict(), folder / "model.pt")
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, and the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(template, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(project: Path, prunec: Prunec) -> Refused:
    """A command must fail with a code and say these words, and write nothing."""

    def call(code: int, *words: str, arguments: tuple[object, ...] = COMPILE) -> Outcome:
        before = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)
        outcome = prunec(*arguments)
        after = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)
        assert outcome.code == code, outcome.err
        assert "Traceback" not in outcome.err
        message = outcome.err[outcome.err.index("Error: ") :]
        assert len(message.strip().splitlines()) <= 2  # what, and what to try next
        for word in words:
            assert word in message
        assert after == before
        if arguments[0] in ("compile", "verify", "build"):
            assert outcome.last_line.startswith(f"FAILED | exit code {code} | prunec {arguments[0]}")
        return outcome

    return call


@pytest.fixture(scope="session")
def bundle(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project compiled for a100-2:4 without an engine; tests that change it copy it."""
    output = tmp_path_factory.mktemp("bundles") / "model.bundle"
    arguments = ["compile", template / "model.pt", "--target", "a100-2:4", "--no-engine", "-o", output]
    assert run([str(argument) for argument in arguments]) == 0
    return output
