"""Goals in time and their cost model in words, shared by the terminal summary and the HTML page."""

from prunec.compiler.report.cost_parts import CostsPart, TimeTryPart
from prunec.compiler.report.headline_figures import percent
from prunec.compiler.report.layer_choice_words import layer_choice
from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown, known


def cost_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of every line on goals in time and on the cost model; none where there were none."""
    rows, pruning, costs = [], known(report.pruning), report.costs
    allocation = None if pruning is None else known(pruning.allocation)
    if allocation is not None:
        goals = ", ".join(f"{name} {value:g}" for name, value in allocation.goals.items())
        lost = "" if (share := allocation.importance_lost) is None else f", {percent(share)} of the importance lost"
        rows.append(("Widths", f"{allocation.allocation} allocation for {goals}{lost}"))
    timed = None if pruning is None else pruning.timed
    if timed is not None:
        words = [*map(_try_words, timed.tries), *([timed.why_ended.removesuffix(".")] if timed.why_ended else [])]
        rows.append(("Tried before training", "; ".join(words)))
    if costs is None:
        return rows
    choice = layer_choice(report)
    chosen = ["the widths"] if allocation is not None or choice is None or choice.cost_source is None else []
    chosen += [] if choice is None or choice.cost_source is None else ["the layers in higher precision"]
    return [*rows, ("Cost model", _model_words(costs, " and ".join(chosen)))]


def _try_words(tried: TimeTryPart) -> str:
    predicted = f"{tried.predicted_speedup:.2f}x predicted"
    if isinstance(tried.measured_speedup, Unknown):
        return f"{predicted}, not measured"
    return f"{predicted}, {tried.measured_speedup:.2f}x measured"


def _model_words(costs: CostsPart, chosen: str) -> str:
    """The cost model, and what was chosen by it."""
    key = costs.key
    threads = "" if key.threads is None else f", {key.threads} thread{'s' * (key.threads != 1)}"
    where = f"{key.hardware}, {f'{key.engine}, ' if key.engine else ''}batch {key.batch}{threads}"
    errors = ", ".join(f"{what} {percent(error)}" for what, error in costs.error.items())
    error = f"; mean error on variants that it was not fitted to: {errors}" if errors else ""
    if costs.source == "roofline":
        return f"roofline, a prediction from the data sheet, {where}: no time was measured to choose {chosen}{error}"
    if costs.from_file:
        return f"from a file, measured on {where}: {chosen} follow from the file{error}"
    return f"measured here in {costs.seconds:.0f} s, {where}: {chosen} depend on this measurement{error}"
