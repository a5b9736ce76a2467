"""What a pruning would bring on a target, before any training: the facts of ``prunec plan``, as its JSON has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prunec.passes.costs.cost_model import CostKey, CostSource

#: What a share of the time goes into, see `Limit`.
LimitKind = Literal["layer", "fixed layers", "fixed cost", "fastest widths", "launches", "memory", "compute"]


@dataclass(frozen=True)
class CostFacts:
    """The cost model that every predicted time is from.

    Attributes:
        source: "measured" on variants of the network, or "roofline" from the device's data sheet.
        from_file: Whether it was read from a file.
        key: What it holds for.
        error: Mean relative error on variants that it was not fitted to; empty where it wasn't compared with any.
        untimed: Layers without kernels of their own, which count as no time: theirs is that of the layers before.
    """

    source: CostSource
    from_file: bool
    key: CostKey
    error: Mapping[str, float]
    untimed: tuple[str, ...] = ()


@dataclass(frozen=True)
class UsedFigures:
    """What a network uses for one sample: MACs, parameters, and predicted milliseconds of one inference.

    The milliseconds are None where no times are known.
    """

    macs: int
    parameters: int
    predicted_ms: float | None


@dataclass(frozen=True)
class MeasuredTimes:
    """The dense and the pruned network, exported and timed in turns by the target's engine.

    Attributes:
        dense_ms: Median milliseconds of the dense network.
        pruned_ms: Median milliseconds of the pruned one, untrained.
        speedup: Median of the dense network over that of the pruned one.
        speedup_interval: 95 % bootstrap interval of the ratio.
        runs: Number of measurements of each.
    """

    dense_ms: float
    pruned_ms: float
    speedup: float
    speedup_interval: tuple[float, float]
    runs: int


@dataclass(frozen=True)
class TwoFourGain:
    """Predicted time without 2:4 over that with it in every layer that can hold it, by the roofline."""

    dense: float
    pruned: float


@dataclass(frozen=True)
class GroupForecast:
    """A prunable group: its name, the layers that its units are filters of, and its units before and after."""

    group: str
    layers: tuple[str, ...]
    dense: int
    kept: int


@dataclass(frozen=True)
class LayerForecast:
    """One call of a layer with what follows it up to the next.

    Attributes:
        layer: Path of the layer, with ``#2`` for its second call; empty for what comes before the first.
        operator: ATen operator of the layer.
        dense_channels: Channels that it reads and writes in the dense network.
        pruned_channels: Channels that it reads and writes in the pruned network.
        dense_ms: Predicted milliseconds in the dense network; None where no times are known.
        pruned_ms: Predicted milliseconds in the pruned network, likewise.
        two_four_gain: What 2:4 would make of those in the pruned network, by the roofline: time without over time with
            it; None where the layer can't hold it, or the device has no kernels for it.
        bound: What most of the pruned layer's time goes into by the roofline; None by a measured cost model.
    """

    layer: str
    operator: str
    dense_channels: tuple[int, int]
    pruned_channels: tuple[int, int]
    dense_ms: float | None
    pruned_ms: float | None
    two_four_gain: float | None
    bound: str | None


@dataclass(frozen=True)
class Limit:
    """A share of the pruned network's predicted time that narrower widths elsewhere don't shorten.

    Attributes:
        kind: "layer" is the one layer that takes the most; "fixed layers" are those that no width bears on; "fixed
            cost" is that of a run, which belongs to no layer, and only a measured model tells it; "fastest widths" is
            what is left at the fastest widths; "launches", "memory" and "compute" are what the time goes
            into, which only a roofline tells.
        name: The layer; empty for the others.
        share: Share of the time, 0 to 1.
        limits: Whether it is at least half, so that it limits what can be gained.
    """

    kind: LimitKind
    name: str
    share: float
    limits: bool


@dataclass(frozen=True)
class CurvePoint:
    """Widths for one goal.

    Attributes:
        predicted_speedup: Dense over pruned predicted time.
        predicted_ms: Predicted milliseconds.
        macs_speedup: Dense over pruned MACs.
        importance_kept: Share of the importance of all units that is kept; None where the criterion only selects.
    """

    predicted_speedup: float
    predicted_ms: float
    macs_speedup: float
    importance_kept: float | None


@dataclass(frozen=True)
class Forecast:
    """A pruning that was planned for a target; nothing was trained. None stands for what isn't known.

    Attributes:
        target: The target in its full form.
        step: The step of the pipeline that the plan is of, as text.
        seed: Seed of every random choice.
        goals: The goals that are met, by name; empty where a ratio gives the widths.
        allocation: How widths were chosen; "ratio" where a ratio gives them.
        cost_model: The cost model that every predicted time is from; None where no times are known.
        why_no_times: Why not, as a sentence; empty where they are known.
        dense: What the dense network uses.
        pruned: What the pruned one uses.
        least: The least of each figure that is possible with the same branches: counts at the least widths, time at the
            fastest ones.
        predicted_speedup: Dense over pruned predicted time.
        importance_kept: Share of the importance of all units that is kept.
        measured: Times as measured; None where they weren't.
        why_not_measured: Why not, as a sentence; empty where they were.
        two_four: Gain of 2:4; None where the device has no kernels for it, or it isn't known.
        why_no_two_four: Which of the two, and why, as a sentence; empty where the gain is known.
        removed_branches: Residual branches that go, each by its last layer.
        groups: The prunable groups of what is left without them.
        layers: The layers, in the order of execution; those of branches that go are pruned to 0 channels and 0 ms.
        limits: What limits, the largest share first; empty where no times are known, as is the curve.
        curve: What importance is left at which speed, from the dense network to the fastest widths; where branches go,
            all points behind the dense network are widths of what is left without them.
    """

    target: str
    step: str
    seed: int
    goals: Mapping[str, float]
    allocation: str
    cost_model: CostFacts | None
    why_no_times: str
    dense: UsedFigures
    pruned: UsedFigures
    least: UsedFigures
    predicted_speedup: float | None
    importance_kept: float | None
    measured: MeasuredTimes | None
    why_not_measured: str
    two_four: TwoFourGain | None
    why_no_two_four: str
    removed_branches: tuple[str, ...]
    groups: tuple[GroupForecast, ...]
    layers: tuple[LayerForecast, ...]
    limits: tuple[Limit, ...]
    curve: tuple[CurvePoint, ...]
