"""What a report tells of goals in time, made of the facts of a compile."""

import math
from collections.abc import Sequence

from prunec.compiler.facts.costs import Costs, Timed, TimeTry
from prunec.compiler.facts.pass_facts import Pruned
from prunec.compiler.report.cost_parts import CostsPart, TimedPart, TimeTryPart
from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown


def costs_part(costs: Costs | None) -> CostsPart | None:
    """The cost model of a compile."""
    return None if costs is None else CostsPart.of(costs.model, costs)


def timed_part(timed: Timed) -> TimedPart:
    """The tries for a goal in time."""
    return TimedPart.of(timed, tries=[_try_part(tried) for tried in timed.tries])


def _try_part(tried: TimeTry) -> TimeTryPart:
    measured = tried.measured
    if isinstance(measured, Unknown):
        return TimeTryPart.of(
            tried, measured_speedup=measured, measured_speedup_interval=measured, measured_ms=measured
        )
    return TimeTryPart.of(
        tried,
        measured_speedup=measured.speedup,
        measured_speedup_interval=measured.speedup_interval,
        measured_ms=measured.compiled.median,
    )


def _predicted_speedup(pruned: Pruned) -> float:
    assert pruned.allocation is not None, "a goal in time is one of an allocation"
    speedup: float = pruned.allocation["dense"]["latency_ms"] / pruned.allocation["predicted"]["latency_ms"]
    return speedup


def with_time_asked(report: Report, prunings: Sequence[Pruned]) -> Report:
    """The report with what was asked for and predicted beside the latency that was measured.

    Speed-ups of several prunings multiply; of milliseconds those of the last count.
    """
    timed = [pruned.timed for pruned in prunings if pruned.timed is not None]
    if not timed or isinstance(report.latency, Unknown):
        return report
    speedups = [each.goal.speedup for each in timed if each.goal.speedup is not None]
    update = {
        "asked_speedup": math.prod(speedups) if speedups else None,
        "asked_ms": next((each.goal.ms for each in reversed(timed) if each.goal.ms is not None), None),
        "predicted_speedup": math.prod(_predicted_speedup(each) for each in prunings if each.timed is not None),
    }
    return report.model_copy(update={"latency": report.latency.model_copy(update=update)})
