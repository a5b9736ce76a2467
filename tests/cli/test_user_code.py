"""Code of the project that misbehaves: whose fault it is, with the line, exit 9 and no traceback of prunec's."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from prunec.calibration.user_code import import_callable
from tests.cli.conftest import CONFIG, Outcome, Prunec

_HEAD = """
import os, sys, time
import torch
X, Y = torch.rand(300, 1, 8, 8), torch.arange(300) % 4
class Items:
    def __len__(self):
        return 300
    def __getitem__(self, i):
        return X[i], Y[i]
"""
#: Code of the data function -> words of the error.
_DATA = {
    "iterator that fails midway": (
        "def g():\n        yield X[:9], Y[:9]\n        raise RuntimeError('gone')\n    return g(), [(X, Y)]",
        "RuntimeError: gone",
    ),
    "sparse": ("return [(X.to_sparse(), Y)], [(X, Y)]", "a sparse tensor; expected a dense one"),
    "base exception": ("raise BaseException('odd')", "BaseException: odd"),
    "exit": ("sys.exit(0)", "SystemExit: 0"),
    "stop": ("raise StopIteration", "StopIteration"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "iterator given twice": ("g = iter([(X, Y)])\n    return g, g", "An iterator gives its batches once"),
    "not a number": ("return [(X / 0 * 0, Y)], [(X, Y)]", "not finite"),
    "other shapes": ("return [(X[:9], Y[:9]), (X[:9, :, :4], Y[:9])], [(X, Y)]", "don't fit together"),
    "empty batch": ("return [(X[:0], Y[:0])], [(X, Y)]", "holds no samples"),
    "no batch": ("return [], [(X, Y)]", "gave no batches"),
    "uneven": ("return [(X, Y[:9])], [(X, Y)]", "batch 0 has 300 inputs and 9 labels"),
    "one part": ("return X", "gave a Tensor: expected"),
    "four parts": ("return X, X, X, X", "gave 4 parts: expected"),
    "too long": ("Items.__len__ = lambda self: 10**12\n    return Items(), Items()", "it has 1000000000000 samples"),
    "wrong length": ("Items.__len__ = lambda self: 400\n    return Items(), Items()", "IndexError"),
    "length": ("Items.__len__ = lambda self: 1 / 0\n    return Items(), Items()", "ZeroDivisionError"),
    "item": ("Items.__getitem__ = lambda self, i: os._nothing\n    return Items(), Items()", "AttributeError"),
    "hanging": ("time.sleep(600)", "took longer than 2 s at"),
    "hanging item": (
        "Items.__getitem__ = lambda self, i: time.sleep(600)\n    return Items(), Items()",
        "took longer than 2 s at",
    ),
}


_NOISY = """
import os, sys
import numpy as np
import torch

def noise():
    print("noise")
    os.write(1, b"noise")
    os.system("echo noise")
    sys.__stdout__.write("noise")

noise()

def data():
    noise()
    os.chdir("elsewhere")
    with np.load("own.npz") as arrays:
        return [part(arrays, "train")], [part(arrays, "test")]

def part(arrays, name):
    images, labels = (torch.from_numpy(arrays[f"{name}_{what}"]) for what in ("images", "labels"))
    return images[:, None].float(), labels

class Loud(torch.nn.Linear):
    def forward(self, x):
        noise()
        return super().forward(x.flatten(1))

def network():
    noise()
    return Loud(64, 4)

def metric(outputs, labels):
    noise()
    return (outputs.argmax(1) == labels).float()
