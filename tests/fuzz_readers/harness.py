"""One reader against damaged inputs, in this process: what it raised, how long it took, what it wrote and needed."""

import contextlib
import io
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from prunec.passes.errors import PrunecError
from tests.fuzz_readers.readers import READERS, Reader

MAX_SECONDS = 2.0
#: Of the 1.5 GB that a process may take, torch alone has 0.4; a process that runs other tests too may hold more.
MAX_GROWTH_BYTES = 1_100_000_000
#: Events by which Python tells of files that change, and of what leaves the process.
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
_LEAVING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.bind")


@dataclass
class Found:
    """What a reader did.

    Attributes:
        read: Number of inputs.
        ends: How often each exit code was given, 0 where an input was still good.
        faults: Sentences on the inputs that it must have refused otherwise, by their numbers.
        slowest_s: Seconds of the slowest input.
        peak_bytes: Most memory that the process had, torch itself included.
    """

    read: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    peak_bytes: int = 0

    def with_more(self, document: dict[str, Any]) -> "Found":
        """This and what another process found, as JSON has it."""
        return Found(
            self.read + document["read"],
            self.ends + Counter({int(code): count for code, count in document["ends"].items()}),
            self.faults | {int(number): what for number, what in document["faults"].items()},
            max(self.slowest_s, document["slowest_s"]),
            max(self.peak_bytes, document["peak_bytes"]),
        )


class _Watch:
    """Notes, while it is on, what is written outside a folder and what leaves the process."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self._hooked = False

    @contextlib.contextmanager
    def over(self, folder: Path) -> Iterator[list[str]]:
        if not self._hooked:  # for the rest of the process, which it slows
            self._hooked = True
            sys.addaudithook(self._hook)
        self.folder, self.seen = str(folder.resolve()), []
        try:
            yield self.seen
        finally:
            self.folder = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _LEAVING:
            self.seen.append(f"{event} {arguments[0]!r}")
        elif event in _CHANGES or (event == "open" and _writes(arguments)):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
            if path and path != os.devnull and not os.path.realpath(path).startswith(self.folder):
                self.seen.append(f"{event} {path}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    return any(letter in mode for letter in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


_WATCH = _Watch()


def damaged(name: str, seeds: Sequence[bytes], number: int) -> bytes:
    """The input of a number, always the same one."""
    random = Random(f"{name} {number}")
    return READERS[name].mutate(random, random.choice(seeds))


def fuzz(
    name: str, numbers: Sequence[int], folder: Path, found: Found, begin: Callable[[int], bool] = lambda number: True
) -> None:
    """Let a reader read the damaged inputs of some numbers.

    Args:
        name: The reader.
        numbers: The inputs.
        folder: Folder that is the working directory meanwhile, the only one that may be written to.
        found: Takes what is found, input by input.
        begin: Called with the number of each input before it is read; False ends all.
    """
    reader = READERS[name]
    seeds = reader.seeds()
    with contextlib.chdir(folder), _temporary_files_in(folder):
        for whole in seeds:  # also loads what is loaded when it is needed
            (folder / reader.file).write_bytes(whole)
            _once(reader, folder / reader.file, folder)
        for number in numbers:
            if not begin(number):
                break
            path = folder / reader.file
            path.write_bytes(damaged(name, seeds, number))
            _try(reader, path, folder, number, found)


def _try(reader: Reader, path: Path, folder: Path, number: int, found: Found) -> None:
    before = _forget_peak()
    code, problem, seconds = _once(reader, path, folder)
    if seconds > MAX_SECONDS:  # whatever else this machine did then
        code, problem, again = _once(reader, path, folder)
        seconds = min(seconds, again)
    found.read += 1
    found.ends[code] += 1
    found.slowest_s, peak = max(found.slowest_s, seconds), _peak()
    found.peak_bytes = max(found.peak_bytes, peak)
    if seconds > MAX_SECONDS:
        problem = problem or f"took {seconds:.1f} s"
    if peak - before > MAX_GROWTH_BYTES:
        problem = problem or f"took {(peak - before) / 1e9:.2f} GB"
    if problem:
        found.faults[number] = problem


def _once(reader: Reader, path: Path, folder: Path) -> tuple[int, str, float]:
    """The exit code, what was wrong with it, and the seconds that it took."""
    said, problem, code = io.StringIO(), "", 0
    started, began = time.process_time(), time.perf_counter()
    with _WATCH.over(folder) as seen, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            with warnings.catch_warnings(action="ignore"):
                code = result if isinstance(result := reader.read(path), int) else 0
        except PrunecError as error:
            code = error.exit_code
            problem = "" if str(error).strip() else "said nothing"
        except MemoryError:
            code = 10
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            code, problem = 1, f"{type(error).__name__}: {error}"[:300]
            said.write("".join(traceback.format_exception(error)[-3:]))
    # Those of this process, whatever else the machine does; a wait takes none, and counts by a tenth.
    seconds = max(time.process_time() - started, (time.perf_counter() - began) / 10)
    if code == 1:
        problem = f"exit 1: {problem} {said.getvalue()[-1500:]}"
    return code, "; ".join(filter(None, [problem, *seen])), seconds


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    import tempfile

    before, bytecode = tempfile.tempdir, sys.dont_write_bytecode
    tempfile.tempdir, sys.dont_write_bytecode = str(folder), True
    try:
        yield
    finally:
        tempfile.tempdir, sys.dont_write_bytecode = before, bytecode


def _forget_peak() -> int:
    """Count the peak from here on; the bytes that the process has."""
    with contextlib.suppress(OSError):  # elsewhere than on Linux the peak is the process's whole
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    with contextlib.suppress(OSError):
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
