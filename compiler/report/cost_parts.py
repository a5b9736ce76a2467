"""Parts of report.json that tell of goals: how widths were chosen for them, and the cost model behind goals in time."""

from typing import Annotated

from prunec.compiler.report.nulls import Maybe, NullMeans
from prunec.compiler.report.report_part import Count, Fraction, Part, SortedDict
from prunec.passes.costs.cost_model import CostSource


class CostKeyPart(Part):
    """What a cost model holds for: target, processor or GPU, library and version, CPU threads, samples at once.

    `dims` are the sizes that the engine takes, as in "batch=1:8:32"; empty where it takes any.
    """

    target: str
    hardware: str
    engine: str
    threads: Annotated[Count | None, NullMeans("CPU threads don't matter")]
    batch: Count
    dims: str = ""


class CostsPart(Part):
    """The cost model: `source` says whether its figures are measured, or predicted from a data sheet.

    One that was measured before comes `from_file`. `error` is the mean relative error on variants of the network that
    it was not fitted to, of layers and of the whole; `seconds` went into measuring it in this compile.
    """

    source: CostSource
    from_file: bool
    key: CostKeyPart
    error: SortedDict[float]
    seconds: float


class AllocationPart(Part):
    """The choice of widths for goals: how, the share of importance lost, and by quantity what the network used before.

    `predicted` is what the chosen widths use, `least` the least that is possible: of counts at the least widths, of
    time at the fastest ones. "latency_ms" is the cost model's.
    """

    allocation: str
    importance_lost: Annotated[Fraction | None, NullMeans("the criterion gives units no scores to compare")]
    goals: SortedDict[float]
    dense: SortedDict[float]
    predicted: SortedDict[float]
    least: SortedDict[float]


class TimeTryPart(Part):
    """Widths that were tried for a goal in time, which was `tightened` by a factor, before any training."""

    tightened: float
    predicted_speedup: float
    predicted_ms: float
    measured_speedup: Maybe[float]
    measured_speedup_interval: Maybe[tuple[float, float]]
    measured_ms: Maybe[float]


class TimedPart(Part):
    """A goal in time: all tries, the position of the one that was taken, and why no further one was made."""

    tries: tuple[TimeTryPart, ...]
    chosen: Count
    why_ended: str
