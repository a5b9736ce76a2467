"""Facts on goals in time: the cost model of a compile, and what came of the widths that were chosen by it."""

import math
from dataclasses import dataclass

from prunec.passes.costs.cost_model import CostModel
from prunec.passes.unknown import Unknown
from prunec.runtime.latency import LatencyComparison


@dataclass(frozen=True)
class Costs:
    """The cost model of a compile.

    Attributes:
        model: The model.
        from_file: Whether a file was given that holds it.
        seconds: Duration of its measurement in this compile; 0 where nothing was measured.
    """

    model: CostModel
    from_file: bool = False
    seconds: float = 0.0

    @property
    def corrects(self) -> bool:
        """Whether the widths chosen by it are measured and corrected: it was measured here, for this compile."""
        return self.model.source == "measured" and not self.from_file


@dataclass(frozen=True)
class TimeGoal:
    """What a step is asked for in time; several goals are all to be met.

    Attributes:
        speedup: Dense over pruned latency; None where none is asked for.
        ms: Milliseconds of the pruned network; None where none are asked for.
    """

    speedup: float | None
    ms: float | None

    def reached(self, speedup: float, ms: float) -> float:
        """Share of the goal that a speed-up and milliseconds reach, of the goal that is reached least: 1 meets it."""
        shares = [speedup / self.speedup] if self.speedup is not None else []
        shares += [self.ms / ms] if self.ms is not None else []
        return min(shares, default=math.inf)


@dataclass(frozen=True)
class TimeTry:
    """Widths that were chosen for a goal in time, and what the network of these widths takes before any training.

    Attributes:
        tightened: Factor by which the goal was tightened for the choice: 1 for the goal as it was asked for.
        predicted_speedup: Dense over pruned latency by the cost model.
        predicted_ms: Milliseconds of the pruned network by the cost model.
        measured: Both networks, measured in turns; unknown where nothing was measured.
    """

    tightened: float
    predicted_speedup: float
    predicted_ms: float
    measured: LatencyComparison | Unknown


@dataclass(frozen=True)
class Timed:
    """A pruning for a goal in time.

    Attributes:
        goal: The goal.
        tries: Choices of widths, the first one for the goal as it was asked for.
        chosen: Position of the try that was taken.
        why_ended: Why no further try was made, as a sentence; empty where the last one met the goal closely.
    """

    goal: TimeGoal
    tries: tuple[TimeTry, ...]
    chosen: int = 0
    why_ended: str = ""
