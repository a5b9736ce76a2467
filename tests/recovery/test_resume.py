"""A training that was stopped goes on as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.recovery.recover import EpochRecord, Recover, StateOptions
from prunec.passes import interruption
from prunec.passes.errors import InputError
from prunec.passes.interruption import Stopped as StoppedBySignal
from prunec.passes.interruption import ask_to_stop
from prunec.passes.program import Program
from prunec.runtime.evaluate import top1
from tests.recovery.networks import OPTIONS, run, same, state

#: Everything that has a state: dropout, momentum, a moving average, the best epoch so far.
STATEFUL = replace(OPTIONS, ema=0.9, epochs=4, schedule="cosine:0.05")


class Stopped(Exception):
    pass


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_training_ends_in_the_same_bits(
    data: Data, program: Program, tmp_path: Path, keep: str, precision: str
) -> None:
    options = replace(STATEFUL, keep=keep, precision=precision)
    whole = run(program, data, options)

    def stop(record: EpochRecord, _: Program) -> None:
        if record.epoch == 2:
            raise Stopped

    file = StateOptions(tmp_path / "folder/state.pt", resume=True)
    with pytest.raises(Stopped):
        run(program, data, options, state=file, progress=stop)
    resumed = run(program, data, options, state=file)
    assert resumed.resumed
    assert not whole.resumed
    assert same(state(whole.program), state(resumed.program))
    assert without_seconds(whole.curve) == without_seconds(resumed.curve)
    assert whole.best_epoch == resumed.best_epoch
    assert resumed.seconds > sum(record.seconds for record in resumed.curve)
    again = run(program, data, options, state=file)
    assert same(state(whole.program), state(again.program)), "a finished training has nothing left to do"


def without_seconds(curve: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in curve]


def test_without_resume_it_starts_anew(data: Data, program: Program, tmp_path: Path) -> None:
    file = StateOptions(tmp_path / "state.pt")
    run(program, data, STATEFUL, state=file)
    second = run(program, data, STATEFUL, state=file)
    assert not second.resumed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": "cosine:0.06"}, "schedule was cosine:0.05 and is cosine:0.06"),
        ({"batch_size": 64}, "batch_size was 32 and is 64"),
        ({"weight_decay": 0.0}, "weight_decay was 0.0005 and is 0.0"),
    ],
)
def test_another_recipe_is_refused_with_what_differs(
    data: Data, program: Program, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    file = StateOptions(tmp_path / "state.pt", resume=True)
    run(program, data, STATEFUL, state=file)
    with pytest.raises(InputError, match=words):
        run(program, data, replace(STATEFUL, **change), state=file)


def test_another_network_or_seed_is_refused(data: Data, program: Program, tmp_path: Path) -> None:
    file = StateOptions(tmp_path / "state.pt", resume=True)
    result = run(program, data, OPTIONS, state=file)
    with pytest.raises(InputError, match="seed was 0 and is 1"):
        run(program, data, OPTIONS, state=file, seed=1)
    with pytest.raises(InputError, match=r"network was \w{12}\.\.\. and is"):
        run(result.program, data, OPTIONS, state=file)


@pytest.mark.parametrize("content", [b"", b"not a state", None])
def test_an_unreadable_state_is_refused(data: Data, program: Program, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(content) if content is not None else torch.save({"other": 1}, path)
    with pytest.raises(InputError, match="can't be read as the state of a training"):
        run(program, data, OPTIONS, state=StateOptions(path, resume=True))


SCRIPT = """
import sys
from pathlib import Path
import numpy, torch
from prunec.calibration.config import DataConfig
from prunec.calibration.data import load_data
from prunec.compiler.recovery.recover import Recover, StateOptions
from prunec.passes.frontend import capture
from tests.recovery.networks import network, run

