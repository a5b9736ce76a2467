"""Reading checkpoint files.

A ``state_dict`` and safetensors are read without running any code from them. A pickled module and a ``.pt2`` archive
can run whatever their author put there, so they are read only if the caller trusts them. A ``.pt2`` that lies in a
bundle, unchanged since its manifest was written, needs no such word where all of it is plain data: the manifest proves
that it is whole, not who made it.
"""

import re
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from prunec.compiler.bundle.manifest import MANIFEST_NAME, Manifest
from prunec.compiler.machine.file_hash import file_sha256
from prunec.compiler.machine.quiet_libraries import without_tracebacks
from prunec.passes.archives import check_regular, untrusted
from prunec.passes.errors import InputError
from prunec.passes.program import Program
from prunec.passes.tensors import check_stored

#: Messages of torch where weights_only met something that is no tensor or plain value.
_UNSAFE = re.compile(r"\bGLOBAL\b|unsupported (?:class|operand)", re.IGNORECASE)
_GLOBAL = re.compile(r"GLOBAL:? ([\w.]+)")
#: Plain data that training scripts store beside the weights: arguments, paths, accuracies.
_BESIDE = (
    *("argparse.Namespace", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
)
#: First bytes of zip archives and pickles.
_STARTS = (b"PK", b"\x80")


def is_exported(path: Path) -> bool:
    """Whether the file is an archive of torch.export; its name decides only where its content can't."""
    return _has_entry(path, "/archive_format", "serialized_exported_program.json") or (
        path.suffix == ".pt2" and not zipfile.is_zipfile(path)
    )


def check_sums(path: Path) -> None:
    """Raise `InputError` where an archive's checksums don't fit its entries; torch itself doesn't look at them.

    It can be told to write none: then not one of them fits, and that says nothing.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        broken = [name for name in names if not _is_whole(archive, name)]
    if broken and len(broken) < len(names):
        raise _corrupt(path, f"the checksum of {broken[0]} in it doesn't fit")


def _is_whole(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        with archive.open(name) as entry:
            while entry.read(1 << 20):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        return False
    return True


def read_exported(path: Path, trust: bool) -> tuple[Program, tuple[str, ...]]:
    """The program in an archive of torch.export, in eval mode, and notes on it.

    Raises:
        InputError: The file is no such archive, or isn't trusted, and is no unchanged file of a bundle, or not of plain
            data only.
    """
    if not zipfile.is_zipfile(path):
        raise _corrupt(path, "it is no zip archive, as .pt2 files are")
    notes = () if trust else (_vouched(path),)
    with without_tracebacks("torch.export"):
        return Program.load(path, trust=trust).eval(), notes


def _vouched(path: Path) -> str:
    """A note that an archive is as its bundle was written, or the error that says why it isn't loaded."""
    check_regular(path.parent / MANIFEST_NAME)
    try:
        entry = Manifest.model_validate_json((path.parent / MANIFEST_NAME).read_bytes()).files.get(path.name)
    except (OSError, ValueError):  # no manifest of a bundle
        entry = None
    if entry is None:
        raise untrusted(path, "a .pt2 archive: torch.export's loader may unpickle, and so run, what is in it")
    sha256 = file_sha256(path)
    if sha256 != entry.sha256:
        raise untrusted(
            path,
            f"a .pt2 archive that is not the one its bundle was written with: its sha256 is {sha256[:12]}..., "
            f"in {MANIFEST_NAME} {entry.sha256[:12]}...",
        )
    return f"{path} is as the {MANIFEST_NAME} beside it says; that proves that it is whole, not who made it."


class _Unread:
    """What stands for an object of `_BESIDE`: it takes whatever the file gives such an object, and keeps nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __new__(cls, *_: object) -> "_Unread":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def read_content(path: Path, trust: bool) -> object:
    """The content of a file, first in the way that runs no code.

    Raises:
        InputError: The file can't be read, or only by running code in it, which isn't trusted.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        with torch.serialization.safe_globals([(_Unread, name) for name in _BESIDE]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A file that can't be read raises nearly anything: EOFError, KeyError, RuntimeError, UnpicklingError.
        text = str(error)
        if not _UNSAFE.search(text) or not _start(path).startswith(_STARTS):
            raise _corrupt(path, _reason(path, error)) from error
        if not trust:
            match = _GLOBAL.search(text)
            what = f", {match[1]} for one" if match else ""
            raise untrusted(path, f"pickled objects other than tensors{what}") from error
        return _unpickle(path)
    check_stored(content, path)
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        InputError: The file can't be read.
    """
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise _corrupt(path, str(error)) from error


def _reason(path: Path, error: Exception) -> str:
    start = _start(path)
    if not start.startswith(_STARTS):
        return f"it starts with {start!r}, as no PyTorch file does"
    if zipfile.is_zipfile(path) and not _has_entry(path, "data.pkl"):
        return "it is a zip archive, but none that PyTorch wrote"
    said = str(error).partition(". ")[0].splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _has_entry(path: Path, *names: str) -> bool:
    """Whether the file is a zip archive, and the name of some entry in it ends like one of these."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(names) for name in archive.namelist())


def _unpickle(path: Path) -> object:
    """Unpickle a trusted file; modules beside it can be imported meanwhile."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise InputError(
            f"{path} can't be unpickled: {type(error).__name__}: {error}",
            hint="A pickled network needs the code of its class, under the module name it was saved with. "
            "A state_dict with a factory doesn't.",
        ) from error
    finally:
        sys.path.remove(folder)


def _corrupt(path: Path, why: str) -> InputError:
    return InputError(
        f"Checkpoint {path} can't be read: {why}.",
        hint="It may be truncated or corrupt, or no PyTorch checkpoint. Copy or save it again.",
    )
