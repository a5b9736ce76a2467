"""Bundles: the folder that a compile writes, as a whole or not at all.

Everything is written into a hidden folder beside the destination (same file system), which takes its place at the end;
an older bundle is replaced only then, and one of the two is there at every moment. A lock keeps other runs away; what
one that was killed has left behind is removed by the next. Imports no torch, so that an output that can't be written is
refused at once.
"""

import contextlib
import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from prunec.compiler.bundle.bundle_names import STATE_NAME, STORED_COSTS, STORED_LAYERS, STORED_PLAN
from prunec.compiler.bundle.manifest import MANIFEST_NAME, describe_folder
from prunec.compiler.bundle.output_lock import OutputLock
from prunec.compiler.bundle.swap import exchange, restore, written_through
from prunec.compiler.machine.writable import try_folder
from prunec.passes.errors import EnvironmentFailure, UsageError
from prunec.passes.interruption import removed_at_the_latest, stop_if_asked
from prunec.passes.whole_file import unwritable

if TYPE_CHECKING:
    from prunec.compiler.bundle.bundle_reader import Bundle

#: Bytes that are let go before a run cleans up behind itself, which takes some where there are none left.
_RESERVE = 8 << 20
_TRIES = 10
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class BundleWriter:
    """Context manager that writes a bundle atomically: ``with BundleWriter(path) as folder: ...``.

    Entering takes the lock of the output and creates the hidden folder, so that a destination that cannot be written is
    refused before any work.

    Attributes:
        path: The destination, resolved.
        folder: Folder for the bundle's files; exists within the context.
        scratch: Folder for what the bundle is made of and doesn't hold; exists within the context.
        state_folder: Folder for states of trainings under way, made by whoever writes one.

    Args:
        path: The destination; its parent folder must exist.
        force: Whether an existing bundle is replaced. A file or folder that is no bundle never is.
        seed: Seed that the manifest records.
        ends_training: Whether the states of its trainings are of no use once the bundle is complete.

    Raises:
        UsageError: The destination exists and may not be replaced, or can be no folder's name.
        EnvironmentFailure: The destination cannot be written, or another run writes it.
    """

    def __init__(
        self, path: Path, force: bool = False, *, seed: int | None = None, ends_training: bool = False
    ) -> None:
        self.path, self.force, self.seed, self.ends_training = _resolved(Path(path)), force, seed, ends_training
        self._work, self._aside = _hidden(self.path, "tmp"), _hidden(self.path, "old")
        self.folder, self.scratch = self._work / "bundle", self._work / "scratch"
        self.state_folder = self.path.with_name(f"{self.path.name}.state")
        self._held = ExitStack()
        self._reserve = bytearray()

    def check(self) -> None:
        """Refuse a destination that entering would refuse, other runs aside; takes no lock and leaves nothing there."""
        try:
            try_folder(self.path.parent)
        except OSError as error:
            raise unwritable(self.path, error) from error
        _check_replaceable(self.path, self.force)

    def __enter__(self) -> Path:
        try:
            with ExitStack() as stack:
                lock = OutputLock(_hidden(self.path, "lock"), str(self.path))
                lock.acquire()
                stack.callback(lock.release)
                stack.enter_context(removed_at_the_latest(lock.release))
                self._remove_leftovers()
                _check_replaceable(self.path, self.force)
                stack.callback(shutil.rmtree, self._work, ignore_errors=True)
                stack.enter_context(removed_at_the_latest(self._remove_work))
                self.folder.mkdir(parents=True)
                self.scratch.mkdir()
                self._reserve = bytearray(_RESERVE)
                self._held = stack.pop_all()
        except OSError as error:
            raise unwritable(self.path, error) from error
        return self.folder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reserve = bytearray()
        with self._held:  # a failed removal of the hidden folder must not hide the error that led here
            if error is None:
                self._commit()
            elif isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise unwritable(self.path, error) from error

    def _remove_leftovers(self) -> None:
        """Remove what a run that was killed has left; its lock is gone, or this one wouldn't have it."""
        for leftover in (self._aside, self._work):
            if leftover.exists() and not leftover.is_symlink() and not leftover.is_dir():
                raise EnvironmentFailure(
                    f"Output {self.path} cannot be written: {leftover} is in the way, and no folder of prunec's.",
                    hint="Remove or rename it, or name another output with -o.",
                )
        if not self._aside.is_symlink() and _is_bundle(self._aside):
            restore(self.path, self._aside)
        _remove(self._aside)
        self._remove_work()
        for unfinished in self.state_folder.glob(f"{STATE_NAME.format('*')}.unfinished"):
            unfinished.unlink(missing_ok=True)

    def _remove_work(self) -> None:
        for _ in range(_TRIES):  # another thread of this process may be writing into it
            with contextlib.suppress(OSError):
                _remove(self._work)
                return
        _remove(self._work)

    def _commit(self) -> None:
        stop_if_asked()
        _check_replaceable(self.path, self.force)  # something else may have come there meanwhile
        try:
            manifest = describe_folder(self.folder, self.seed)
            (self.folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
            written_through(self.folder)
            stop_if_asked()
            if self.force and self.path.exists():
                exchange(self.folder, self.path, self._aside)
            else:
                self._rename()
        except OSError as error:
            raise unwritable(self.path, error) from error
        if self.ends_training:
            with contextlib.suppress(OSError):  # the bundle is in its place: a leftover is no failure
                remove_states(self.state_folder)

    def _rename(self) -> None:
        try:
            self.folder.rename(self.path)  # one system call, which fails where something has come there
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise _exists(self.path) from error
            raise


@contextlib.contextmanager
def amend_bundle(bundle: "Bundle") -> Iterator[BundleWriter]:
    """Change a bundle by working on a copy that replaces it at the end: yields the writer, whose folder is the copy.

    Args:
        bundle: An intact bundle (`intact_bundle`): the new manifest would hide what differs from the old one.

    Raises:
        EnvironmentFailure: The folder cannot be written, or another run writes it.
    """
    writer = BundleWriter(bundle.folder, force=True, seed=bundle.manifest.seed)
    with writer as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_NAME))
        yield writer


def refuse_states(folder: Path, *, resume: bool, force: bool) -> None:
    """Refuse to start anew where an earlier compile left the states of its trainings.

    Args:
        folder: The folder of the states, beside the bundle.
        resume: Whether the trainings go on from them.
        force: Whether they are replaced.

    Raises:
        UsageError: There are states and neither was asked for, or there is something else of the folder's name.
    """
    if folder.is_symlink() or folder.exists():
        if folder.is_symlink() or not folder.is_dir():
            raise UsageError(
                f"{folder} is in the way: it is no folder, and the states of trainings are kept in one.",
                hint="Remove or rename it, or name another output with -o.",
            )
        if not (resume or force) and any(folder.glob(STATE_NAME.format("*"))):
            raise UsageError(
                f"{folder} holds the state of a compile that was stopped.",
                hint="Go on with it by --resume, or start anew, and lose it, by --force.",
            )


def remove_states(folder: Path) -> None:
    """Remove the training states of a finished compile, and nothing else that may be there."""
    if not folder.is_dir():
        return
    for name in (STATE_NAME, STORED_PLAN, STORED_COSTS, STORED_LAYERS):
        for file in folder.glob(name.format("*")):
            file.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _remove(folder: Path) -> None:
    """Remove a folder, or a link of its name."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


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


def _hidden(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")


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


def _exists(path: Path) -> UsageError:
    return UsageError(f"Output {path} exists already.", hint="Replace it with --force, or name another output with -o.")
