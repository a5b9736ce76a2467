"""Several processes train one network as one process does."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.facts.progress import Silent
from prunec.compiler.facts.settings import Settings
from prunec.compiler.recovery.processes import Processes, check_own_gpus
from prunec.compiler.stages.driver import compile_model
from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from tests.recovery.launching import run_together

#: Every epoch is one step of 540 images: its loss is that step's.
STEPS = {"schedule": "cosine:0.05", "batch_size": 540, "keep": "last"}


def train(
    count: int,
    folder: Path,
    options: dict[str, Any],
    norm: bool,
    *state: str,
    seed: int = 0,
    hooks: tuple[str, ...] = (),
    ask: tuple[int, int] | None = None,
) -> Any:
    text = json.dumps({"options": options, "seed": seed, "hooks": hooks, "ask": ask})
    output = folder / f"result-{count}.pt"
    arguments = [str(folder), str(output), text, str(int(norm)), *state]
    output.unlink(missing_ok=True)
    failure = run_together(count, "tests.recovery.distributed", arguments)
    return failure or torch.load(output)


def test_two_processes_have_the_losses_of_one(data: Data, tmp_path: Path) -> None:
    options = {**STEPS, "epochs": 50}
    alone, together = (train(count, tmp_path, options, False) for count in (1, 2))
    assert isinstance(together, dict), together
    assert together["processes"] == 2
    assert len(together["losses"]) == 50
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for name, tensor in alone["tensors"].items():
        assert torch.allclose(tensor, together["tensors"][name], rtol=1e-4, atol=1e-5), name


def test_two_processes_train_by_adamw_as_one_does(data: Data, tmp_path: Path) -> None:
    """Clipped, with parts of a batch, in groups: masks hold in both, which the script checks."""
    options = {**STEPS, "schedule": "cosine:0.003", "epochs": 10, "optimizer": "adamw", "accumulate": 2}
    options |= {"clip_norm": 0.5, "decay_norms_and_biases": False}
    alone, together = (train(count, tmp_path, options, False) for count in (1, 2))
    assert isinstance(alone, dict), alone
    assert isinstance(together, dict), together
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert together["losses"][-1] < together["losses"][0]


def test_the_hooks_of_two_processes_agree_and_learn_as_those_of_one(data: Data, tmp_path: Path) -> None:
    """Parameters within the network's graph and outside it, an optimizer of a hook's own, and accumulation."""
    options = {**STEPS, "epochs": 8, "accumulate": 2, "weight_decay": 0.0}
    hooks = ("Compactor", "Adversary")
    alone, together = (train(count, tmp_path, options, False, hooks=hooks) for count in (1, 2))
    assert isinstance(alone, dict), alone
    assert isinstance(together, dict), together
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert len(together["trained"]) == 3
    for first, second in zip(alone["trained"], together["trained"], strict=True):
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together["trained"][0][:, :, 0, 0], torch.eye(8), atol=1e-3)


def test_two_processes_round_as_one_does_but_for_the_ranges_of_their_batches(data: Data, tmp_path: Path) -> None:
    options = {**STEPS, "epochs": 8, "hooks": "quantize{momentum=0.5}"}
    alone, together = (train(count, tmp_path, options, False) for count in (1, 2))
    assert isinstance(alone, dict), alone
    assert isinstance(together, dict), together
    assert together["losses"] == pytest.approx(alone["losses"], rel=0.02)
    assert together["losses"] != pytest.approx(alone["losses"], rel=1e-6)


@pytest.mark.long
def test_two_processes_resume_together_and_not_alone(data: Data, tmp_path: Path) -> None:
    options = {"epochs": 3, "schedule": "cosine:0.05", "batch_size": 32, "accumulate": 2, "ema": 0.9}
    state = str(tmp_path / "state.pt")
    first = train(2, tmp_path, options, True, state)
    again = train(2, tmp_path, options, True, state)
    assert isinstance(first, dict), first
    assert isinstance(again, dict), again
    assert first["losses"] == again["losses"]
    assert all(torch.equal(tensor, again["tensors"][name]) for name, tensor in first["tensors"].items())
    assert "processes was 2 and is 1" in train(1, tmp_path, options, True, state)


@pytest.mark.long
def test_two_processes_stop_at_the_same_step_where_one_is_asked(data: Data, tmp_path: Path) -> None:
    options = {"epochs": 3, "schedule": "cosine:0.05", "batch_size": 32}
    whole, state = train(2, tmp_path, options, True), str(tmp_path / "state.pt")
    stopped = train(2, tmp_path, options, True, state, ask=(1, 7))
    assert isinstance(stopped, dict), stopped
    assert stopped["stopped"] == [signal.SIGTERM, signal.SIGINT]
    assert torch.load(state)["state"]["step"] == 7
    resumed = train(2, tmp_path, options, True, state)
    assert isinstance(resumed, dict), resumed
    assert whole["losses"] == resumed["losses"]
    assert all(torch.equal(tensor, resumed["tensors"][name]) for name, tensor in whole["tensors"].items())


@pytest.mark.long
def test_batch_norms_of_two_processes_end_within_a_point(data: Data, tmp_path: Path) -> None:
    differences = []
    options = {"epochs": 12, "schedule": "cosine:0.05", "batch_size": 64, "keep": "last"}
    for seed in range(3):
        alone, together = (train(count, tmp_path, options, True, seed=seed)["test"][-1] for count in (1, 2))
        differences.append(100 * abs(alone - together))
    assert sum(differences) / len(differences) <= 1.0, differences


@pytest.mark.parametrize("places", [[("a", "GPU-1")], [("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-1")]])
def test_processes_with_a_gpu_each_train(places: list[tuple[str, str]]) -> None:
    check_own_gpus(places)


def test_processes_that_share_a_gpu_are_refused() -> None:
    with pytest.raises(UsageError, match="3 processes on b train on 2 GPUs") as caught:
        check_own_gpus([("a", "GPU-1"), ("b", "GPU-1"), ("b", "GPU-2"), ("b", "GPU-1")])
    assert "--nproc-per-node=2" in (caught.value.hint or "")


def test_they_are_before_any_work(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []

    class Listens(Silent):
        def stage(self, title: str) -> None:
            stages.append(title)

    def shared() -> None:
        check_own_gpus([("a", "GPU-1"), ("a", "GPU-1")])

    monkeypatch.setattr(Processes, "join", shared)
    with pytest.raises(UsageError, match="2 processes on a train on 1 GPU"):
        compile_model(program, "cpu", "recover{epochs=1}", data, tmp_path / "o", settings=Settings(progress=Listens()))
    assert not stages
    assert not list(tmp_path.glob("o*"))
