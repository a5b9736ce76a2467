"""The facts of a forecast, made of a pruning's result, a cost model, and what was measured."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.commands.forecast_limits import limits_of
from prunec.compiler.commands.look_ahead import why_no_two_four
from prunec.compiler.facts.costs import Costs
from prunec.compiler.facts.forecast import (
    CostFacts,
    CurvePoint,
    Forecast,
    GroupForecast,
    LayerForecast,
    MeasuredTimes,
    TwoFourGain,
    UsedFigures,
)
from prunec.compiler.pipeline.pipeline import Step
from prunec.passes.allocation.allocator import Allocated, Allocator
from prunec.passes.allocation.branch_parts import Worth
from prunec.passes.allocation.curve import pareto_curve
from prunec.passes.allocation.depth import worth_of
from prunec.passes.allocation.space import Widths
from prunec.passes.base import PassResult
from prunec.passes.branch_removal import remove_branches
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.costs.workload import Work
from prunec.passes.patterns.eligibility import eligibility
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown, reason_of
from prunec.runtime.costs.roofline import RooflineCosts, roofline_costs
from prunec.runtime.latency import LatencyComparison
from prunec.runtime.target import Target

#: Digits of what a roofline predicts.
_DIGITS = 3


@dataclass(frozen=True, eq=False)
class Planned:
    """A pruning that was planned.

    Attributes:
        program: The program that is pruned.
        options: The options of the pruning.
        costs: The cost model, or why there is none.
        dense: What was prepared for the program, with the cost model if there is one.
        left: The same for the program without the branches that go; `dense` where none does.
        result: The result of the pass.
    """

    program: Program
    options: PruneFilters
    costs: Costs | Unknown
    dense: Allocator
    left: Allocator
    result: PassResult

    @cached_property
    def widths(self) -> Widths:
        """Units kept in each group of what is left, int64 (groups,)."""
        return np.array([group["kept"] for group in self.result.stats["groups"]], dtype=np.int64)

    @cached_property
    def figures(self) -> Mapping[str, float]:
        """What the pruned network uses, by name."""
        return self.left.figures(self.widths)

    @property
    def model(self) -> CostModel | None:
        """What tells milliseconds; None where nothing does."""
        return None if isinstance(self.costs, Unknown) else self.costs.model

    @property
    def speedup(self) -> float | None:
        """Dense over pruned predicted time; None where no times are known."""
        if self.model is None:
            return None
        return self.dense.dense["latency_ms"] / self.figures["latency_ms"]

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the residual branches that go."""
        return () if self.result.plan is None else tuple(each.name for each in self.result.plan.removed_branches)

    @property
    def importance_lost(self) -> float | None:
        """Share of the importance of all units that is lost; None where the criterion only selects."""
        told = self.result.stats.get("allocation", {})
        return told["importance_lost"] if told else self.left.importance_lost(self.widths)

    @cached_property
    def _worth(self) -> Worth:
        return worth_of(self.program, self.dense, self.options)

    def lost_at(self, allocated: Allocated) -> float | None:
        """Share of the dense network's importance that is lost at some widths of what is left."""
        if not self.branches:
            return allocated.importance_lost
        shallower = remove_branches(self.program, self.branches)
        return self._worth.share(self._worth.kept(shallower, self.left, allocated.widths))


def forecast(planned: Planned, measured: LatencyComparison | Unknown, target: Target, batch: int) -> Forecast:
    """The facts of a planned pruning, and of both networks as measured, on a target at some samples at once."""
    options, lost = planned.options, planned.importance_lost
    rounded = _rounded(planned.model)
    sparse = _TwoFour.of(planned, target, batch)
    return Forecast(
        target=str(target),
        step=str(Step(options.name, options)),
        seed=options.seed or 0,
        goals=options.goals.given,
        allocation=planned.result.stats.get("allocation", {}).get("allocation", "ratio"),
        cost_model=_cost_facts(planned.costs),
        why_no_times=reason_of(planned.costs),
        dense=_figures(planned.dense.dense, rounded),
        pruned=_figures(planned.figures, rounded),
        least=_figures(planned.left.least, rounded),
        predicted_speedup=None if planned.speedup is None else rounded(planned.speedup),
        importance_kept=None if lost is None else 1 - lost,
        measured=None if isinstance(measured, Unknown) else _measured_times(measured),
        why_not_measured=reason_of(measured),
        two_four=sparse.network,
        why_no_two_four=sparse.why_not,
        removed_branches=planned.branches,
        groups=tuple(_groups(planned)),
        layers=tuple(_layers(planned, sparse, rounded)),
        limits=() if planned.model is None else limits_of(planned.left, planned.widths),
        curve=() if planned.model is None else tuple(_curve(planned, rounded)),
    )


def _cost_facts(costs: Costs | Unknown) -> CostFacts | None:
    if isinstance(costs, Unknown):
        return None
    model = costs.model
    untimed = model.untimed if isinstance(model, FittedCosts) else ()
    return CostFacts(model.source, costs.from_file, model.key, dict(model.error), untimed)


