"""How long capture takes beside the calls of torch.export.export that it makes, on one core.

Every network runs in a process of its own: capture and the same calls bare, in turns, after one of each that counts for
nothing. Times are processor time, the shortest of the turns, which is what an idle core needs.

Run from the top folder: python -m benchmarks.capture
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.tables import finish

#: Network -> calls of torch.export.export at most; a second one finds what the training form has besides.
CALLS = {"tv:resnet50": 1, "tv:resnet152": 1, "tv:densenet201": 2}
#: Time of capture over that of its calls of torch.export.export, at most.
MOST = 1.5
_TURNS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of capture and of its exports alone, and how many these are."""

    capture: float
    exports: float
    calls: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    worker = parser.parse_args().worker
    if worker:
        print(json.dumps(asdict(_timed(worker))))
        return
    rows, missed = [], []
    for name, calls in CALLS.items():
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.capture", "--worker", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        timing = Timing(**json.loads(done.stdout.splitlines()[-1]))
        ratio = timing.capture / timing.exports
        rows.append((name, f"{timing.capture:.2f}", f"{timing.exports:.2f}", f"{timing.calls}", f"{ratio:.2f}"))
        if ratio > MOST:
            missed.append(f"{name} takes {ratio:.2f} times its exports, the limit is {MOST}")
        if timing.calls > calls:
            missed.append(f"{name} is exported {timing.calls} times, the limit is {calls}")
    finish(f"Seconds of one core, best of {_TURNS}", ("network", "capture", "exports", "calls", "ratio"), rows, missed)


def _timed(name: str) -> Timing:
    import torch

    from benchmarks.coupling import _network
    from prunec.passes import capture

    network, x = _network(name)
    with _recorded_exports() as calls:
        capture(network, (x,))
    export: Callable[..., Any] = torch.export.export

    def bare() -> None:
        for module, inputs, options in calls:
            export(module, *inputs, **options)

    bare()
    seconds = [(_processor_seconds(lambda: capture(network, (x,))), _processor_seconds(bare)) for _ in range(_TURNS)]
    return Timing(min(own for own, _ in seconds), min(alone for _, alone in seconds), len(calls))


@contextmanager
def _recorded_exports() -> Iterator[list[tuple[Any, tuple[Any, ...], dict[str, Any]]]]:
    """The calls of torch.export.export that are made within: module, inputs, options."""
    import torch

    made: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    original = torch.export.export

    def recording(module: Any, *inputs: Any, **options: Any) -> Any:
        made.append((module, inputs, options))
        return original(module, *inputs, **options)

    torch.export.export = recording
    try:
        yield made
    finally:
        torch.export.export = original


def _processor_seconds(function: Callable[[], object]) -> float:
    gc.collect()
    started = time.process_time()
    function()
    return time.process_time() - started


if __name__ == "__main__":
    main()
