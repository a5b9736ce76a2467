"""The commands of the examples' READMEs, run as a new user would run them."""

import csv
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prunec.compiler.project.config import load_config
from tests.test_docs import commands

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"


@pytest.mark.parametrize("name", ["prunec.toml", "full.toml"])
def test_the_project_files_tell_the_training_that_the_log_shows(name: str) -> None:
    told = load_config(EXAMPLE / name).model.pretraining
    assert told is not None
    with (EXAMPLE / "model.log.csv").open(newline="") as file:
        logged = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert [rate for _, rate in told.learning_rates().trace(told.epochs)] == pytest.approx(logged, rel=1e-5)


@pytest.mark.long
def test_every_command_of_the_readme_passes(tmp_path: Path) -> None:
    folder = tmp_path / "fashion_mnist"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.bundle", "__pycache__"))
    listed = commands((EXAMPLE / "README.md").read_text())
    assert {arguments[0] for arguments in listed} >= {"compile", "inspect", "eval", "verify"}
    for arguments in listed:
        # As many epochs as the recipe has take minutes; that they recover is what `make demo` checks.
        epochs = ["--epochs", "2"] if arguments[0] == "compile" else []
        command = [sys.executable, "-m", "prunec.compiler", *arguments, *epochs]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{shlex.join(arguments)}\n{run.stdout}\n{run.stderr}"
    assert (folder / "model.cpu.bundle" / "report.html").is_file()
    assert (folder / "model.a100-2_4-fp16.bundle" / "engine.rtx").is_file()
