"""What a user can get wrong: one paragraph, the right exit code, no traceback, nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from prunec.calibration.user_code import import_callable
from tests.cli.conftest import COMPILE, Prunec, Refused


def edit_config(project: Path, old: str, new: str) -> None:
    text = (project / "prunec.toml").read_text()
    assert old in text
    (project / "prunec.toml").write_text(text.replace(old, new))


def test_missing_truncated_and_corrupt_checkpoints(project: Path, refused: Refused) -> None:
    refused(9, "nothing.pt", "doesn't exist", arguments=("compile", "nothing.pt", "--target", "cpu"))
    whole = (project / "model.pt").read_bytes()
    (project / "model.pt").write_bytes(whole[: len(whole) // 2])
    refused(9, "model.pt", "truncated or corrupt")
    (project / "model.pt").write_bytes(b"no checkpoint at all")
    refused(9, "model.pt")
    (project / "model.pt").write_bytes(b"")
    refused(9, "empty")


def test_checkpoints_that_may_not_be_read(project: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (project / "prunec.toml").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)  # what the parser of the command line would ask
    monkeypatch.setattr(Path, "open", refuse)
    refused(9, "model.pt can't be read: Permission denied", arguments=("inspect", "model.pt"))


def test_pickles_and_archives_without_the_flag(project: Path, refused: Refused) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))
    torch.save(net, project / "model.pt")
    refused(9, "--trust-checkpoint", "state_dict")
    torch.export.save(torch.export.export(net, (torch.randn(2, 1, 8, 8),)), project / "model.pt2")
    refused(9, "--trust-checkpoint", arguments=("compile", "model.pt2", "--target", "cpu"))


def test_a_state_dict_that_does_not_match(project: Path, refused: Refused) -> None:
    edit_config(project, "model:network", "model:wider")
    refused(9, "0.weight (got [16, 1, 3, 3], expected [32, 1, 3, 3])", "unexpected: 3.weight")


def test_wrong_input_shapes(project: Path, refused: Refused) -> None:
    refused(3, "(2, 3, 8, 8)", arguments=(*COMPILE, "--input", "3,8,8"))
    refused(2, "8x8", "3,224,224", arguments=(*COMPILE, "--input", "8x8"))
    refused(9, "[1, 8, 8]", "[1, 12, 12]", arguments=(*COMPILE, "--input", "1,12,12"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compile", "model.pt", "--target", "a10O-2:4"), ("'a10o'", "Did you mean", "'a100'")),
        (("compile", "model.pt", "--target", "t4-2:4"), ("no sparse tensor cores",)),
        (("compile", "model.pt", "--target", "a100-2:5"), ("'2:5'", "2:4")),
        (("compile", "model.pt", "--target", "cpu-2:4-int8"), ("no sparse tensor cores",)),
        (
            ("compile", "model.pt", "--target", "cpu-int8", "--pipeline", "permute"),
            ("computes on grids", "no calibrate"),
        ),
        ((*COMPILE, "--pipeline", "calibrate"), ("calibrate", "computes in fp32")),
        (("compile", "model.pt", "--target", "cpu-int8", "--pipeline", "calibrate calibrate"), ("calibrate 2 times",)),
        (
            ("compile", "model.pt", "--target", "cpu-int8", "--pipeline", "calibrate recover{epochs=1}"),
            ("recover after calibrate", "ranges"),
        ),
        (("compile", "model.pt", "--taget", "cpu"), ("--taget", "--target")),
        (("compile", "model.pt"), ("--target",)),
        (("compil", "model.pt"), ("compile",)),
        ((*COMPILE, "--ratio", "1.0"), ("outside [0, 1)",)),
        ((*COMPILE, "--ratio", "-0.5"), ("outside [0, 1)",)),
        ((*COMPILE, "--max-drop-points", "nan"), ("--max-drop-points", "finite")),
        ((*COMPILE, "--require-sparse", "0.8"), ("--require-sparse", "as in 80%")),
        ((*COMPILE, "--require-sparse", "120%"), ("--require-sparse", "0% .. 100%")),
        ((*COMPILE, "--min-speedup", "0"), ("--min-speedup", "above 0")),
        ((*COMPILE, "--seed", "18446744073709551616"), ("--seed", "9223372036854775807")),
        ((*COMPILE, "--threads", "100000"), ("--threads", "1024")),
        ((*COMPILE, "--input", "1,99999999999,8"), ("input shape",)),
        ((*COMPILE, "-o", "/"), ("root",)),
        ((*COMPILE, "--ratio", "half"), ("--ratio", "number")),
        ((*COMPILE, "--speedup", "0.5"), ("at least 1",)),
        ((*COMPILE, "--speedup", "2", "--ratio", "0.5"), ("exclude each other",)),
        ((*COMPILE, "--pipeline", "sparsfy"), ("Did you mean 'sparsify'",)),
        ((*COMPILE, "--pipeline", "sparsify", "--epochs", "3"), ("--epochs",)),
        ((*COMPILE, "--model", "model"), ("module:callable",)),
        ((*COMPILE, "--model", "model:netwrok"), ("Did you mean 'network'",)),
        ((*COMPILE, "--config", "other.toml"), ("other.toml", "doesn't exist")),
        (("compile", "model.pt", "--target", "a100-2:4", "--pipeline", "prune-filters{ratio=0.5}"), ("no sparsify",)),
    ],
)
def test_wrong_options(refused: Refused, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(2, *words, arguments=arguments)


def test_tables_of_steps_that_the_target_leaves_out_are_checked(project: Path, refused: Refused) -> None:
    edit_config(project, "[recipe.recover]", "[recipe.sparsify]\npatern = 3\n[recipe.recover]")
    refused(2, "sparsify has no option 'patern'", "Did you mean 'pattern'")


USER_CODE = """
import sys
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 16, 3), nn.Linear(5, 16), nn.Linear(16, 4)
    def forward(self, x, y):
        return self.head(torch.relu(self.a(x)).mean((2, 3)) + self.b(y))

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Conv2d(1, 16, 3), nn.Linear(576, 4)
    def forward(self, x):
        return self.head(torch.relu(self.a(x)).view(2, 576))

