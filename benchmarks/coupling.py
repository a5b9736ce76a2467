"""How long coupling analysis and filter pruning take, on one core, beside Torch-Pruning.

Every network runs in a process of its own, once for each tool: capture (torch.export), then analysis, scores and
rewriting at ratio 0.5 by L1. Torch-Pruning's share is its dependency graph, its pruner and one step. The limits are on
processor time, which is what an idle core needs. Peak memory is what the process needs beyond the network itself.

Run from the top folder: python -m benchmarks.coupling
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.tables import finish

#: Network -> seconds for analysis and pruning together; None where only the ratio is of interest.
LIMITS: dict[str, float | None] = {
    "tv:resnet50": 0.3,
    "tv:resnet152": 0.4,
    "tv:densenet121": None,
    "tv:densenet201": 0.8,
    "timm:nasnetalarge": 1.0,
}
LARGEST = "timm:nasnetalarge"
#: Milliseconds per node of the largest network over the median of the corpus.
MOST_PER_NODE = 2.0
_PEER_SECONDS = 300
_REPEATS = 3


@dataclass(frozen=True)
class Timing:
    """Times of one tool on one network, in seconds of processor time.

    Attributes:
        capture: Time of capturing the graph; 0 where the tool's graph is part of the rest.
        prune: Time of analysis, scores and rewriting.
        nodes: Number of nodes of the graph, inputs and tensors included; 0 where there is none.
        peak_mib: Peak of memory beyond the network itself.
    """

    capture: float
    prune: float
    nodes: int
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=2, metavar=("TOOL", "NETWORK"), help=argparse.SUPPRESS)
    worker = parser.parse_args().worker
    if worker:
        print(json.dumps(asdict(_TOOLS[worker[0]](worker[1]))))
        return
    rows, missed = [], []
    for name, limit in LIMITS.items():
        own, peer = _measured("prunec", name), _measured("torch-pruning", name)
        rows.append(_row(name, own, peer, limit))
        if isinstance(own, str):
            missed.append(f"{name}: {own}")
        elif limit is not None and own.prune >= limit:
            missed.append(f"{name} took {own.prune:.2f} s, the limit is {limit} s")
        if name == LARGEST and not isinstance(own, str):
            missed += _per_node(own, rows)
    columns = ("network", "capture", "prune", "both", "limit", "MiB", "Torch-Pruning", "MiB", "ratio")
    finish(f"Seconds of one core, median of {_REPEATS} prunings", columns, rows, missed)


def _row(name: str, own: Timing | str, peer: Timing | str, limit: float | None) -> tuple[str, ...]:
    asked = "" if limit is None else f"{limit}"
    other = (peer, "", "") if isinstance(peer, str) else (f"{peer.prune:.2f}", f"{peer.peak_mib:.0f}", "")
    if isinstance(own, str):
        return (name, own, "", "", asked, "", *other)
    if not isinstance(peer, str):
        other = (*other[:2], f"{peer.prune / own.prune:.0f}x")
    both = f"{own.capture + own.prune:.2f}"
    return (name, f"{own.capture:.2f}", f"{own.prune:.2f}", both, asked, f"{own.peak_mib:.0f}", *other)


def _per_node(largest: Timing, rows: list[tuple[str, ...]]) -> list[str]:
    """Adds the corpus to the rows; what the largest network misses."""
    from tests.zoo.corpus import NETWORKS

    found = [_measured("prunec", network.name) for network in NETWORKS]
    timings = [timing for timing in found if not isinstance(timing, str)]
    median = statistics.median(1000 * timing.prune / timing.nodes for timing in timings)
    own = 1000 * largest.prune / largest.nodes
    blank = ("",) * 5
    rows.append((f"{len(timings)} networks", "median", f"{median:.3f}", "ms/node", *blank))
    rows.append(
        (LARGEST, f"{largest.nodes} nodes", f"{own:.3f}", "ms/node", f"{MOST_PER_NODE * median:.3f}", *blank[1:])
    )
    errors = [
        f"{network.name}: {timing}" for network, timing in zip(NETWORKS, found, strict=True) if isinstance(timing, str)
    ]
    if own > MOST_PER_NODE * median:
        errors.append(f"{LARGEST} takes {own:.3f} ms per node, {own / median:.1f} times the median")
    return errors


def _measured(tool: str, network: str) -> Timing | str:
    """What a process of its own measures; why not, where it fails."""
    print(f"{tool}: {network}", file=sys.stderr, flush=True)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.coupling", "--worker", tool, network]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PEER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"over {_PEER_SECONDS} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:60]
    return Timing(**json.loads(done.stdout.splitlines()[-1]))


def _network(name: str) -> tuple[Any, Any]:
    """A network with its random weights, and a batch of two images."""
    import torch

    from tests.zoo import shim  # noqa: F401 - before torchvision
    from tests.zoo.corpus import BY_NAME, construct

    torch.set_num_threads(1)
    side = BY_NAME[name].side if name in BY_NAME else 224
    return construct(name).eval(), torch.randn(2, 3, side, side)


def _processor_seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _prunec(name: str) -> Timing:
    from prunec.passes import PruneFilters, capture

    network, x = _network(name)
    before, programs = _peak_mib(), []
    seconds = _processor_seconds(lambda: programs.append(capture(network, (x,))))
    prune = PruneFilters(ratio=0.5)
    runs = [_processor_seconds(lambda: prune.run(programs[0])) for _ in range(_REPEATS)]
    nodes = len(programs[0].graph.nodes)
    return Timing(seconds, statistics.median(runs), nodes, _peak_mib() - before)


def _torch_pruning(name: str) -> Timing:
    import torch_pruning

    network, x = _network(name)
    classifier = [module for module in network.modules() if type(module).__name__ == "Linear"][-1:]
    before = _peak_mib()

    def prune() -> None:
        importance = torch_pruning.importance.MagnitudeImportance(p=1)
        pruner = torch_pruning.pruner.MagnitudePruner(
            network, x, importance=importance, pruning_ratio=0.5, ignored_layers=classifier
        )
        pruner.step()

    # Pruned once only: a second run would prune a smaller network.
    seconds = _processor_seconds(prune)
    return Timing(0.0, seconds, 0, _peak_mib() - before)


_TOOLS: dict[str, Callable[[str], Timing]] = {"prunec": _prunec, "torch-pruning": _torch_pruning}

if __name__ == "__main__":
    main()
