"""Networks examined side by side, each in a process of its own with a limit of time and of memory."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.wild.networks.environment import FOLDER_VARIABLE
from tests.wild.rows import Outcome, Row, path_of

ROOT = Path(__file__).parents[2]
#: Seconds by the wall clock for each of processor time: other processes may have the cores too.
_PATIENCE = 4


@dataclass(frozen=True)
class Workers:
    """How networks are examined.

    Attributes:
        results: folder of the rows, and of what the processes print.
        packages: folder of the packages, as `tests.wild.packages` installs them.
        drawn: networks of which an engine is built.
        limit_s: seconds of processor time that one network may take, and `_PATIENCE` times as many by the wall clock.
    """

    results: Path
    packages: Path
    drawn: frozenset[str]
    limit_s: int

    def examined(self, names: Mapping[str, str], jobs: int) -> Iterator[Row]:
        """Examine networks, given the package of each by its name; rows come as they are ready."""
        self.results.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self.examine, name, package) for name, package in names.items()]
            for future in as_completed(futures):
                yield future.result()

    def examine(self, name: str, package: str) -> Row:
        """Examine one network. A process that dies or takes too long has failed at the stage that ran."""
        path = path_of(name, self.results)
        Row(name, package, running="built").write(self.results)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="wild-") as home, path.with_suffix(".log").open("w") as log:
            process = self._started(name, home, log.fileno())
            end = self._end_of(process)
        row = Row.read(path)
        row.seconds = round(time.perf_counter() - start, 1)
        if end:
            stage = row.running or "built"
            row.outcomes[stage] = Outcome("failed", f"{end}: {_last_line(path.with_suffix('.log'))}")
        row.running = ""
        row.write(self.results)
        return row

    def _started(self, name: str, home: str, log: int) -> "subprocess.Popen[bytes]":
        limits = ["--results", str(self.results.absolute()), "--seconds", str(self.limit_s)]
        arguments = [name, *limits, *["--engine"] * (name in self.drawn)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.wild.child", *arguments],
            cwd=ROOT,
            env=self._environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    def _end_of(self, process: "subprocess.Popen[bytes]") -> str:
        """How a process ended, in words; empty where it ended well."""
        try:
            code = process.wait(_PATIENCE * self.limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"ended after {_PATIENCE * self.limit_s} s by the wall clock"
        if code == -signal.SIGXCPU:
            return f"ended after {self.limit_s} s of processor time"
        return "" if code == 0 else f"the process died with code {code}"

    def _environment(self, home: str) -> dict[str, str]:
        """That of a process which finds the packages and writes into a folder of its own."""
        return os.environ | {
            FOLDER_VARIABLE: str(self.packages.absolute()),
            "HOME": home,
            "TMPDIR": home,
            "OMP_NUM_THREADS": "1",
        }


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