folder, final = Path(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
config = DataConfig("npz:quarters.npz", "npz:quarters.npz", (0.3,), (0.2,), augment=("shift:1",))
data = load_data(config, folder, 0)
options = Recover(epochs=12, schedule="cosine:0.05", batch_size=32, ema=0.9)
program = capture(network(), (torch.zeros(2, 1, 8, 8),))
state = StateOptions(Path(sys.argv[3]), resume=True, every_steps=1)
print("started", flush=True)
result = run(program, data, options, state=state)
torch.save(dict(result.program.tensors()), final)
"""


def killed(count: int, folder: Path) -> None:
    """Train while the process is killed at ``count`` random moments, and compare with a training that wasn't."""
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-c", SCRIPT, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    subprocess.run([*arguments, str(folder / "whole.pt"), str(folder / "whole.state")], env=environment, check=True)
    whole = torch.load(folder / "whole.pt")
    random = np.random.default_rng(0)
    for attempt in range(count):
        final, held = folder / f"killed{attempt}.pt", folder / f"killed{attempt}.state"
        process = subprocess.Popen([*arguments, str(final), str(held)], env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        wait_for(held)
        time.sleep(float(random.uniform(0.0, 0.6)))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
        process.stdout.close()
        subprocess.run([*arguments, str(final), str(held)], env=environment, check=True)
        resumed = torch.load(final)
        assert same(whole, resumed), f"attempt {attempt}"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, "no state was written"
        time.sleep(0.002)


@pytest.mark.long
def test_kill_9_at_ten_random_steps_loses_nothing(data: Data, tmp_path: Path) -> None:
    killed(10, tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_unfinished_state_is_not_left_behind(
    data: Data, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path, written = tmp_path / "state.pt", []
    save = torch.save

    def second_fails(content: object, file: Any) -> None:
        written.append(content)
        save(content, file)
        if len(written) == 2:
            raise error

    monkeypatch.setattr(torch, "save", second_fails)
    with pytest.raises(type(error)):
        run(program, data, OPTIONS, state=StateOptions(path, every_steps=1))
    assert [found.name for found in tmp_path.glob("state.pt*")] == ["state.pt"]
    assert torch.load(path)["state"]["step"] == written[0]["state"]["step"]


def test_a_state_is_written_within_epochs_too(data: Data, program: Program, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    seen = []

    def watch(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if path.exists():
            seen.append(torch.load(path)["state"]["step"])
        return torch.nn.functional.cross_entropy(outputs, labels)

    run(
        program,
        data,
        Recover(epochs=1, schedule="constant:0.01", batch_size=32),
        loss=watch,
        state=StateOptions(path, every_steps=5),
    )
    assert sorted(set(seen)) == [5, 10, 15]


def asking_at(call: int) -> Any:
    """The default metric, that asks for a stop when it is called for the n-th time: in steps and in evaluations."""
    calls = 0

    @wraps(top1)
    def metric(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            ask_to_stop(signal.SIGTERM)
        return top1(outputs, labels)

    return metric


def test_a_training_that_is_asked_to_stop_goes_on_from_that_very_step(
    data: Data, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch has 16 steps, and an evaluation of either part of the data is one batch."""
    whole = run(program, data, STATEFUL)
    for call, step, is_trained in ((1, 1, False), (9, 9, False), (16, 16, True), (17, 16, True), (18, 0, False)):
        path = tmp_path / f"{call}.state"
        with monkeypatch.context() as patch:
            patch.setattr(interruption, "_request", interruption._Request())
            with pytest.raises(StoppedBySignal) as caught:
                run(program, data, STATEFUL, metric=asking_at(call), state=StateOptions(path))
        assert caught.value.number == signal.SIGTERM
        held = torch.load(path)["state"]
        assert (held["step"], held["trained"]) == (step, is_trained)
        resumed = run(program, data, STATEFUL, state=StateOptions(path, resume=True))
        assert resumed.resumed
        assert same(state(whole.program), state(resumed.program)), f"asked at call {call}"
        assert without_seconds(whole.curve) == without_seconds(resumed.curve)
