"""The packages of the networks: installed one by one, without what they depend on, into folders of their own.

They'd ask for another torch, and for each other's older versions. What the environment has isn't installed again.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from filelock import FileLock

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
#: Names the folder that holds the folders of packages.
FOLDER_VARIABLE = "WILD_PACKAGES"
_DEFAULT = Path(__file__).parents[2] / "build" / "wild_packages"
#: Packages in a folder of their own: what finds torchaudio beside it, as transformers does, loads its compiled part.
_APART = {"torchaudio": "site_audio"}


def folder() -> Path:
    """The folder that holds ``site``, and ``site_audio`` for torchaudio alone."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT).absolute()


def sites(packages: Path) -> dict[str, Path]:
    """The folders of packages that a process may import from."""
    return {name: packages / name for name in ("site", *_APART.values())}


def pinned(requirements: Path = REQUIREMENTS) -> dict[str, str]:
    """Version by name of each package of a requirements file."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text().splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {_plain(name): version for name, version in pairs}


def install(packages: Path, names: Iterable[str] | None = None) -> None:
    """Install what of the pinned packages isn't there.

    Args:
        packages: folder that gets ``site`` and ``site_audio``.
        names: those to install; all by default.

    Raises:
        subprocess.CalledProcessError: pip can't install one.
    """
    for path in sites(packages).values():
        path.mkdir(parents=True, exist_ok=True)
    with FileLock(packages / "install.lock"):
        for requirement, target in list(_missing(packages, names)):
            _install(requirement, target)


def _missing(packages: Path, names: Iterable[str] | None) -> Iterator[tuple[str, Path]]:
    """What isn't there in the pinned version, with its folder; what the environment has is found first in any case."""
    versions = pinned()
    here = _installed(sys.path)
    there = {path: _installed([str(path)]) for path in sites(packages).values()}
    for name in map(_plain, versions if names is None else names):
        target = packages / _APART.get(name, "site")
        if name not in here and there[target].get(name) != versions[name]:
            yield f"{name}=={versions[name]}", target


def _installed(paths: list[str]) -> dict[str, str]:
    """Version by name of the packages in some folders."""
    return {_plain(found.name): found.version for found in metadata.distributions(path=paths)}


def _install(requirement: str, target: Path) -> None:
    print(f"Installing {requirement}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(target)]
    # A few are built here, by the environment's setuptools; one looks for torch when it is built.
    subprocess.run([*command, "--no-build-isolation", requirement], check=True)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
