"""Whether the files and folders of the data are there, told before anything slow is loaded. Imports no torch."""

from pathlib import Path

from prunec.calibration.config import SOURCES, DataConfig
from prunec.passes.errors import InputError


def check_there(source: str, folder: Path) -> None:
    """Raise `InputError` where a source names a file or folder that isn't there.

    Args:
        source: "npz:PATH", "idx:FOLDER", "imagefolder:FOLDER" or "module:callable".
        folder: Folder that paths are relative to.
    """
    kind, _, rest = source.partition(":")
    if kind not in SOURCES:
        return
    path = folder / rest
    if path.is_file() if kind == "npz" else path.is_dir():
        return
    wanted = "file" if kind == "npz" else "folder"
    what = "is a folder" if path.is_dir() else f"is no {wanted}" if path.exists() else "doesn't exist"
    raise InputError(f"The data {wanted} {path} {what}.", hint="Paths are relative to the project file.")


def check_sources(config: DataConfig, folder: Path) -> None:
    """Raise `InputError` where the training or the test data aren't there."""
    for source in (config.train, config.test):
        check_there(source, folder)
