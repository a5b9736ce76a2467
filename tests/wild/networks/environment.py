"""What must happen before a package of the catalogue is imported.

The packages lie in folders of their own, which come last in the search path, so that the environment's torch, NumPy
and timm win: ``site``, and ``site_audio`` for torchaudio alone, since what finds torchaudio beside it, as transformers
does, tries to load its compiled part, which doesn't fit this torch.
"""

import atexit
import importlib
import importlib.machinery
import os
import re
import shutil
import sys
import tempfile
import types
from functools import cache
from pathlib import Path

#: Names the folder that holds ``site`` and ``site_audio``; without it that's ``.wild`` in the checkout.
FOLDER_VARIABLE = "WILD_PACKAGES"
_CHECKOUT = Path(__file__).resolve().parents[3]


def folder() -> Path:
    """The folder that holds ``site`` and ``site_audio``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or _CHECKOUT / ".wild").absolute()


@cache
def prepare() -> None:
    """Make the packages of ``site`` importable, and keep them from the network and the home folder.

    Raises:
        FileNotFoundError: The packages aren't installed.
    """
    _search("site")
    scratch = _scratch()
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_HOME=scratch,
        TORCH_HOME=scratch,
        MPLCONFIGDIR=scratch,
        YOLO_CONFIG_DIR=scratch,
        YOLO_OFFLINE="true",
        YOLO_AUTOINSTALL="false",
        YOLO_VERBOSE="false",
        NO_ALBUMENTATIONS_UPDATE="1",
    )
    from tests.zoo import shim  # noqa: F401 - torchvision is imported after it

    sys.modules.setdefault("pkg_resources", _pkg_resources())


def torchaudio_module(name: str) -> types.ModuleType:
    """A module of torchaudio's networks, which are Python only; what torchaudio itself runs at import isn't run.

    A process that has called this must not import transformers afterwards: it would find torchaudio and fail.

    Args:
        name: below ``torchaudio.models``.
    """
    if "torchaudio" not in sys.modules:
        root = _search("site_audio") / "torchaudio"
        for package, path in (("torchaudio", root), ("torchaudio.models", root / "models")):
            sys.modules[package] = _package_without_init(package, path)
    return importlib.import_module(f"torchaudio.models.{name}")


def _scratch() -> str:
    """A folder for what the packages write, deleted when the process ends."""
    scratch = tempfile.mkdtemp(prefix="wild-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return scratch


def _search(name: str) -> Path:
    path = folder() / name
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} doesn't exist: install the packages of tests/wild/requirements.txt as it says, "
            f"or name the folder that holds {name} in {FOLDER_VARIABLE}."
        )
    sys.path.append(str(path))
    return path


def _package_without_init(name: str, path: Path) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
    return module


def _pkg_resources() -> types.ModuleType:
    """What yolov5 takes of pkg_resources, which setuptools no longer brings: versions that can be compared."""
    module = types.ModuleType("pkg_resources")
    module.parse_version = lambda version: tuple(map(int, re.findall(r"\d+", version.split("+")[0])))  # type: ignore[attr-defined]
    return module
