"""What importance is left at which speed: widths for many goals at once, none of them worse than another."""

import math

import numpy as np

from prunec.passes.allocation.allocator import Allocated, Allocator
from prunec.passes.allocation.goals import Allocation, Goals

#: Goals between the dense network and the fastest widths, both included.
_POINTS = 12


def pareto_curve(allocator: Allocator, allocation: Allocation = "auto") -> tuple[Allocated, ...]:
    """Widths from the dense network to the most that is possible, faster from one to the next.

    Their latencies are about evenly spaced in ratio. None loses more importance than one that is as fast; where the
    criterion only selects, importance isn't known, and only speed counts.

    Args:
        allocator: What was prepared for the program, with a cost model.
        allocation: How widths are chosen.

    Raises:
        UsageError: The allocator has no cost model, or the allocation compares groups by scores that the criterion
            doesn't give.
        InputError: The cost model gives the network no time that could be saved.
    """
    dense_ms, least_ms = (figures.get("latency_ms", math.nan) for figures in (allocator.dense, allocator.least))
    limits = np.geomspace(dense_ms, least_ms, _POINTS).tolist()[1:-1] if least_ms < dense_ms else []
    ends = [dense_ms, min(dense_ms, least_ms)]  # which a logarithm doesn't give back to the last bit
    goals = [Goals(latency_ms=limit) for limit in dict.fromkeys([ends[0], *limits, ends[1]])]
    chosen = sorted((allocator.allocate(goal, allocation) for goal in goals), key=_latency_ms)
    front: list[Allocated] = []
    for each in chosen:
        if not front or (_lost(each) < _lost(front[-1]) and _latency_ms(each) > _latency_ms(front[-1])):
            front.append(each)
    return tuple(reversed(front))


def _latency_ms(allocated: Allocated) -> float:
    return allocated.figures["latency_ms"]


def _lost(allocated: Allocated) -> float:
    """Importance lost; where it isn't known what is faster counts as losing more."""
    lost = allocated.importance_lost
    return -_latency_ms(allocated) if lost is None else lost
