"""Recipes on the command line: what would run, where the bundle goes, and which layers are 2:4."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Prunec

WORDS = "2:4 in 2 of 3 layers (0 could be, 1 cannot be)"


def test_a_dry_run_tells_the_recipe_and_does_nothing(project: Path, prunec: Prunec) -> None:
    before = sorted(project.iterdir())
    outcome = prunec("compile", "model.pt", "-t", "a100-2:4", "--epochs", 2, "--dry-run")
    assert outcome.code == 0, outcome.err
    rows = {tuple(line.split()[:2]): line.split() for line in outcome.out.splitlines() if line.startswith("  ")}
    assert rows["recover", "epochs"][-2:] == ["2", "--epochs"]
    assert rows["prune-filters", "round_to"][2:5] == ["4", "prunec.toml", "line"]
    assert rows["sparsify", "pattern"][-1] == "default"
    assert rows["permute", "runs"][-1] == "target"
    assert rows["output", "model.a100-2_4-fp16.bundle"][-1] == "default"
    assert "Pipeline: prune-filters{ratio=0.5,round_to=4} permute sparsify recover{" in outcome.out
    assert sorted(project.iterdir()) == before


def test_a_dry_run_needs_neither_torch_nor_the_project_s_code(project: Path) -> None:
    (project / "model.py").write_text("raise SystemExit(5)")
    code = (
        "import sys; from prunec.compiler.cli.main import run; "
        "code = run(['compile', 'model.pt', '-t', 'cpu', '--dry-run']); "
        "assert code == 0 and 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_mistakes_in_the_list_of_steps(project: Path, prunec: Prunec) -> None:
    config = project / "prunec.toml"
    config.write_text(config.read_text().replace("[recipe.prune", "[recipe]\nsteps = ['recover']\n[recipe.prune"))
    outcome = prunec("compile", "model.pt", "-t", "cpu")
    assert outcome.code == 2
    assert "[recipe.prune-filters] is a table of a step that doesn't run" in outcome.err


def test_the_bundle_lies_beside_the_checkpoint_and_filters_are_pruned_in_any_case(
    project: Path, prunec: Prunec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    config = project / "prunec.toml"
    head = config.read_text().split("[recipe")[0].split("[data]")[0]
    config.write_text(f"{head}\n[recipe.sparsify]\nignore = ['fc']\n".replace("ignore = ['fc']", "samples = 100"))
    outcome = prunec("compile", project / "model.pt", "-t", "cpu")
    assert outcome.code == 0, outcome.err
    assert (project / "model.cpu.bundle" / "report.json").is_file()
    assert list(elsewhere.iterdir()) == []
    (line,) = [line for line in outcome.err.splitlines() if "by default" in line]
    assert "has no [recipe.prune-filters]: filters are pruned by default (speedup=2.0)" in line
    # The summary of a dense target tells what its layers could be, in the words of inspect.
    assert "2:4 in 0 of 3 layers (2 could be, 1 cannot be)" in outcome.last_line
    (summary,) = [line for line in outcome.out.splitlines() if line.startswith("2:4 layers")]
    assert summary.split(maxsplit=2)[2] == "0 of 3 (2 could be, 1 cannot be)"
    assert "2:4 in 0 of 3 layers (2 could be, 1 cannot be)" in prunec("inspect", project / "model.pt").out


@pytest.mark.parametrize("command", [("inspect",), ("verify",), ("profile", "--runs", "2")])
def test_every_command_says_the_same_of_two_four(bundle: Path, prunec: Prunec, command: tuple[str, ...]) -> None:
    outcome = prunec(command[0], bundle, *command[1:])
    assert outcome.code == 0, outcome.err
    assert WORDS in outcome.out
    if command[0] != "verify":
        assert "is 2:4" in outcome.out


def test_the_report_says_the_same_of_two_four(bundle: Path) -> None:
    page = (bundle / "report.html").read_text()
    assert "cannot be 2:4: 1 input channels are no multiple of 4" in page
    assert page.count("is 2:4</td>") == 2
    assert "0 could be, 1 cannot be" in page
