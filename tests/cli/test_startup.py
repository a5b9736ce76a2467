"""`prunec --help` stays as fast as a bare Typer app, since nothing slow is imported for it."""

import subprocess
import sys

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


def test_a_wrong_target_is_told_before_torch_is_loaded() -> None:
    code = (
        "import sys; from prunec.compiler.cli.main import run; "
        "assert run(['compile', 'x.pt', '--target', 'a1000']) == 2; assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_help_is_as_fast_as_a_bare_typer_app() -> None:
    result = measure(runs=7)
    assert result.ratio < LIMIT, result
