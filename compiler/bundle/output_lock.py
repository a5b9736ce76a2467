"""The lock of an output: one run at a time writes a bundle, and that of a run that is gone is taken over.

The lock is a file beside the bundle. The kernel holds the lock on it (``flock``) and lets go of it with the process,
however that ends; containers of one host share it. The file says who that is, for those who meet it on another host,
where a network's file system may not pass the kernel's lock on.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from prunec.passes.errors import EnvironmentFailure

_BOOT_ID, _PID_NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
_COMMAND_LENGTH = 200
#: Bytes that are read of a lock's file.
_LENGTH = 1 << 16


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        host: Name of its host, or container.
        boot: Identity of the boot of that host's kernel; empty where the system tells none.
        pid_namespace: Namespace of process numbers on that host; empty where the system tells none.
        pid: Number of the process.
        start: Time of its start, in ticks of that kernel; empty where the system tells none.
        since: Date and time at which it took the lock.
        command: Its command line.
    """

    host: str
    boot: str
    pid_namespace: str
    pid: int
    start: str
    since: str
    command: str

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        namespace = str(_PID_NAMESPACE.readlink()) if _PID_NAMESPACE.is_symlink() else ""
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        command = " ".join(sys.argv)[:_COMMAND_LENGTH].encode(errors="backslashreplace").decode()
        return cls(socket.gethostname(), boot, namespace, os.getpid(), _start(os.getpid()), since, command)

    @classmethod
    def read(cls, content: bytes) -> "Owner | None":
        """The owner that a lock's file names; None where it names none, as of one that died while it took the lock."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"

    def is_of(self, here: "Owner") -> bool:
        """Whether it ran on the host of another: under the same kernel, or before that was booted."""
        return bool(self.boot) and (self.boot == here.boot or self.host == here.host)

    def is_gone(self, here: "Owner") -> bool:
        """Whether a process of this host has ended, by its number and start, where there is no lock of the kernel's."""
        if self.boot != here.boot:
            return True
        return self.pid_namespace == here.pid_namespace and self.start != _start(self.pid)


class OutputLock:
    """The lock of one output, held from `acquire` to `release` or to the end of the process.

    Args:
        path: The file; its folder must exist.
        what: Name of the output in messages.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self._what = path, what
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            EnvironmentFailure: Another run holds it, or may hold it: the message says which. Or there is something else
                at its place, which stays as it is.
            OSError: The file can't be written.
        """
        here = Owner.here()
        while self._file is None:
            file, is_new = self._opened()
            try:
                self._lock(file, here, is_new)
                if _is_at(file, self.path):  # not one that was released meanwhile
                    os.ftruncate(file, 0)
                    os.pwrite(file, json.dumps(asdict(here)).encode(), 0)
                    self._file = file
            finally:
                if self._file is None:
                    os.close(file)

    def release(self) -> None:
        """Remove the file, which others must not find without an owner, and let go of it."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            file, self._file = self._file, None
            os.close(file)

    def _opened(self) -> tuple[int, bool]:
        with contextlib.suppress(FileExistsError):
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666), False
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a folder, a socket
                raise self._in_the_way() from error
            raise

    def _lock(self, file: int, here: Owner, is_new: bool) -> None:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise self._in_the_way()
        owner = Owner.read(os.pread(file, _LENGTH, 0))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_gone = True
        except BlockingIOError:
            raise self._refused(owner, f"wait for it, or end it{_by_number(owner, here)}") from None
        except OSError:  # a file system without such locks
            is_gone = owner is None or owner.is_gone(here)
        content = os.pread(file, _LENGTH, 0)
        owner = Owner.read(content)
        if owner is None and content.strip(b"\0"):  # zeros are what a power cut leaves
            raise self._in_the_way()
        if is_new or owner is None or (owner.is_of(here) and is_gone):
            return
        raise self._refused(owner, f"if that run is gone, which can't be told from here, remove {self.path}")

    def _in_the_way(self) -> EnvironmentFailure:
        return EnvironmentFailure(
            f"Output {self._what} cannot be locked: {self.path} is no lock of prunec's.",
            hint="Remove or rename it, or name another output with -o.",
        )

    def _refused(self, owner: Owner | None, advice: str) -> EnvironmentFailure:
        who = "one that has just begun" if owner is None else str(owner)
        return EnvironmentFailure(
            f"Another run writes the output {self._what}: {who}.", hint=f"Name another output with -o; or {advice}."
        )


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def _by_number(owner: Owner | None, here: Owner) -> str:
    is_visible = owner is not None and (owner.boot, owner.pid_namespace) == (here.boot, here.pid_namespace)
    if owner is None or not is_visible:
        return ""
    return " (another thread of this process)" if owner.pid == here.pid else f" (kill {owner.pid})"


def _start(pid: int) -> str:
    """The time of a process's start, empty where there is no such process or the system doesn't tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
