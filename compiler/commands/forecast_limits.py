"""What limits a pruned network's speed: shares of its predicted time that narrower widths elsewhere leave."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.facts.forecast import Limit, LimitKind
from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.space import Widths
from prunec.passes.costs.fitted import FittedCosts
from prunec.runtime.costs.roofline import RooflineCosts

#: What takes at least this share of the pruned network's time limits it: the rest can't bring another factor of two.
LIMITING_SHARE = 0.5


def limits_of(allocator: Allocator, widths: Widths) -> tuple[Limit, ...]:
    """The shares of the network's predicted time at some widths, the largest first.

    By every cost model: the layer that takes the most, the layers that no width bears on, and what is left at the
    fastest widths. By a measured model also the part that belongs to no layer; layers take what it makes of their sum.
    By a roofline also what the time goes into: launches, memory or compute.

    Args:
        allocator: What was prepared for the program, with a cost model.
        widths: Units kept in each group, int64 (groups,).
    """
    shares = sorted(_shares(allocator, widths), key=lambda share: -share[2])
    return tuple(Limit(kind, name, share, share >= LIMITING_SHARE) for kind, name, share in shares)


def _shares(allocator: Allocator, widths: Widths) -> Iterator[tuple[LimitKind, str, float]]:
    costs, workload = allocator.costs, allocator.workload
    assert costs is not None, "a forecast has a cost model"
    work = workload.at(widths)
    layer_ms = costs.layer_ms(work)
    network_ms = float(costs.network_ms(work)) or 1.0
    beside_ms, factor = costs.network if isinstance(costs, FittedCosts) else (0.0, 1.0)

    def share(ms: NDArray[np.float64]) -> float:
        return factor * float(ms.sum()) / network_ms

    largest = int(np.argmax(layer_ms))
    yield "layer", workload.operations[largest].name, share(layer_ms[largest])
    is_chosen = workload.touched[list(allocator.scope.positions)].any(axis=0)
    yield "fixed layers", "", share(layer_ms[~is_chosen])
    yield "fastest widths", "", min(1.0, allocator.least["latency_ms"] / network_ms)
    if isinstance(costs, FittedCosts):
        yield "fixed cost", "", beside_ms / network_ms
    if isinstance(costs, RooflineCosts):
        times = costs.times(work)
        yield "launches", "", share(times.launch_ms)
        yield "memory", "", share(times.memory_ms)
        yield "compute", "", share(times.compute_ms)
