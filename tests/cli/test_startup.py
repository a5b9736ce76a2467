"""`prunec --help` stays as fast as a bare Typer app, since nothing slow is imported for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli_startup import LIMIT, measure

HEAVY = ("torch", "onnx", "numpy", "onnxruntime", "jinja2", "plotly")


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], (*HEAVY, "pydantic")),
        (["--version"], (*HEAVY, "pydantic")),
        # Typer itself loads pydantic to read the options of a command.
        (["compile", "--help"], HEAVY),
        (["targets"], HEAVY),
    ],
)
def test_nothing_heavy_is_imported(arguments: list[str], heavy: tuple[str, ...]) -> None:
    code = (
        "import sys; from prunec.compiler.cli.main import run; "
        f"code = run({arguments!r}); found = [m for m in {heavy!r} if m in sys.modules]; "
        "assert code == 0, code; assert not found, found"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--target", "a1000"],
        ["--target", "cpu", "--gate", "nope{limit=1}"],
        ["--target", "cpu", "--gate", "min_speedup{limit=-1}"],
        ["--target", "cpu", "--min-speedup", "-1"],
        ["--target", "cpu", "--print-after", "nope"],
        ["--target", "cpu", "--engine", "nope"],
        ["--target", "cpu", "--pipeline", "sparsify prune-filters{ratio=0.3}"],
        ["--target", "cpu", "--pipeline", "permute{seed=-1}"],
    ],
)
def test_what_cannot_be_asked_for_is_told_before_torch_is_loaded(arguments: list[str]) -> None:
    code = (
        "import sys; from prunec.compiler.cli.main import run; "
        f"assert run({['compile', 'x.pt', *arguments]}) == 2; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_line_that_is_no_utf8_is_told_without_a_crash(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prunec.compiler"]
    for arguments in ([b"compile", b"b\xff.pt", b"-t", b"cpu"], [b"verify", b"b\xff"], [b"eval", b"b\xff", b"--json"]):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (9, False), done.stderr
        assert rb"b\udcff" in done.stderr


def test_help_is_as_fast_as_a_bare_typer_app() -> None:
    result = measure(runs=7)
    assert result.ratio < LIMIT, result
