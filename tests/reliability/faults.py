"""Faults of every kind while a compile runs: kills, a full disk, a read-only folder, no memory, clock jumps, two runs.

After each, the run goes on or is refused, what is reproducible of the bundle is that of an undisturbed run, no signal
is lost and nothing is left behind. Exits 1 where one of these isn't so.

Run from the top folder: python -m tests.reliability.faults [--kills N] [--example-kills N] [--jobs N] [--seed N]
"""

import argparse
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.reliability.toy import (
    HANGING,
    Project,
    Run,
    example,
    faults_after_stop,
    faults_of_bundle,
    finished,
    left_behind,
    name_of,
    resumed,
    small_disk,
    toy,
)

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
#: Memory in MB under which libraries can't even be loaded, up to more than the toy needs.
_MEMORY_MB = (300, 600, 1200, 1800, 2400, 3000)
_CODES_OF_REFUSAL = (2, 10)
_JUMPING = """
import random, sys, time
real, draw = time.time, random.Random(0)
time.time = lambda: real() + draw.uniform(-400, 400) * 86400
from prunec.compiler.cli.main import main
sys.argv[0] = "prunec"
main()
"""


@dataclass(frozen=True)
class Trial:
    """A fault and what came of it; `faults` is empty where all is as it must be."""

    kind: str
    stage: str
    outcome: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """A project, its undisturbed bundle and how long that took, and a folder for trials."""

    project: Project
    reference: Path
    seconds: float
    folder: Path

    @classmethod
    def prepare(cls, project: Project, folder: Path) -> "Bench":
        reference = folder / "reference.bundle"
        began = time.monotonic()
        run = finished(project.command(reference))
        assert run.process.returncode == 0, run.words
        return cls(project, reference, time.monotonic() - began, folder)

    def output(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        return place / "m.bundle"


def killed(bench: Bench, number: int, draw: random.Random, name: str) -> Trial:
    """Send a signal at a random moment, then go on."""
    output, moment = bench.output(name), draw.uniform(0, bench.seconds)
    run = Run.start(bench.project.command(output))
    run.ended(moment)
    stage, is_over = run.stage, run.process.poll() is not None
    run.process.send_signal(number)
    code = run.ended(HANGING)
    if code is None:
        run.kill()
        return Trial(name_of(number), stage, "hangs", (f"hangs after {moment:.2f} s: {run.words[-300:]}",))
    faults = [] if number == signal.SIGKILL or is_over else faults_after_stop(run, output, number)
    outcome = "was complete" if code == 0 else f"exit {code}"
    return Trial(name_of(number), stage, outcome, (*faults, *resumed(bench.project, bench.reference, output)))


def full_disk(bench: Bench, draw: random.Random, name: str) -> Trial:
    """Fill the disk at a random moment, then make room and go on; where mounting isn't allowed, bound files' sizes."""
    with small_disk(bench.folder / name, 64) as disk:
        if disk is None:
            limit = draw.choice((100_000, 1_000_000, 3_000_000))
            return _limited(bench, name, "files of bounded size", resource.RLIMIT_FSIZE, limit, (10,))
        output, filler = disk / "m.bundle", disk / "filler"
        run = Run.start(bench.project.command(output))
        run.ended(draw.uniform(0, bench.seconds))
        stage = run.stage
        with filler.open("wb", buffering=0) as file:
            try:
                while run.process.poll() is None:
                    file.write(b"\0" * 65536)
            except OSError:
                pass
        code = run.ended(HANGING)
        filler.unlink()
        faults = [] if code in (0, 10) else [f"exit code {code}: {run.words[-400:]}"]
        faults += [f"left behind {left_behind(output)}"] if left_behind(output) else []
        return Trial("full disk", stage, f"exit {code}", (*faults, *resumed(bench.project, bench.reference, output)))


def read_only(bench: Bench, name: str) -> Trial:
    """A folder that can't be written: refused before torch is loaded."""
    with small_disk(bench.folder / name, 8) as disk:
        folder = disk or bench.folder / name
        subprocess.run(["mount", "-o", "remount,ro", str(disk)] if disk else ["chmod", "555", str(folder)], check=True)
        began = time.monotonic()
        run = finished(bench.project.command(folder / "m.bundle"))
        seconds, code = time.monotonic() - began, run.process.returncode
        faults = [] if code == 10 and "load the checkpoint" not in run.words else [f"exit {code}: {run.words[-400:]}"]
        return Trial("read-only folder", run.stage, f"exit {code} after {seconds:.1f} s", tuple(faults))


def no_memory(bench: Bench, megabytes: int, name: str) -> Trial:
    """A limit of the memory: refused with 10, or ended by a library that can't go on without memory."""
    return _limited(bench, name, f"{megabytes} MB of memory", resource.RLIMIT_AS, megabytes << 20, (10,))


def _limited(bench: Bench, name: str, kind: str, what: int, limit: int, codes: tuple[int, ...]) -> Trial:
    def bound() -> None:
        resource.setrlimit(what, (limit, limit))

    output = bench.output(name)
    run = finished(bench.project.command(output), preexec_fn=bound)
    code = run.process.returncode
    # The dynamic loader itself gives up with 127 where a library's thread-local data find no room, OpenBLAS with 1.
    foreign = (
        code == 127
        or "OpenBLAS error" in run.words
        or -code in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGXFSZ)
    )
    faults = [] if code in (0, *codes) or foreign else [f"exit code {code}: {run.words[-600:]}"]
    faults += [f"left behind {left_behind(output)}"] if left_behind(output) and not foreign else []
    outcome = f"a library ended it, {code}" if foreign else f"exit {code}"
    return Trial(kind, run.stage, outcome, (*faults, *resumed(bench.project, bench.reference, output)))


