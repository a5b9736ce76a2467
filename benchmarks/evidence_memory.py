"""Memory of criteria that look long at each image, on ResNet-50: by many images beside few.

HRank takes a singular value decomposition of every feature map, ProvableFP products channel by channel at every place,
CCP the products of all gate gradients; OBD and OBS, which are measured when they are named, take a backward pass for
each image. Each criterion and count of images runs in a process of its own, on one thread, with random weights and
random images in batches of 8. Seconds are processor time of the collection alone, memory is the largest resident set
while it runs, weights and libraries included.

Run from the top folder: python -m benchmarks.evidence_memory [CRITERION ...]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.coupling import _network
from benchmarks.tables import finish

NETWORK = "tv:resnet50"
#: Peak memory with all images over that with few, at most.
MOST_MEMORY = 1.2
_BATCH = 8


@dataclass(frozen=True)
class Run:
    """Images that were looked at, seconds of processor time, and the peak of memory in MiB."""

    images: int
    seconds: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("criteria", nargs="*", default=["hrank", "provable", "ccp"], help="criteria by name")
    parser.add_argument("--images", type=int, default=256, help="images of the long runs (default 256)")
    parser.add_argument("--few", type=int, default=16, help="images of the short runs (default 16)")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images (default 224)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(asdict(_measure(given.criteria[0], given.images, given.size))))
        return
    rows, missed = [], []
    for criterion in given.criteria:
        few, many = (_in_a_process(criterion, images, given.size) for images in (given.few, given.images))
        ratio = many.peak_mib / few.peak_mib
        rows += [(criterion, f"{run.images}", f"{run.seconds:.1f}", f"{run.peak_mib:.0f}", "") for run in (few, many)]
        rows[-1] = (*rows[-1][:-1], f"{ratio:.2f}")
        if ratio > MOST_MEMORY:
            missed.append(f"{criterion}: {many.images} images take {ratio:.2f} times the memory of {few.images}")
    title = f"Evidence on ResNet-50 at {given.size}x{given.size}, one thread"
    finish(title, ("criterion", "images", "seconds", "MiB", "over few"), rows, missed)


def _in_a_process(criterion: str, images: int, size: int) -> Run:
    """What a process of its own measures."""
    options = ("--worker", "--images", str(images), "--size", str(size), criterion)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.evidence_memory", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{criterion} with {images} images failed:\n{done.stderr}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _measure(criterion: str, images: int, size: int) -> Run:
    import torch

    from prunec.calibration import collect_evidence
    from prunec.passes import capture
    from prunec.passes.criteria.catalogue import resolve

    torch.set_num_threads(1)
    network, _ = _network(NETWORK)
    program = capture(network, (torch.randn(2, 3, size, size),))
    resolved: Any = resolve(criterion)
    if hasattr(resolved, "images"):  # so that all of them are looked at
        resolved = replace(resolved, images=images)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here (proc(5))
    started = time.process_time()
    evidence = collect_evidence(program, [resolved], _batches(images, size), torch.nn.functional.cross_entropy)
    return Run(evidence.samples, time.process_time() - started, _peak_mib())


def _batches(count: int, size: int) -> Iterator[Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, _BATCH):
        samples = min(_BATCH, count - start)
        images = torch.randn(samples, 3, size, size, generator=generator)
        yield images, torch.randint(0, 1000, (samples,), generator=generator)


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    main()