def _rounded(model: CostModel | None) -> Callable[[float], float]:
    """Rounding of what a cost model predicts: from a data sheet no more digits are told than are meant."""
    return _significant if model is not None and model.source == "roofline" else float


def _figures(figures: Mapping[str, float], rounded: Callable[[float], float]) -> UsedFigures:
    ms = figures.get("latency_ms")
    return UsedFigures(int(figures["macs"]), int(figures["parameters"]), None if ms is None else rounded(ms))


def _measured_times(latency: LatencyComparison) -> MeasuredTimes:
    medians = latency.dense.median, latency.compiled.median
    return MeasuredTimes(*medians, latency.speedup, latency.speedup_interval, latency.runs)


def _groups(planned: Planned) -> Iterator[GroupForecast]:
    for group in planned.result.stats["groups"]:
        yield GroupForecast(group["name"], tuple(group["layers"]), group["width"], group["kept"])


def _layers(planned: Planned, sparse: "_TwoFour", rounded: Callable[[float], float]) -> Iterator[LayerForecast]:
    model = planned.model
    dense = planned.dense.workload.at(planned.dense.dense_widths)
    pruned = planned.left.workload.at(planned.widths)
    plain = None if model is None else model.plain
    dense_ms, pruned_ms = _layer_ms(plain, dense, rounded), _layer_ms(model, pruned, rounded)
    times = model.times(pruned) if isinstance(model, RooflineCosts) else None
    places = {operation.name: place for place, operation in enumerate(pruned.operations)}
    for place, operation in enumerate(dense.operations):
        after = places.get(operation.name)
        yield LayerForecast(
            layer=operation.name,
            operator=operation.operator,
            dense_channels=_channels(dense, place),
            pruned_channels=(0, 0) if after is None else _channels(pruned, after),
            dense_ms=dense_ms[place],
            pruned_ms=0.0 if after is None else pruned_ms[after],
            two_four_gain=sparse.layers.get(operation.name),
            bound=None if times is None or after is None else times.of([after]).bound,
        )


def _layer_ms(model: CostModel | None, work: Work, rounded: Callable[[float], float]) -> list[float | None]:
    return [None] * len(work.operations) if model is None else [rounded(ms) for ms in model.layer_ms(work).tolist()]


def _channels(work: Work, place: int) -> tuple[int, int]:
    return int(work.in_channels[place]), int(work.out_channels[place])


def _curve(planned: Planned, rounded: Callable[[float], float]) -> Iterator[CurvePoint]:
    """The dense network, and the widths of what is left without the branches that go."""
    dense, left, allocation = planned.dense.dense, planned.left, planned.options.allocation
    points = [(each.figures, planned.lost_at(each)) for each in pareto_curve(left, allocation)]
    for figures, lost in [(dense, 0.0), *points] if planned.branches else points:
        ms = figures["latency_ms"]
        yield CurvePoint(
            predicted_speedup=rounded(dense["latency_ms"] / ms),
            predicted_ms=rounded(ms),
            macs_speedup=dense["macs"] / figures["macs"],
            importance_kept=None if lost is None else 1 - lost,
        )


@dataclass(frozen=True)
class _TwoFour:
    """What 2:4 brings by the roofline: for the networks, and by the name of each layer of the pruned one."""

    network: TwoFourGain | None
    layers: Mapping[str, float]
    why_not: str = ""

    @classmethod
    def of(cls, planned: Planned, target: Target, batch: int) -> "_TwoFour":
        if why_not := why_no_two_four(target):
            return cls(None, {}, f"2:4 brings nothing here: {why_not}.")
        plain = roofline_costs(target, batch)
        if isinstance(plain, Unknown):
            return cls(None, {}, f"What 2:4 brings is not known: {plain.reason}")
        dense, _ = _gains(plain, planned.program, planned.dense.workload.at(planned.dense.dense_widths))
        pruned, layers = _gains(plain, planned.result.program, planned.left.workload.at(planned.widths))
        return cls(TwoFourGain(dense, pruned), layers)


def _gains(plain: RooflineCosts, program: Program, work: Work) -> tuple[float, Mapping[str, float]]:
    """Time without over time with 2:4: of a whole program, and of each layer that can hold it by its name."""
    weights = frozenset(layer.weight for layer in eligibility(program) if layer.eligible)
    sparse = replace(plain, sparse_weights=weights)
    gains = _gain(plain.layer_ms(work), sparse.layer_ms(work))
    by_name = {each.name: gain for each, gain in zip(work.operations, gains, strict=True) if each.weight in weights}
    network = float(plain.network_ms(work) / sparse.network_ms(work))
    return _significant(network), {name: _significant(float(gain)) for name, gain in by_name.items()}


def _significant(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _gain(without_ms: NDArray[np.float64], with_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time without over time with, 1 where neither takes any."""
    return np.divide(without_ms, with_ms, out=np.ones_like(without_ms), where=with_ms > 0)
