"""`prunec --help` stays as fast as a bare Typer app, since nothing slow is imported for it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.cli_startup import LIMIT, measure
from prunec.compiler.cli.main import run
from tests.cli.forks import Forks, forks

HEAVY = ("torch", "onnx", "numpy", "onnxruntime", "jinja2", "plotly")


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks(tmp_path_factory.mktemp("forks")) as server:
        yield server


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
        ["--target", "cpu", "--dims", "foo=1:2:3"],
        ["--target", "cpu", "--also-for", "nonsense"],
        ["--target", "a100", "--also-for", "nonsense"],
        ["--target", "a100", "--also-for", "h100"],
        ["--target", "cpu", "--timing-cache", "cache"],
        ["--target", "a100", "--dims", "batch=8:8:8"],
        ["--target", "a100-int8", "--pipeline", "prune-filters{ratio=0.3}"],
        ["--target", "cpu", "--pipeline", "prune-filters{ratio=0.3} calibrate"],
        ["--target", "cpu-int8", "--pipeline", "calibrate{method=median}"],
        ["--target", "cpu", "--pipeline", "sparsify prune-filters{ratio=0.3}"],
        ["--target", "cpu", "--pipeline", "permute{seed=-1}"],
    ],
)
def test_what_cannot_be_asked_for_is_told_before_torch_is_loaded(
    arguments: list[str], light: Forks, tmp_path: Path
) -> None:
    code = (
        "import sys; from prunec.compiler.cli.main import run; "
        f"assert run({['compile', 'x.pt', *arguments]}) == 2; assert 'torch' not in sys.modules"
    )
    done = light.run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


TOML = """
[model]
factory = "nowhere:network"
input = [1, 8, 8]
[recipe.prune-filters]
ratio = 0.5
"""


@pytest.mark.parametrize(
    ("change", "arguments", "code", "words"),
    [
        ("speed = 3", [], 2, "key 'speed'|no option|speed"),
        ("[recipe.recover]\nepochs = 2\nschedule = 'cosin:1'", [], 2, "cosin"),
        ("[recipe.recover]\nepochs = 2", [], 2, "there is no training data"),
        ("", ["-t", "a100-2:4", "--pipeline", "prune-filters{ratio=0.5}"], 2, "no sparsify"),
        ("", ["--control", "nope"], 2, "no control arm"),
        ("", ["--speedup", "2", "--ratio", "0.5"], 2, "exclude each other"),
        ("", ["-o", "nowhere/m.bundle"], 10, "mkdir -p"),
        ("", ["-o", "folder"], 2, "not a prunec bundle"),
        ("", ["-o", "held"], 10, "Another run writes"),
        ("link", [], 2, "model.cpu.bundle is a link"),
        ("", ["-o", "/proc/m.bundle"], 10, "cannot be written"),
        ("gone", [], 9, "doesn't exist"),
        ('[data]\ntrain = "npz:data.npz"\ntest = "npz:data.npz"', [], 9, "data file .*data.npz doesn't exist"),
        ('[data]\ntrain = "idx:model.pt"\ntest = "idx:folder"', [], 9, "model.pt is no folder"),
        ('[data]\ntrain = "imagefolder:folder"\ntest = "imagefolder:folder"\ncrop = 99999', [], 2, "crop must be"),
        ("", ["-t", "a100", "--timing-cache", "/proc/x"], 10, "--timing-cache /proc/x cannot be written"),
        ("", ["-t", "a100", "--timing-cache", "nowhere/x"], 10, "mkdir -p nowhere"),
        ("", ["-t", "a100", "--timing-cache", "folder"], 2, "is a folder"),
        ("", ["--tensorboard", "/proc/nope/x"], 10, "nothing can be made in /proc"),
        ("", ["--max-drop-points", "1"], 5, "max_drop_points can't pass: .*there are none"),
        ("", ["--gate", "max_drop_points{limit=1}"], 5, "max_drop_points can't pass"),
        ("", ["--require-sparse", "80%"], 7, "no step of the pipeline makes a layer 2:4"),
        ("", ["--no-engine", "--gate", "engine{limit=1}"], 4, "--no-engine leaves the engine out"),
        ("", ["-t", "a100", "--no-engine", "--min-speedup", "2"], 6, "--no-engine leaves the engine out"),
        ("", ["-t", "a100", "--no-engine", "--gate", "not_slower{limit=1}"], 6, "--no-engine leaves the engine out"),
        ("", ["--tensorboard", "model.pt"], 2, "model.pt is no folder"),
        ("", ["--tensorboard", "model.pt/curves"], 2, "model.pt is no folder"),
    ],
)
def test_what_needs_neither_network_nor_data_is_told_before_torch_is_loaded(
    light: Forks, tmp_path: Path, change: str, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "folder").mkdir()
    (tmp_path / "prunec.toml").write_text(TOML + (change if change not in ("gone", "link") else ""))
    if change == "gone":
        (tmp_path / "model.pt").unlink()
    if change == "link":
        (tmp_path / "model.cpu.bundle").symlink_to(tmp_path / "folder/elsewhere")
    command = ["compile", "model.pt", "-t", "cpu", *arguments]
    # A dry run refuses the same, but for the lock, which it doesn't take.
    commands = [command, [*command, "--dry-run"]] if "held" not in arguments else [command]
    script = (
        "import sys; from pathlib import Path; from prunec.compiler.cli.main import run\n"
        "from prunec.compiler.bundle.bundle_writer import BundleWriter\n"
        "with BundleWriter(Path('held')):\n"
        f"    assert [run(command) for command in {commands}] == {[code] * len(commands)}\n"
        "assert 'torch' not in sys.modules"
    )
    done = light.run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(words, done.stderr)) >= len(commands), done.stderr
    left = {"model.pt", "folder", "prunec.toml", "held"} - ({"model.pt"} if change == "gone" else set())
    assert {path.name for path in tmp_path.iterdir()} == left | ({"model.cpu.bundle"} if change == "link" else set())
    assert not any((tmp_path / "folder").iterdir())


def test_a_full_disk_is_told_before_torch_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "prunec.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    assert run(["compile", "model.pt", "-t", "cpu"]) == 10
    assert not list(tmp_path.glob("*.bundle"))


def test_a_command_line_that_is_no_utf8_is_told_without_a_crash(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prunec.compiler"]
    for arguments in ([b"compile", b"b\xff.pt", b"-t", b"cpu"], [b"verify", b"b\xff"], [b"eval", b"b\xff", b"--json"]):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (9, False), done.stderr
        assert rb"b\udcff" in done.stderr


def test_help_is_as_fast_as_a_bare_typer_app() -> None:
    result = measure(runs=15)
    assert result.ratio < LIMIT, result
