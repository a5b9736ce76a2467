"""The packages of the networks: installed one by one, without what they depend on, into folders of their own.

They'd ask for another torch, and for each other's older versions. What the environment has isn't installed again.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from filelock import FileLock

_HERE = Path(__file__).parent
#: Requirements by the folder that gets them.
REQUIREMENTS = {"site": _HERE / "requirements.txt", "site_audio": _HERE / "requirements-torchaudio.txt"}


def pinned(requirements: Path) -> dict[str, str]:
    """Version by name of each package of a requirements file."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text().splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {_plain(name): version for name, version in pairs}


def install(packages: Path, names: Iterable[str] | None = None) -> None:
    """Install what of the pinned packages isn't there.

    Args:
        packages: folder that gets ``site``, and ``site_audio``, as `tests.wild.networks.environment` wants them.
        names: those to install; all by default.

    Raises:
        subprocess.CalledProcessError: pip can't install one.
    """
    chosen = None if names is None else set(map(_plain, names))
    packages.mkdir(parents=True, exist_ok=True)
    with FileLock(packages / "install.lock"):
        for folder, requirements in REQUIREMENTS.items():
            (packages / folder).mkdir(exist_ok=True)
            for requirement in list(_missing(packages / folder, pinned(requirements), chosen)):
                _install(requirement, packages / folder)


def _missing(target: Path, versions: Mapping[str, str], chosen: set[str] | None) -> Iterator[str]:
    """What isn't there in the pinned version; what the environment has is found first in any case."""
    here, there = _installed(sys.path), _installed([str(target)])
    for name, version in versions.items():
        if (chosen is None or name in chosen) and name not in here and there.get(name) != version:
            yield f"{name}=={version}"


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
