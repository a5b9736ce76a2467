"""A forecast in words, shared by the terminal and the page."""

from collections.abc import Sequence
from decimal import Decimal

from prunec.compiler.facts.forecast import Forecast, LayerForecast, Limit
from prunec.compiler.report.headline_figures import NOT_MEASURED, UNKNOWN, si

_BEFORE = "(before the first layer)"
_LIMITS = {
    "layer": "the layer {}",
    "fixed layers": "layers that no width of a prunable group bears on",
    "fixed cost": "the fixed cost of a run, which belongs to no layer",
    "fastest widths": "left at the fastest widths",
    "launches": "launching kernels",
    "memory": "moving data",
    "compute": "computing",
}
NOT_KNOWN = "not known"


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{Decimal(f'{value:.3g}'):f}"


def layer_name(layer: str) -> str:
    """The name of a layer's call; that of what comes before the first layer is empty in a forecast."""
    return layer or _BEFORE


def channels(layer: LayerForecast) -> str:
    """Channels that a layer reads and writes, dense and pruned: ``64>128 to 32>80``; one pair where both are equal."""
    dense, pruned = (f"{reads}>{writes}" for reads, writes in (layer.dense_channels, layer.pruned_channels))
    if layer.pruned_channels == (0, 0):
        return f"{dense}, gone"
    return dense if dense == pruned else f"{dense} to {pruned}"


def gain(value: float | None) -> str:
    """A ratio of times; a dash where it isn't known."""
    return UNKNOWN if value is None else f"{digits(value)}x"


def goal_words(forecast: Forecast) -> str:
    """What is asked for: ``latency_speedup=1.5 (greedy)``."""
    goals = ", ".join(f"{name}={value:g}" for name, value in forecast.goals.items())
    return f"{goals} ({forecast.allocation})" if goals else "the ratio of the recipe"


def figure_rows(forecast: Forecast) -> list[tuple[str, ...]]:
    """What is told of the whole network: name, dense, pruned, their ratio, and the largest that is possible."""
    dense, pruned, least, kept = forecast.dense, forecast.pruned, forecast.least, forecast.importance_kept
    return [
        _predicted_row(forecast),
        _measured_row(forecast),
        _count_row("MACs", dense.macs, pruned.macs, least.macs),
        _count_row("parameters", dense.parameters, pruned.parameters, least.parameters),
        ("importance", "100 %", UNKNOWN if kept is None else _percent(kept), "", ""),
    ]


def _predicted_row(forecast: Forecast) -> tuple[str, ...]:
    if (speedup := forecast.predicted_speedup) is None:
        return "predicted ms", UNKNOWN, UNKNOWN, NOT_KNOWN, ""
    times = _ms(forecast.dense.predicted_ms), _ms(forecast.pruned.predicted_ms)
    return "predicted ms", *times, gain(speedup), gain(most_possible(forecast))


def most_possible(forecast: Forecast) -> float | None:
    """Predicted speed-up at the fastest widths; None where no times are known."""
    dense_ms, least_ms = forecast.dense.predicted_ms, forecast.least.predicted_ms
    return None if dense_ms is None or least_ms is None else dense_ms / least_ms


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else digits(value)


def _measured_row(forecast: Forecast) -> tuple[str, ...]:
    if (times := forecast.measured) is None:
        return "measured ms", UNKNOWN, UNKNOWN, NOT_MEASURED, ""
    return "measured ms", digits(times.dense_ms), digits(times.pruned_ms), gain(times.speedup), ""


def _count_row(name: str, dense: int, pruned: int, least: int) -> tuple[str, ...]:
    return name, si(dense), si(pruned), f"{dense / pruned:.2f}x", f"{dense / least:.2f}x"


def cost_words(forecast: Forecast) -> str:
    """A sentence on where predicted times are from, or why there are none."""
    if (costs := forecast.cost_model) is None:
        advice = "A cost model tells them (prunec measure-costs on the device)."
        return f"Times are not known: {forecast.why_no_times} {advice}"
    key = costs.key
    if costs.source == "roofline":
        return f"Predicted times are from the data sheet of {key.hardware}, not measurements."
    where = f"measured on {key.hardware} with {key.engine}{' and read from a file' if costs.from_file else ''}"
    error = costs.error.get("network")
    off = "" if error is None else f", off by {100 * error:.1f} % in the mean on variants that it wasn't fitted to"
    untimed = f" No time of their own: {', '.join(costs.untimed)}." if costs.untimed else ""
    return f"Predicted times are those of a cost model, {where}{off}.{untimed}"


def measured_words(forecast: Forecast) -> str:
    """A sentence on what was measured, or why nothing was."""
    if (times := forecast.measured) is None:
        return f"Not measured: {forecast.why_not_measured}"
    low, high = times.speedup_interval
    return f"Measured in {times.runs} turns: {times.speedup:.2f}x (95 % interval {low:.2f} to {high:.2f}x), untrained."


def two_four_words(forecast: Forecast) -> str:
    """A sentence on what 2:4 brings apart from pruning."""
    if forecast.two_four is None:
        return forecast.why_no_two_four
    dense, pruned = gain(forecast.two_four.dense), gain(forecast.two_four.pruned)
    return f"2:4 in every layer that can hold it is predicted to bring {dense} dense and {pruned} pruned (data sheet)."


def limit_words(limits: Sequence[Limit]) -> list[str]:
    """One line for each limit; one that says so where there is none, or where none is known."""
    if not limits:
        return [NOT_KNOWN]
    lines = [f"{_percent(each.share)}: {_LIMITS[each.kind].format(layer_name(each.name))}" for each in limits]
    limiting = [line for line, each in zip(lines, limits, strict=True) if each.limits]
    return limiting or [f"no single thing takes half; the most is {lines[0]}"]


def layer_table(forecast: Forecast) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of the layers that take time, slowest first; without times of all, in their order.

    Columns of which nothing is known are left out.
    """
    has_bound, has_times = any(layer.bound for layer in forecast.layers), forecast.cost_model is not None
    columns: tuple[str, ...] = ("layer", "channels") + ("ms", "pruned") * has_times
    columns += ("2:4",) * (forecast.two_four is not None) + ("bound by",) * has_bound
    rows = []
    for layer in sorted(forecast.layers, key=lambda layer: -(layer.dense_ms or 0)):
        cells = [layer_name(layer.layer), channels(layer)]
        cells += [_ms(layer.dense_ms), _ms(layer.pruned_ms)] * has_times
        cells += [gain(layer.two_four_gain)] * (forecast.two_four is not None)
        cells += [layer.bound or UNKNOWN] * has_bound
        rows += [tuple(cells)] * bool(layer.dense_ms if has_times else layer.operator)
    return columns, rows


def curve_rows(forecast: Forecast) -> list[tuple[str, ...]]:
    """Of each point of the curve: predicted speed-up, milliseconds, fewer MACs, importance kept."""
    return [
        (
            gain(point.predicted_speedup),
            digits(point.predicted_ms),
            f"{point.macs_speedup:.2f}x",
            UNKNOWN if point.importance_kept is None else _percent(point.importance_kept),
        )
        for point in forecast.curve
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
