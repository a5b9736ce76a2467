"""Bundles: the folder that a compile writes, as a whole or not at all.

Everything is written into a temporary folder beside the destination (same file system) and renamed into
place at the end. An exception, or Ctrl-C, removes the temporary folder; an older bundle is replaced only at
the last moment.
"""

import contextlib
import errno
import json
import secrets
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from prunec.compiler.manifest import MANIFEST_NAME, Manifest, describe_folder, file_names, file_sha256
from prunec.compiler.report import Report
from prunec.passes.errors import EnvironmentFailure, InputError, UsageError

__all__ = ["Bundle", "BundleWriter", "Manifest", "amend_bundle", "bundle_name", "read_bundle"]

REPORT_NAME = "report.json"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
Document = TypeVar("Document", bound=BaseModel)


def bundle_name(checkpoint_path: Path, target_text: str) -> str:
    """``<checkpoint stem>.<target>.bundle``, with ``:`` as ``_``."""
    return f"{checkpoint_path.stem}.{target_text}.bundle".replace(":", "_")


class BundleWriter:
    """Context manager that writes a bundle atomically: ``with BundleWriter(path) as folder: ...``.

    Entering creates the temporary folder, so that a destination that cannot be written is found before any
    work.

    Args:
        path: the destination; its parent folder must exist.
        force: replace an existing bundle. A file or folder that is no bundle is never replaced.
        seed: recorded in the manifest.

    Raises:
        UsageError: the destination exists and may not be replaced, or can be no folder's name.
        EnvironmentFailure: it cannot be written.
    """

    def __init__(self, path: Path, force: bool = False, *, seed: int | None = None) -> None:
        self.path = _resolved(Path(path))
        self.force = force
        self.seed = seed
        self._folder = _sibling(self.path, "tmp")

    def __enter__(self) -> Path:
        _check_replaceable(self.path, self.force)
        try:
            self._folder.mkdir()
        except OSError as error:
            raise unwritable(self.path, error) from error
        return self._folder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
            elif isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise unwritable(self.path, error) from error
        finally:
            # Gone already after a commit; elsewhere a failed removal must not hide the error that led here.
            shutil.rmtree(self._folder, ignore_errors=True)

    def _commit(self) -> None:
        _check_replaceable(self.path, self.force)  # another run may have finished meanwhile
        try:
            manifest = describe_folder(self._folder, self.seed)
            (self._folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
            _swap_in(self._folder, self.path, replace=self.force)
        except OSError as error:
            raise unwritable(self.path, error) from error


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk that can be read; whether its files are intact is `check_hashes`'s question."""

    folder: Path
    manifest: Manifest
    report: Report

    def check_hashes(self) -> list[str]:
        """Problems in words: files that are missing, changed or unexpected; empty where all is well."""
        present = set(file_names(self.folder))
        expected = self.manifest.files
        problems = [f"{name}: missing" for name in expected if name not in present]
        problems += [f"{name}: unexpected, not in {MANIFEST_NAME}" for name in sorted(present - expected.keys())]
        for name in (name for name in expected if name in present):
            path, entry = self.folder / name, expected[name]
            try:
                size, found = path.stat().st_size, file_sha256(path)
            except OSError as error:
                problems.append(f"{name}: cannot be read, {error.strerror or error}")
                continue
            if size != entry.bytes:
                problems.append(f"{name}: changed, {size} bytes where the manifest says {entry.bytes}")
            elif found != entry.sha256:
                problems.append(f"{name}: changed, sha256 {found[:12]}... where it says {entry.sha256[:12]}...")
        return problems


def read_bundle(path: Path) -> Bundle:
    """Open a bundle.

    Raises:
        InputError: no such folder, not a bundle, or its manifest or report is corrupt.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is a file, not a bundle folder" if path.exists() else "does not exist"
        raise InputError(f"Bundle {path} {what}.", hint="Give the folder that `prunec compile` wrote.")
    if not (path / MANIFEST_NAME).is_file():
        raise InputError(f"{path} is not a bundle: it has no {MANIFEST_NAME}.")
    manifest = _parse(path / MANIFEST_NAME, Manifest)
    return Bundle(path, manifest, _parse(path / REPORT_NAME, Report))


@contextlib.contextmanager
def amend_bundle(path: Path) -> Iterator[Path]:
    """Change a bundle by working on a copy that replaces it at the end: yields the copy's folder.

    Raises:
        InputError: not a bundle, or its files differ from its manifest, which a new manifest would hide.
        EnvironmentFailure: it cannot be written.
    """
    bundle = read_bundle(path)
    if problems := bundle.check_hashes():
        raise InputError(
            f"Bundle {path} differs from its manifest: {'; '.join(problems)}.",
            hint="Compile it again, or restore the files.",
        )
    with BundleWriter(bundle.folder, force=True, seed=bundle.manifest.seed) as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_NAME))
        yield folder


def _parse(path: Path, model: type[Document]) -> Document:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"Bundle file {path} cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        first = min(error.errors(), key=lambda problem: problem["loc"] != ("schema",))
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise InputError(
            f"Bundle file {path} is corrupt or of another version: {where}: {first['msg']}.",
            hint="Compile the bundle again.",
        ) from error


def _resolved(path: Path) -> Path:
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"Output {path} is a link that leads in a circle.", hint="Name another with -o.") from error
    if not resolved.name:
        raise UsageError(f"Output {path} is the root of the file system.", hint="Name another output with -o.")
    return resolved


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{suffix}")


def _check_replaceable(path: Path, force: bool) -> None:
    try:
        if not path.exists():
            return
        ours = _is_bundle(path)
    except OSError as error:
        raise unwritable(path, error) from error
    if not ours:
        raise UsageError(
            f"Output {path} exists and is not a prunec bundle; it is not replaced.",
            hint="Name another output with -o, or remove it yourself.",
        )
    if not force:
        raise _exists(path)


def _is_bundle(path: Path) -> bool:
    """Whether the folder has a manifest of ours. A corrupt one is left for the user to remove."""
    manifest = path / MANIFEST_NAME
    if not manifest.is_file():
        return False
    try:
        document = json.loads(manifest.read_bytes())
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("tool") == "prunec"


def _swap_in(new: Path, path: Path, *, replace: bool) -> None:
    """Rename `new` to `path`; an older bundle steps aside and comes back if that fails or is interrupted."""
    if not replace or not path.exists():
        try:
            new.rename(path)  # one system call, which fails where another run has been faster
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise _exists(path) from error
            raise
        return
    aside = _sibling(path, "old")
    try:
        path.rename(aside)
        new.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)  # the new bundle is in place: a leftover is no failure


def _exists(path: Path) -> UsageError:
    return UsageError(f"Output {path} exists already.", hint="Replace it with --force, or name another output with -o.")


def unwritable(path: Path, error: OSError) -> EnvironmentFailure:
    if not path.parent.is_dir():
        return EnvironmentFailure(
            f"Output {path} cannot be written: there is no folder {path.parent}.",
            hint=f"Create it: mkdir -p {shlex.quote(str(path.parent))}",
        )
    return EnvironmentFailure(
        f"Output {path} cannot be written: {error.strerror or error}.",
        hint="Check the permissions of its folder and the free space, or name another output with -o.",
    )
