"""What the system refuses ends with 10, what a user asks for beyond any use with 2, and a state in the way too."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunec.passes.errors import UnsupportedModelError
from tests.cli.conftest import COMPILE, Outcome, Prunec, Refused


@pytest.mark.parametrize(
    "number", [errno.EEXIST, errno.EIO, errno.EMFILE, errno.ENOTDIR, errno.ETIMEDOUT, errno.ENOSPC]
)
def test_errors_of_the_system_are_one_kind(
    prunec: Prunec, project: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "there/model.onnx")

    monkeypatch.setattr("prunec.compiler.commands.compile_network.compile_request", fails)
    outcome = prunec(*COMPILE)
    assert outcome.code == 10
    assert os.strerror(number) in outcome.err
    assert "there/model.onnx." in outcome.err or number == errno.ENOSPC, "a full disk is told of the output"
    assert "Traceback" not in outcome.err
    assert outcome.last_line.startswith("FAILED | exit code 10 |")


def test_an_error_of_the_system_within_one_of_torch(
    prunec: Prunec, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("unexpected pos 128 vs 22") from error

    monkeypatch.setattr("prunec.compiler.commands.compile_network.compile_request", fails)
    outcome = prunec(*COMPILE)
    assert (outcome.code, "No space left" in outcome.err) == (10, True)


def test_a_lack_of_memory_within_another_error(prunec: Prunec, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise UnsupportedModelError("torch.export can't capture Sequential: MemoryError") from error

    monkeypatch.setattr("prunec.compiler.commands.compile_network.compile_request", fails)
    outcome = prunec(*COMPILE)
    assert (outcome.code, "out of memory" in outcome.err) == (10, True)


@pytest.mark.parametrize(("where", "code"), [("> /dev/full", 10), (">&-", 0), ("2>&-", 0)])
def test_output_that_goes_nowhere(where: str, code: int) -> None:
    line = f"{sys.executable} -m prunec.compiler schedule constant:0.1 --epochs 3 {where}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ask", [("--epochs", "1000000000"), ("--input", "2000000000,2000000000,8")])
def test_what_is_beyond_any_use_is_refused_at_once(refused: Refused, ask: tuple[str, ...], project: Path) -> None:
    refused(2, "at most", arguments=(*COMPILE, *ask))


def test_a_schedule_of_a_billion_epochs_is_refused_at_once(prunec: Prunec) -> None:
    started = time.perf_counter()
    assert prunec("schedule", "cosine:0.1", "--epochs", "1000000000").code == 2
    assert prunec("schedule", f"constant:0.1{'+1' * 3000}", "--epochs", "90").code == 2
    assert prunec("schedule", "P1e9F90,0.1").code == 2
    assert prunec("schedule", f"P{'9' * 3000}F90,0.1").code == 2
    assert prunec("schedule", f"P30F{'9' * 400},0.1").code == 2
    assert prunec("schedule", f"P30F90,1e-2+{'9' * 400}").code == 2
    assert prunec("schedule", "constant:0.1", "--epochs", "9" * 400).code == 2
    assert time.perf_counter() - started < 5


def test_a_state_in_the_way_is_refused(refused: Refused, project: Path, prunec: Prunec) -> None:
    state = project / "model.cpu.bundle.state"
    state.mkdir()
    (state / "recover-0.state").write_text("of a run that was stopped")
    refused(2, "--resume", "--force")
    refused(9, "recover-0.state", "can't be read", arguments=(*COMPILE, "--resume"))
    outcome: Outcome = prunec(*COMPILE, "--force", "--no-engine")
    assert outcome.code == 0, outcome.err
    assert not state.exists()
    state.write_text("no folder")
    refused(2, "is in the way", arguments=(*COMPILE, "--force"))
    state.unlink()
    state.symlink_to("/nonexistent/scratch")
    refused(2, "is in the way", arguments=(*COMPILE, "--force"))


def test_project_files_beyond_any_use(refused: Refused, project: Path) -> None:
    config = project / "prunec.toml"
    model = "[model]\nfactory = 'model:network'\ninput = [1, 8, 8]\n"
    for text, words in (
        ("x = " + "[" * 3000, "nested"),
        ("a." * 3000 + "b = 1", "more than 32 parts"),
        ("x" * 100_000, "at most"),
        (f"{model}[data]\ntrain='imagefolder:a'\ntest='imagefolder:a'\ncrop = 1000000000", "crop"),
        ("[model]\npretraining = {epochs = 1000000000, schedule = 'cosine:0.1'}", "at most"),
    ):
        config.write_text(text)
        refused(2, words)
