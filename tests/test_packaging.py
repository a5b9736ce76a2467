"""What is installed: the wheel holds the four packages under one name, and nothing else."""

import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("calibration", "compiler", "passes", "runtime")


def package_files() -> set[str]:
    """Every file that must be in the wheel, by its path there."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    kept = (path for path in found if "__pycache__" not in path.parts)
    return {f"prunec/{path.relative_to(ROOT).as_posix()}" for path in kept}


def pyproject() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed_and_typed() -> None:
    listed = pyproject()["tool"]["setuptools"]["packages"]  # type: ignore[index]
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    assert sorted(listed) == sorted("prunec." + ".".join(folder.relative_to(ROOT).parts) for folder in folders)
    for folder in folders:
        assert (folder / "py.typed").exists(), folder


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    project = pyproject()["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]  # type: ignore[index]
    names = {requirement.split(">=")[0].lower().replace("_", "-") for requirement in wanted}
    assert names <= pinned
    assert not any("+" in line for line in lines if "==" in line)  # local builds are found nowhere else


@pytest.mark.long
def test_wheel_contents(tmp_path: Path) -> None:
    # From a copy, since a build leaves folders behind.
    source = tmp_path / "source"
    files = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    files += [ROOT / name.removeprefix("prunec/") for name in package_files()]
    for path in files:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (source / "tests").mkdir()
    (source / "tests" / "test_nothing.py").touch()
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        script = archive.read(entry_points).decode()
        licensed = any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert names == package_files()
    assert "prunec = prunec.compiler.cli.main:main" in script
    assert licensed


def test_the_script_of_an_installed_prunec_is_there() -> None:
    try:
        distribution = metadata.distribution("prunec")
    except metadata.PackageNotFoundError:
        pytest.skip("prunec is imported from a checkout here, not installed")
    (script,) = distribution.entry_points.select(group="console_scripts", name="prunec")
    assert callable(script.load())


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