class Mute(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 16, 3)
    def forward(self, x):
        self.a(x)

class Several(Mute):
    def forward(self, x):
        y = self.a(x).mean((2, 3))
        return {"a": y, "b": y + 1}

def leaves(*arguments):
    sys.exit(5)
"""


@pytest.mark.parametrize(
    ("name", "shape", "code", "words"),
    [
        ("Two", "[[1, 8, 8], [5]]", 9, ("give 1 input,", "takes 2: x, y", "[model] inputs")),
        ("Fixed", "[1, 8, 8]", 3, ("batch of 2 only", "[data]")),
        ("Mute", "[1, 8, 8]", 9, ("a NoneType of 0 tensors", "loss and metric")),
        ("Several", "[1, 8, 8]", 9, ("a dict of 2 tensors, [2, 16], [2, 16]", "loss and metric")),
    ],
)
def test_networks_that_the_data_don_t_fit(
    project: Path, refused: Refused, name: str, shape: str, code: int, words: tuple[str, ...]
) -> None:
    (project / "nets.py").write_text(USER_CODE)
    torch.save(import_callable(f"nets:{name}", project)().state_dict(), project / "model.pt")
    edit_config(project, "model:network", f"nets:{name}")
    edit_config(project, "[1, 8, 8]", shape)
    refused(code, *words)
    refused(code, *words, arguments=("eval", "model.pt"))


def test_code_of_the_project_that_ends_the_program(project: Path, refused: Refused) -> None:
    (project / "nets.py").write_text(USER_CODE)
    edit_config(project, "[data]", '[data]\nloss = "nets:leaves"')
    refused(9, "loss function failed at", "nets.py:", "SystemExit: 5")
    edit_config(project, "model:network", "nets:leaves")
    refused(9, "model factory leaves failed at", "nets.py:", "SystemExit: 5")
    (project / "others.py").write_text("raise SystemExit(3)")
    edit_config(project, "nets:leaves", "others:loss")
    refused(9, "can't be loaded", "others.py:1: SystemExit: 3")


def test_a_speed_up_that_can_t_be_reached_names_the_largest(refused: Refused) -> None:
    refused(2, "1000", "largest", arguments=(*COMPILE, "--speedup", "1000"))


def test_outputs_that_exist_or_can_t_be_written(project: Path, refused: Refused, prunec: Prunec) -> None:
    (project / "model.cpu.bundle").mkdir()
    refused(2, "exists")
    (project / "model.cpu.bundle").rmdir()
    assert prunec(*COMPILE, "--epochs", 0, "-o", "x").code == 0
    refused(2, "--force", arguments=(*COMPILE, "--epochs", 0, "-o", "x"))
    assert prunec(*COMPILE, "--epochs", 0, "-o", "x", "--force").code == 0
    refused(10, "nowhere", arguments=(*COMPILE, "-o", "nowhere/x"))


def data_with(project: Path, **changes: object) -> None:
    arrays = dict(np.load(project / "data.npz"))
    np.savez(project / "data.npz", **{**arrays, **changes})  # type: ignore[arg-type]


def test_labels_out_of_range(project: Path, refused: Refused) -> None:
    data_with(project, test_labels=np.full(100, 9))
    refused(9, "label", "9")
    labels = np.arange(300) % 6
    data_with(project, train_labels=labels, test_labels=labels[:100])
    refused(9, "label 5", "4 outputs")
    data_with(project, train_labels=labels - 1)
    refused(9, "-1")


def test_empty_and_one_class_data(project: Path, refused: Refused) -> None:
    data_with(project, train_labels=np.zeros(300, np.int64))
    refused(9, "label 0")
    data_with(project, train_images=np.zeros((0, 8, 8), np.uint8), train_labels=np.zeros(0, np.int64))
    refused(9, "no samples")
    (project / "data.npz").unlink()
    refused(9, "data.npz", "doesn't exist")


def test_weights_that_are_not_numbers(project: Path, refused: Refused) -> None:
    state = torch.load(project / "model.pt", weights_only=True)
    state["3.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, project / "model.pt")
    refused(9, "3.weight", "not finite")


def test_a_project_file_with_mistakes(project: Path, refused: Refused) -> None:
    edit_config(project, "ratio = 0.5", "ratoi = 0.5")
    refused(2, "'ratoi'", "Did you mean 'ratio'")
    edit_config(project, "[model]", "[modell]")
    refused(2, "'modell'", "Did you mean 'model'")


def test_commands_that_need_data_or_a_bundle(project: Path, refused: Refused) -> None:
    edit_config(project, "[data]", "[recipe]\n#")
    (project / "prunec.toml").write_text('[model]\nfactory = "model:network"\ninput = [1, 8, 8]\n')
    refused(2, "[data]", arguments=("eval", "model.pt"))
    refused(9, "nothing", arguments=("profile", "nothing"))
    refused(9, "bundle", arguments=("verify", "model.pt"))
    refused(9, "nothing", "does not exist", arguments=("build", "nothing"))
    (project / "broken.onnx").write_bytes(b"no model")
    refused(9, "broken.onnx", arguments=("profile", "broken.onnx"))


def test_bugs_show_where_they_are_and_exit_1(prunec: Prunec, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("index out of thin air")

    monkeypatch.setattr("prunec.compiler.commands.compile_network.compile_request", broken)
    outcome = prunec(*COMPILE)
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "bug of prunec" in outcome.err
    assert outcome.last_line.startswith("FAILED | exit code 1 |")


def test_a_full_disk_is_no_bug(prunec: Prunec, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "model.onnx")

    monkeypatch.setattr("prunec.compiler.commands.compile_network.compile_request", full)
    outcome = prunec(*COMPILE)
    assert outcome.code == 10
    assert "No space left" in outcome.err
    assert "Traceback" not in outcome.err


def test_ctrl_c_exits_130_and_leaves_nothing_but_the_state_of_the_training(project: Path) -> None:
    before = {path.name for path in project.iterdir()} | {"__pycache__"}
    command = [sys.executable, "-m", "prunec.compiler", *COMPILE, "--epochs", "100000"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Shells ignore the signal in what they run in the background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "1/100000" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "--resume" in err
    assert out.strip().splitlines()[-1].startswith("FAILED | exit code 130 |")
    state = next(project.glob("*.bundle.state"))
    assert [path.name for path in state.iterdir()] == ["recover-0.state"]
    assert {path.name for path in project.iterdir()} | {"__pycache__"} == before | {state.name}


def test_a_name_in_a_card_does_not_control_the_terminal(prunec: Prunec, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f'name: "{name}\\e[2J\\x9b"\nfinetuning: {{epochs: 1}}\n')
    done = prunec("compare", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert done.code == 0
    assert r"a\x1b[2J\x9b" in done.out
    assert not {"\x1b", "\x9b"} & set(done.out + done.err)