"""


def with_data(project: Path, body: str) -> None:
    (project / "load.py").write_text(f"{_HEAD}\ndef data():\n    {body}\n")
    text = CONFIG.replace('"npz:data.npz"', '"load:data"')
    (project / "prunec.toml").write_text(text)


def check_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 9, outcome.err
    assert all(word in outcome.err for word in words), outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.last_line.startswith("FAILED | exit code 9 | ")


@pytest.mark.parametrize("case", _DATA)
def test_data_that_misbehave(project: Path, prunec: Prunec, case: str) -> None:
    body, words = _DATA[case]
    with_data(project, body)
    outcome = prunec("compile", "model.pt", "--target", "cpu", "--no-engine", "--data-timeout", 2)
    check_refused(outcome, words, "load")
    if not words.startswith(("An iter", "not finite", "don't", "holds", "gave no", "batch", "a sparse")):
        assert "load.py" in outcome.err


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("lambda o, y: o.sum() * float('nan')", "gave nan for the dense network"),
        ("lambda o, y: sys.exit()", "SystemExit"),
        ("lambda o, y: o.mean(1)", "gave a tensor of shape (8,); expected a scalar"),
        ("lambda o, y: time.sleep(600)", "took longer than 2 s"),
    ],
)
def test_losses_that_misbehave_are_found_before_anything_is_pruned(
    project: Path, prunec: Prunec, body: str, words: str
) -> None:
    (project / "load.py").write_text(f"{_HEAD}\nloss = {body}\n")
    (project / "prunec.toml").write_text(CONFIG.replace("[data]", '[data]\nloss = "load:loss"'))
    outcome = prunec("compile", "model.pt", "--target", "cpu", "--no-engine", "--data-timeout", 2)
    check_refused(outcome, "The loss function", "load.py:", words)
    assert "prune-filters" not in outcome.err


def test_inputs_that_change_after_they_were_checked(project: Path, prunec: Prunec) -> None:
    body = "Items.__getitem__ = lambda self, i: (X[i] / (0 if seen.append(i) or len(seen) > 640 else 1), Y[i])\n"
    with_data(project, f"seen = []\n    {body}    return Items(), Items()")
    outcome = prunec("compile", "model.pt", "--target", "cpu", "--no-engine")
    check_refused(outcome, "values that are not finite", "when they were first read")


@pytest.mark.parametrize(
    ("late", "words"),
    [
        ("torch.tensor(77)", "have the label 77; when they were first read they had labels 0 to 3"),
        ("torch.tensor(-100)", "have the label -100"),
        ("torch.tensor(0.5)", "labels of shape () and type torch.float32"),
        ("torch.tensor([1, 2])", "but got [] at entry 0 and [2]"),
    ],
)
def test_labels_that_change_after_they_were_checked(project: Path, prunec: Prunec, late: str, words: str) -> None:
    body = f"Items.__getitem__ = lambda self, i: (X[i], {late} if seen.append(i) or len(seen) > 640 else Y[i])\n"
    with_data(project, f"seen = []\n    {body}    return Items(), Items()")
    outcome = prunec("compile", "model.pt", "--target", "cpu", "--no-engine")
    check_refused(outcome, words, "load.py:")
    assert "loss" not in outcome.err


_MAIN = (
    "from prunec.compiler.cli import ending; ending.PATIENCE_S = 0.5; from prunec.compiler.cli.main import main; main()"
)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)", ""),
        (
            "threading.Thread(target=time.sleep, args=(999,), name='mine').start()",
            "left running, and it is ended: mine",
        ),
        (
            "multiprocessing.get_context('fork').Process(target=time.sleep, args=(999,), name='own').start()",
            "ended: own",
        ),
    ],
)
def test_what_the_code_closes_or_leaves_running_holds_nothing_up(project: Path, body: str, words: str) -> None:
    with_data(project, f"import threading, multiprocessing\n    {body}\n    return [(X, Y)], [(X, Y)]")
    command = [sys.executable, "-c", _MAIN, "eval", "model.pt", "--json"]
    ended = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["test_images"] == 300
    assert "code of the project file" in ended.stderr
    assert words in ended.stderr


def test_code_that_prints_and_moves_leaves_the_output_alone(project: Path) -> None:
    """In a process of its own: code in C and children write to the descriptor, not to sys.stdout."""
    archive = np.load(project / "data.npz")
    np.savez(project / "own.npz", **archive)
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "own.npz").write_bytes((project / "own.npz").read_bytes())
    (project / "load.py").write_text(_NOISY)
    text = CONFIG.replace('"npz:data.npz"', '"load:data"').replace("[data]", '[data]\nmetric = "load:metric"')
    (project / "prunec.toml").write_text(text.replace("model:network", "load:network"))
    torch.save(torch.nn.Linear(64, 4).state_dict(), project / "model.pt")
    ended = subprocess.run(
        [sys.executable, "-c", "from prunec.compiler.cli.main import main; main()", "eval", "model.pt", "--json"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["test_images"] == 100
    assert ended.stderr.count("noise") >= 20


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ("", 9, "[model] accuracy states 0.9900, and the dense network's is another"),
        ("--allow-implausible", 0, "but: implausible test data: [model] accuracy states 0.9900"),
    ],
)
def test_a_stated_accuracy_is_checked(project: Path, prunec: Prunec, more: str, code: int, words: str) -> None:
    (project / "prunec.toml").write_text(CONFIG.replace("[model]", "[model]\naccuracy = 0.99"))
    arguments = ["compile", "model.pt", "--target", "cpu", "--no-engine", "--epochs", 0, *more.split()]
    outcome = prunec(*arguments)
    assert outcome.code == code, outcome.err
    assert words in outcome.out + outcome.err


def test_data_of_another_scale_are_refused(project: Path, prunec: Prunec) -> None:
    """The network of the project, trained for a moment on what its project file says."""
    torch.manual_seed(0)
    network = import_callable("model:network", project)()
    archive = np.load(project / "data.npz")
    inputs, labels = (torch.from_numpy(archive[f"train_{name}"]) for name in ("images", "labels"))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs[:, None].float() / 255), labels).backward()
        optimizer.step()
    torch.save(network.state_dict(), project / "model.pt")
    arguments = ("compile", "model.pt", "--target", "cpu", "--no-engine", "--epochs", 0)
    assert prunec(*arguments).code == 0
    (project / "prunec.toml").write_text(CONFIG.replace("[recipe", "mean = [90.0]\nstd = [60.0]\n[recipe", 1))
    check_refused(prunec(*arguments, "--force"), "data are implausible", "those of 0..255", "--allow-implausible")
    text = (project / "prunec.toml").read_text()
    (project / "prunec.toml").write_text(text.replace("[model]", "[model]\npretraining = {epochs = 0}", 1))
    outcome = prunec(*arguments, "--force")
    assert outcome.code == 0
    assert "plausibility: the network was never trained" in outcome.out
