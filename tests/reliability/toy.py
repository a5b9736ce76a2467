"""A toy project whose compile goes through all stages in seconds, runs of it, and what must be true after each."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.equal_outputs import differences, digest
from prunec.calibration.user_code import import_callable

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fashion_mnist"
#: Seconds after which a run that was told to stop counts as hanging.
HANGING = 120
_NETWORK = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
    )
"""
_CONFIG = """
[model]
factory = "network:network"
input = [1, 16, 16]
[data]
train = "npz:data.npz"
test = "npz:data.npz"
mean = [0.2]
std = [0.25]
augment = ["flip"]
[recipe]
pipeline = "prune-filters{ratio=0.25} MASKS re-estimate-batchnorm recover{RECOVER}"
"""
_MASKS = "sparsify{criterion=wanda,pattern=elements,ratio=0.5}"
_RECOVER = 'epochs=4,schedule=\\"cosine:0.05\\",batch_size=50,ema=0.9'


@dataclass(frozen=True)
class Project:
    """A checkpoint to compile, and the arguments of ``prunec compile`` after it."""

    checkpoint: Path
    arguments: tuple[str, ...]

    def command(self, output: Path, *more: str) -> list[str]:
        return [*_PRUNEC, "compile", str(self.checkpoint), *self.arguments, "-o", str(output), *more]


_PRUNEC = (sys.executable, "-m", "prunec.compiler")


def toy(folder: Path) -> Project:
    """The toy: 3,000 images of 16x16 whose class is the bright quadrant, four epochs in steps of 50."""
    folder.mkdir(parents=True)
    rng, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 2000), ("test", 1000)):
        labels = rng.integers(0, 4, count)
        images = rng.integers(0, 60, (count, 16, 16))
        for image, label in zip(images, labels, strict=True):
            image[8 * (label // 2) :][:8, 8 * (label % 2) :][:, :8] += 120
        arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    (folder / "network.py").write_text(_NETWORK)
    (folder / "prunec.toml").write_text(_CONFIG.replace("RECOVER", _RECOVER).replace("MASKS", _MASKS))
    torch.manual_seed(0)
    torch.save(import_callable("network:network", folder)().state_dict(), folder / "model.pt")
    return Project(folder / "model.pt", ("--target", "cpu", "--save-steps", "7"))


def example(folder: Path) -> Project:
    """A copy of the example, with two epochs."""
    shutil.copytree(EXAMPLE, folder)
    return Project(folder / "model.pt", ("--target", "cpu", "--epochs", "2", "--save-steps", "50"))


def environment(**more: str) -> Mapping[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | more


@dataclass
class Run:
    """A run under way, whose lines are read as they come."""

    process: "subprocess.Popen[str]"
    began: float = field(default_factory=time.monotonic)
    out: list[tuple[float, str]] = field(default_factory=list)
    err: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def start(cls, command: list[str], **options: Any) -> "Run":
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        run = cls(subprocess.Popen(command, text=True, env=options.pop("env", environment()), **pipes, **options))
        run._readers = [threading.Thread(target=run._read, args=each, daemon=True) for each in run._streams()]
        for reader in run._readers:
            reader.start()
        return run

    def ended(self, seconds: float) -> int | None:
        """The exit code, None where it is still running after so long."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        for reader in self._readers:
            reader.join()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.ended(HANGING)

    @property
    def stage(self) -> str:
        """The title of the stage that is under way."""
        titles = [line.partition("] ")[2] for _, line in self.err if line.startswith("[") and "]   " not in line]
        return titles[-1].partition(",")[0] if titles else "before the first stage"

    @property
    def last_line(self) -> str:
        return self.out[-1][1] if self.out else ""

    @property
    def words(self) -> str:
        return "\n".join(line for _, line in self.err)

    def _streams(self) -> Iterator[tuple[Any, list[tuple[float, str]]]]:
        yield self.process.stdout, self.out
        yield self.process.stderr, self.err

    def _read(self, stream: Any, lines: list[tuple[float, str]]) -> None:
        lines.extend((time.monotonic(), line.rstrip("\n")) for line in stream)


def finished(command: list[str], **options: Any) -> Run:
    """A run that has ended by itself."""
    run = Run.start(command, **options)
    assert run.ended(20 * HANGING) is not None, f"hangs: {command}\n{run.words}"
    return run


def left_behind(output: Path) -> list[str]:
    """What lies beside an output and belongs to it, but for the bundle and the state of a training to go on with."""
    ours = [path.name for path in output.parent.iterdir() if output.name in path.name and path != output]
    state = output.with_name(f"{output.name}.state")
    unfinished = [path.name for path in state.iterdir() if path.suffix != ".state"] if state.is_dir() else []
    return [name for name in ours if name != state.name] + unfinished


def faults_after_stop(run: Run, output: Path, number: int) -> list[str]:
    """What is wrong with a run that Ctrl-C or SIGTERM has stopped, or that was complete before it was told."""
    code = run.process.returncode
    if not run.err and not run.out:  # Python itself was still starting
        return [] if code in (-number, 128 + number, 1) and not left_behind(output) else [f"started up to {code}"]
    found = [f"left behind {left_behind(output)}"] if left_behind(output) else []
    if code == 0:
        late = "too late to stop" in run.words or run.last_line.startswith("PASSED")
        return found if late and output.is_dir() else [*found, "lost"]
    if code != 128 + number:
        found.append(f"exit code {code}: {run.words[-300:]}")
    if not run.last_line.startswith(f"FAILED | exit code {128 + number} |"):
        found.append(f"last line {run.last_line!r}")
    if "Traceback" in run.words or "ignored" in run.words:
        found.append(f"a traceback: {run.words[-500:]}")
    return found + (["a bundle is there"] if output.exists() else [])


def faults_of_bundle(reference: Path, output: Path) -> list[str]:
    """How a bundle differs from an undisturbed one in what is reproducible, and what else is left."""
    if not output.is_dir():
        return ["no bundle"]
    found = [line for line in differences(reference, output) if not line.startswith(("recovery.resumed:", "warnings."))]
    found += [name for name in ("model.pt2", "recipe.toml") if digest(reference / name) != digest(output / name)]
    beside = [path.name for path in output.parent.iterdir() if output.name in path.name and path != output]
    return found + ([f"left behind {beside}"] if beside else [])


def resumed(project: Project, reference: Path, output: Path) -> list[str]:
    """Go on with what was disturbed, and compare what comes of it."""
    run = finished(project.command(output, "--resume", *(("--force",) if output.exists() else ())))
    if run.process.returncode:
        return [f"--resume ended with {run.process.returncode}: {run.words[-500:]}"]
    return faults_of_bundle(reference, output)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system of its own of that size; None where mounting isn't allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def name_of(number: int) -> str:
    return signal.Signals(number).name
