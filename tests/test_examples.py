"""The commands of the examples' READMEs, run as a new user would run them."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import commands

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"


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