def clock_jumps(bench: Bench, name: str) -> Trial:
    """Every look at the clock differs by up to 400 days, in a run that is stopped in between, and the one after it."""
    output = bench.output(name)
    command = [sys.executable, "-c", _JUMPING, *bench.project.command(output)[3:]]
    run = Run.start(command)
    run.ended(0.6 * bench.seconds)
    run.process.send_signal(signal.SIGTERM)
    run.ended(HANGING)
    faults = faults_after_stop(run, output, signal.SIGTERM)
    again = finished([*command, "--resume", *(("--force",) if output.exists() else ())])
    code = again.process.returncode
    faults += [f"exit {code}: {again.words[-400:]}"] if code else faults_of_bundle(bench.reference, output)
    return Trial("clock jumps", run.stage, f"exit {code}", tuple(faults))


def two_at_once(bench: Bench, draw: random.Random, name: str) -> Trial:
    """Two runs into one output: one is complete, the other refused with the other's name."""
    output = bench.output(name)
    first = Run.start(bench.project.command(output))
    time.sleep(draw.uniform(0, 0.3 * bench.seconds))
    second = Run.start(bench.project.command(output))
    codes = [run.ended(20 * HANGING) for run in (first, second)]
    refused = next((run for run, code in zip((first, second), codes, strict=True) if code), second)
    faults = [] if 0 in codes and set(codes) - {0} <= set(_CODES_OF_REFUSAL) and codes != [0, 0] else [f"exits {codes}"]
    if not any(words in refused.words for words in ("Another run writes", "exists already")):
        faults.append(f"not told: {refused.words[-300:]}")
    return Trial("two at once", refused.stage, f"exits {codes}", (*faults, *faults_of_bundle(bench.reference, output)))


def trials(bench: Bench, larger: Bench | None, options: argparse.Namespace) -> list[Callable[[], Trial]]:
    """All trials, in the order in which they begin; the seed decides on the moments."""
    draw, result = random.Random(options.seed), list[Callable[[], Trial]]()
    for name, one, count in (("kill", bench, options.kills), ("example", larger, options.example_kills)):
        for position in range(count if one is not None else 0):
            own = random.Random(draw.getrandbits(64))
            result.append(partial(killed, one, SIGNALS[position % 3], own, f"{name}-{position}"))
    for position in range(options.others):
        result.append(partial(full_disk, bench, random.Random(draw.getrandbits(64)), f"disk-{position}"))
        result.append(partial(two_at_once, bench, random.Random(draw.getrandbits(64)), f"two-{position}"))
    if options.others:
        result += [partial(read_only, bench, "read-only"), partial(clock_jumps, bench, "clock")]
        result += [partial(no_memory, bench, megabytes, f"memory-{megabytes}") for megabytes in _MEMORY_MB]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills of the toy")
    parser.add_argument("--example-kills", type=int, default=5, help="kills of the example")
    parser.add_argument("--others", type=int, default=4, help="trials of each other kind that chance plays a part in")
    parser.add_argument("--jobs", type=int, default=2, help="trials at the same time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, counts, failed = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory(prefix="prunec-faults-") as scratch:
        folder = Path(scratch)
        (folder / "toy-runs").mkdir()
        bench, larger = Bench.prepare(toy(folder / "toy"), folder / "toy-runs"), None
        print(f"undisturbed: {bench.seconds:.1f} s", flush=True)
        if options.example_kills:
            (folder / "example-runs").mkdir()
            larger = Bench.prepare(example(folder / "example"), folder / "example-runs")
            print(f"undisturbed example: {larger.seconds:.1f} s", flush=True)
        with ThreadPoolExecutor(options.jobs) as pool:
            for trial in pool.map(lambda one: one(), trials(bench, larger, options)):
                counts[f"{trial.kind}: {'as it must be' if not trial.faults else 'FAULT'}"] += 1
                failed += bool(trial.faults)
                told = "; ".join(trial.faults) or "as it must be"
                print(f"{trial.kind:24} {trial.stage:32} {trial.outcome:28} {told}", flush=True)
    print("\n".join(f"{count:5} {what}" for what, count in sorted(counts.items())))
    print(f"{sum(counts.values())} trials, {failed} with faults, {time.monotonic() - began:.0f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
