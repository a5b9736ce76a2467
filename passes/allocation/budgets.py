"""Goals as budgets: limits of what a network with some widths uses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.goals import BYTES_PER_PARAMETER, Goals
from prunec.passes.base import Aim
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.workload import COUNTS, Work
from prunec.passes.errors import InputError, OutOfReachError, UsageError

#: What a limit may be exceeded by, relative: the noise of sums in float64, which is less than one MAC.
_NOISE = 1e-12


#: The quantities that goals are about, and what less of each is, in words.
SAVED: Mapping[str, str] = {
    "macs": "MACs removed",
    "parameters": "parameters removed",
    "latency_ms": "milliseconds saved by the cost model's word",
}


@dataclass(frozen=True)
class Quantity:
    """Something that a network uses more of the wider it is.

    Attributes:
        name: Name in figures, with the unit, one of `SAVED`.
        counts: The counts of `Work` that it is a function of.
        usage: How much of it some work uses, float64 (...,).
        dense_usage: How much of it a network of some work uses before it is pruned and 2:4 is put on it.
    """

    name: str
    counts: frozenset[str]
    usage: Callable[[Work], NDArray[np.float64]]
    dense_usage: Callable[[Work], NDArray[np.float64]]


def _total(count: str) -> Quantity:
    def usage(work: Work) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.rint(getattr(work, count).sum(axis=-1))
        return total

    return Quantity(count, frozenset({count}), usage, usage)


MACS = _total("macs")
PARAMETERS = _total("parameters")


def latency(costs: CostModel) -> Quantity:
    """Milliseconds of one inference, by the word of a cost model."""
    return Quantity("latency_ms", frozenset(COUNTS), costs.network_ms, costs.plain.network_ms)


def quantities(costs: CostModel | None) -> tuple[Quantity, ...]:
    """Everything that is told of some widths."""
    return (MACS, PARAMETERS) if costs is None else (MACS, PARAMETERS, latency(costs))


@dataclass(frozen=True)
class Budget:
    """The limit that a goal sets to a quantity.

    Attributes:
        goal: Name of the goal.
        asked: Value that the goal asks for.
        quantity: Quantity that the budget limits.
        dense: How much of it the network uses before it is pruned.
    """

    goal: str
    asked: float
    quantity: Quantity
    dense: float

    @property
    def limit(self) -> float:
        """The most of the quantity that may be used."""
        if self._is_factor:
            return self.dense / self.asked
        return self.asked * 1e6 / BYTES_PER_PARAMETER if self.goal == "size_mb" else self.asked

    @property
    def _is_factor(self) -> bool:
        return self.goal.endswith("speedup")

    def aim(self, used: float) -> Aim:
        """What is asked for, and what becomes of it by using so much."""
        asked = self.dense * (1 - 1 / self.asked) if self._is_factor else self.dense - self.limit
        if asked <= _NOISE * self.limit:  # nothing need go, by the tolerance of `within`
            asked = 0.0
        return Aim(SAVED[self.quantity.name], asked, max(0.0, self.dense - used))

    def holds(self, figures: Mapping[str, float]) -> bool:
        """Whether the use of each quantity, by its name, keeps the limit."""
        return bool(within(np.array([figures[self.quantity.name] / self.limit])))

    def out_of_reach(self, least: float) -> str:
        """A sentence that says what is possible, rounded so that it can be asked for."""
        name = self.quantity.name
        word = " by the cost model's word" if name == "latency_ms" else ""
        if self._is_factor:
            what = "MACs" if name == "macs" else "latency"
            largest = floor(100 * self.dense / least) / 100
            return f"A speed-up of {self.asked:g}x in {what} can't be reached: the largest is {largest:.2f}x{word}."
        possible = {
            "parameters": f"{ceil(least)}",
            "latency_ms": f"{_rounded_up(least):g} ms",
            "size_mb": f"{_rounded_up(least * BYTES_PER_PARAMETER / 1e6):g} MB in float32",
        }[self.goal]
        return f"{self.goal}={self.asked:g} can't be reached: the least is {possible}{word}."


def out_of_reach(budgets: Sequence[Budget], least: Mapping[str, float]) -> OutOfReachError:
    """The error where budgets can't be kept, of which ``least`` is the least possible use of each quantity."""
    broken = [budget for budget in budgets if not budget.holds(least)]
    kept = " and ".join(f"{budget.goal}={budget.asked:g}" for budget in budgets if budget not in broken)
    in_time = bool(broken) and all(budget.quantity.name == "latency_ms" for budget in broken)
    lines = [budget.out_of_reach(least[budget.quantity.name]) for budget in broken]
    if in_time and kept:
        lines.append(f"That is the most where {kept} is met, too.")
    return OutOfReachError(
        "\n".join(lines) or f"{kept} can't be met together, though each of them can.",
        hint="Lower the target, let more layers be pruned, or lower round_to or min_channels.",
        possible=min(budget.limit / least[budget.quantity.name] for budget in broken) if in_time else None,
    )


def _rounded_up(value: float) -> float:
    """Four significant figures that are no less than the value."""
    unit = 10.0 ** (floor(log10(value)) - 3)
    return float(ceil(value / unit * (1 - _NOISE)) * unit)


def budgets_of(goals: Goals, costs: CostModel | None, dense: Work) -> tuple[Budget, ...]:
    """The budgets of goals, in the order in which `Goals` lists them.

    Args:
        goals: The goals.
        costs: The cost model; None where there is none.
        dense: The work of the network before it is pruned.

    Raises:
        UsageError: A goal is a latency, and there is no cost model.
        InputError: The cost model gives the network no time that could be saved.
    """
    if goals.needs_costs and costs is None:
        latencies = " and ".join(name for name in goals.given if name.startswith("latency"))
        raise UsageError(
            f"{latencies} is asked for, and there is no cost model to choose widths by.",
            hint="PruneFilters(...).run(program, costs=...) takes one; `prunec measure-costs` measures one.",
        )
    by_goal = {"speedup": MACS, "parameters": PARAMETERS, "size_mb": PARAMETERS}
    if costs is not None:
        by_goal |= dict.fromkeys(("latency_speedup", "latency_ms"), latency(costs))
    budgets = [Budget(name, asked, by_goal[name], _used(by_goal[name], dense)) for name, asked in goals.given.items()]
    for budget in budgets:
        if not 0 < budget.dense < np.inf:
            raise InputError(f"The dense network has {budget.quantity.name} {budget.dense}: expected a number above 0.")
    return tuple(budgets)


def _used(quantity: Quantity, work: Work) -> float:
    return float(quantity.dense_usage(work))


def within(filled: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether all budgets hold, bool (...,), of fills (..., budgets)."""
    is_within: NDArray[np.bool_] = np.all(filled <= 1 + _NOISE, axis=-1)
    return is_within
