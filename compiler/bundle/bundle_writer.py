"""Bundles: the folder that a compile writes, as a whole or not at all.

Everything is written into a temporary folder beside the destination (same file system) and renamed into place at the
end. An exception, or Ctrl-C, removes the temporary folder; an older bundle is replaced only at the last moment.
"""

import contextlib
import errno
import json
import secrets
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from prunec.compiler.bundle.bundle_reader import Bundle
from prunec.compiler.bundle.manifest import MANIFEST_NAME, describe_folder
from prunec.passes.errors import EnvironmentFailure, UsageError

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class BundleWriter:
    """Context manager that writes a bundle atomically: ``with BundleWriter(path) as folder: ...``.

    Entering creates the temporary folder, so that a destination that cannot be written is refused before any work.

    Args:
        path: The destination; its parent folder must exist.
        force: Whether an existing bundle is replaced. A file or folder that is no bundle never is.
        seed: Seed that the manifest records.

    Raises:
        UsageError: The destination exists and may not be replaced, or can be no folder's name.
        EnvironmentFailure: The destination cannot be written.
    """

    def __init__(self, path: Path, force: bool = False, *, seed: int | None = None) -> None:
        self.path, self.force, self.seed = _resolved(Path(path)), force, seed
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


@contextlib.contextmanager
def amend_bundle(bundle: Bundle) -> Iterator[Path]:
    """Change a bundle by working on a copy that replaces it at the end: yields the copy's folder.

    Args:
        bundle: An intact bundle (`intact_bundle`): the new manifest would hide what differs from the old one.

    Raises:
        EnvironmentFailure: The folder cannot be written.
    """
    with BundleWriter(bundle.folder, force=True, seed=bundle.manifest.seed) as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_NAME))
        yield folder


def _resolved(path: Path) -> Path:
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"Output {path} is a link that leads in a circle.", hint="Name another with -o.") from error
    if (text := str(resolved)) != text.encode(errors="replace").decode():
        raise UsageError(f"Output {text!a} is no text in UTF-8.", hint="Name another output with -o.")
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
