"""Ctrl-C at random moments between the first and the last line of a compile's output: none is lost, each is answered at
once in words, and obeyed within 2 s outside of foreign calls. Exits 1 where one of these isn't so.

Run from the top folder: python -m tests.reliability.signals [--count N] [--jobs N] [--seed N]
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.toy import HANGING, Project, Run, faults_after_stop, finished, toy

#: Seconds within which Ctrl-C is answered in words, and obeyed outside of foreign calls.
ANSWERED, OBEYED = 1.0, 2.0
#: Stages that are one foreign call.
FOREIGN = ("build the cpu engine",)


@dataclass(frozen=True)
class Stop:
    """One Ctrl-C: the stage that it met, seconds until it was answered and until the run had ended, and its faults."""

    stage: str
    answered: float
    ended: float
    was_complete: bool
    faults: tuple[str, ...]

    @property
    def is_foreign(self) -> bool:
        return self.stage in FOREIGN


def stop(project: Project, folder: Path, seconds: float, draw: random.Random) -> Stop:
    """Send one Ctrl-C at a random moment after the first line."""
    folder.mkdir()
    output, run = folder / "m.bundle", None
    run = Run.start(project.command(output))
    while not run.err and run.process.poll() is None:
        time.sleep(0.002)
    run.ended(draw.uniform(0, seconds))
    stage, is_over = run.stage, run.last_line.startswith(("PASSED", "FAILED"))
    sent = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    if run.ended(HANGING) is None:
        run.kill()
        return Stop(stage, HANGING, HANGING, False, ("hangs",))
    said = [at for at, line in run.err if line.startswith("Ctrl-C:")]
    ended = max(at for at, _ in (*run.out, *run.err)) - sent
    complete = is_over or run.process.returncode == 0
    found = [] if is_over else faults_after_stop(run, output, signal.SIGINT)
    shutil.rmtree(folder)
    return Stop(stage, said[0] - sent if said else ended, ended, complete, tuple(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, draw = time.monotonic(), random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="prunec-signals-") as scratch:
        folder = Path(scratch)
        project = toy(folder / "toy")
        whole = finished(project.command(folder / "reference.bundle"))
        assert whole.process.returncode == 0, whole.words
        seconds = whole.out[-1][0] - whole.err[0][0]
        print(f"from the first to the last line: {seconds:.1f} s", flush=True)
        seeds = [draw.getrandbits(64) for _ in range(options.count)]
        with ThreadPoolExecutor(options.jobs) as pool:
            stops = list(
                pool.map(
                    lambda each: stop(project, folder / f"stop-{each[0]}", seconds, random.Random(each[1])),
                    enumerate(seeds),
                )
            )
    failed = report(stops)
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(failed > 0)


def report(stops: list[Stop]) -> int:
    """Print what came of all, by stage; the number of those that went wrong."""
    inside = [each for each in stops if not each.was_complete]
    for stage, count in Counter(each.stage for each in inside).most_common():
        there = [each for each in inside if each.stage == stage]
        slowest = [max(getattr(each, what) for each in there) for what in ("answered", "ended")]
        print(f"{count:5} {stage:32} answered within {slowest[0]:.2f} s, ended within {slowest[1]:.2f} s")
    lost = [each for each in stops if each.faults]
    silent = [each for each in inside if each.answered > ANSWERED]
    slow = [each for each in inside if each.ended > OBEYED and not each.is_foreign]
    for each in lost:
        print(f"FAULT in {each.stage}: {'; '.join(each.faults)}")
    complete = len(stops) - len(inside)
    print(f"{len(stops)} Ctrl-C: {complete} after the bundle was in its place, {len(lost)} lost or with other faults")
    print(f"{len(silent)} answered later than {ANSWERED:g} s, {len(slow)} obeyed later than {OBEYED:g} s")
    return len(lost) + len(silent) + len(slow)


if __name__ == "__main__":
    main()
