"""What a forecast tells: limits by their rule, words, and the page."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prunec.compiler.commands.forecast_limits import LIMITING_SHARE, limits_of
from prunec.compiler.drawing.forecast_charts import forecast_charts
from prunec.compiler.drawing.forecast_page import render_forecast
from prunec.compiler.facts.forecast import (
    CostFacts,
    CurvePoint,
    Forecast,
    GroupForecast,
    LayerForecast,
    Limit,
    LimitKind,
    MeasuredTimes,
    TwoFourGain,
    UsedFigures,
)
from prunec.compiler.report import forecast_words
from prunec.passes.allocation.allocator import Allocator
from prunec.passes.costs.cost_model import CostKey, CostSource
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.workload import Work
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.costs.roofline import RooflineCosts, roofline_costs
from prunec.runtime.target import Target
from tests.architectures.resnet import cifar_resnet
from tests.passes.checks import captured, normal
from tests.passes.costs.synthetic import engine

KEY = CostKey("a100-2:4-fp16", "NVIDIA A100", "", None, 1)
HOSTILE = '</script><img src="https://example.org/x">'


def sample(**changes: Any) -> Forecast:
    """A forecast by a roofline."""
    layers = (
        LayerForecast("", "", (0, 0), (0, 0), 0.0, 0.0, None, "launch"),
        LayerForecast("conv1", "conv2d", (3, 64), (3, 32), 0.3, 0.2, None, "compute"),
        LayerForecast("conv2", "conv2d", (64, 64), (32, 64), 0.7, 0.3, 1.23, "memory"),
    )
    forecast = Forecast(
        target="a100-2:4-fp16",
        step="prune-filters{latency_speedup=2.0}",
        seed=0,
        goals={"latency_speedup": 2.0},
        allocation="greedy",
        cost_model=CostFacts("roofline", False, KEY, {}),
        why_no_times="",
        dense=UsedFigures(1_000_000, 50_000, 1.0),
        pruned=UsedFigures(400_000, 20_000, 0.5),
        least=UsedFigures(10_000, 1_000, 0.2),
        predicted_speedup=2.0,
        importance_kept=0.8125,
        measured=None,
        why_not_measured="needs the device (NVIDIA A100), which isn't here.",
        two_four=TwoFourGain(1.3, 1.1),
        why_no_two_four="",
        removed_branches=(),
        groups=(GroupForecast("conv1", ("conv1",), 64, 32),),
        layers=layers,
        limits=(Limit("launches", "", 0.75, True), Limit("layer", "conv2", 0.6, True), Limit("memory", "", 0.1, False)),
        curve=(CurvePoint(1.0, 1.0, 1.0, 1.0), CurvePoint(5.0, 0.2, 100.0, 0.1)),
    )
    return replace(forecast, **changes)


@dataclass(frozen=True)
class OneSlowLayer:
    """A cost model by which one operation takes nearly all the time, whatever its widths."""

    slow: int
    key: CostKey = KEY
    source: CostSource = "measured"
    error: Any = None

    @property
    def plain(self) -> "OneSlowLayer":
        return self

    def layer_ms(self, work: Work) -> NDArray[np.float64]:
        ms = np.full_like(work.macs, 0.01) + 1e-9 * work.macs
        ms[..., self.slow] += 10
        return ms

    def network_ms(self, work: Work) -> NDArray[np.float64]:
        return np.asarray(self.layer_ms(work).sum(axis=-1))


def allocator(costs: Any) -> Allocator:
    program = captured(cifar_resnet(8, width=32), normal(2, 3, 16, 16))
    return Allocator.of(program, PruneFilters(ratio=0.0), costs)


def by_kind(limits: tuple[Limit, ...]) -> dict[LimitKind, Limit]:
    return {each.kind: each for each in limits}


def test_one_layer_that_holds_most_of_the_time_limits() -> None:
    prepared = allocator(OneSlowLayer(3))
    limits = limits_of(prepared, np.array([group.count for group in prepared.scope.coupling.groups]))
    found = by_kind(limits)
    assert found["layer"].name == prepared.workload.operations[3].name
    assert found["layer"].limits
    assert found["layer"].share > 0.9
    assert found["fastest widths"].limits  # what no width changes is left at any
    assert not found["fixed layers"].limits
    assert set(found) == {"layer", "fixed layers", "fastest widths"}  # a measured model doesn't tell what times go into


def test_shares_are_of_the_networks_time_and_what_belongs_to_no_layer_is_one_of_them() -> None:
    program = captured(cifar_resnet(8, width=32), normal(2, 3, 16, 16))
    costs = replace(engine(work_of(program), seed=1), network=(2.0, 3.0))
    prepared = allocator(costs)
    widths = np.array([group.count for group in prepared.scope.coupling.groups])
    found, work = by_kind(limits_of(prepared, widths)), prepared.workload.at(widths)
    layer_ms, network_ms = costs.layer_ms(work), float(costs.network_ms(work))
    assert network_ms == pytest.approx(2 + 3 * layer_ms.sum())
    assert found["fixed cost"].share == pytest.approx(2 / network_ms)
    assert found["layer"].share == pytest.approx(3 * layer_ms.max() / network_ms)
    assert found["fixed layers"].share <= 1 - found["fixed cost"].share


@pytest.mark.parametrize(("batch", "limiting"), [(1, "launches"), (4096, "compute")])
def test_what_a_roofline_tells(batch: int, limiting: LimitKind) -> None:
    costs = roofline_costs(Target.parse("a100"), batch)
    assert isinstance(costs, RooflineCosts)
    prepared = allocator(costs)
    widths = np.array([group.count for group in prepared.scope.coupling.groups])
    limits = limits_of(prepared, widths)
    found = by_kind(limits)
    assert found[limiting].limits
    assert sum(found[kind].share for kind in ("launches", "memory", "compute")) == pytest.approx(1)
    assert all(each.limits == (each.share >= LIMITING_SHARE) for each in limits)
    shares = [each.share for each in limits]
    assert shares == sorted(shares, reverse=True)
    assert all(0 <= share <= 1 for share in shares)


def test_layers_that_no_width_bears_on_are_told() -> None:
    costs = roofline_costs(Target.parse("a100"), 1)
    program = captured(cifar_resnet(8, width=32), normal(2, 3, 16, 16))
    prepared = Allocator.of(program, PruneFilters(ratio=0.0, ignore=("layer1*", "layer2*", "stem")), costs)  # type: ignore[arg-type]
    everything = allocator(costs)
    widths = np.array([group.count for group in prepared.scope.coupling.groups])
    some, none = (by_kind(limits_of(each, widths))["fixed layers"].share for each in (prepared, everything))
    assert some > none == 0


def test_words_mark_predictions_as_such() -> None:
    forecast = sample()
    assert "not measurements" in forecast_words.cost_words(forecast)
    assert forecast_words.measured_words(forecast).startswith("Not measured: needs the device")
    rows = {row[0]: row[1:] for row in forecast_words.figure_rows(forecast)}
    assert rows["predicted ms"] == ("1", "0.5", "2x", "5x")
    assert rows["measured ms"][2] == "not measured"
    assert rows["importance"][1] == "81.2 %"
    assert forecast_words.limit_words(forecast.limits) == ["75.0 %: launching kernels", "60.0 %: the layer conv2"]
    assert forecast_words.limit_words(forecast.limits[2:]) == [
        "no single thing takes half; the most is 10.0 %: moving data"
    ]
    columns, layers = forecast_words.layer_table(forecast)
    assert columns == ("layer", "channels", "ms", "pruned", "2:4", "bound by")
    assert layers[0] == ("conv2", "64>64 to 32>64", "0.7", "0.3", "1.23x", "memory")
    assert len(layers) == 2  # what takes no time is left out


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    layers = tuple(replace(layer, bound=None, two_four_gain=None) for layer in sample().layers)
    columns, _ = forecast_words.layer_table(sample(layers=layers, two_four=None, why_no_two_four="none."))
    assert columns == ("layer", "channels", "ms", "pruned")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1230"),
        (0.00012345, "0.000123"),
        (1.0, "1"),
        (33.149, "33.1"),
        (1e-5, "0.00001"),
        (1234567.0, "1230000"),
        (0.0, "0"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert forecast_words.digits(value) == text


def test_the_page_loads_nothing_and_shows_the_figures() -> None:
    page = render_forecast(sample(), "prunec plan model.pt")
    assert "default-src 'none'" in page
    body, _, charts = page.partition("<script>")
    for words in ("a prediction, before any training", "2x", "81.2 %", "not measured", "launching kernels", "1.23x"):
        assert words in body
    assert not re.search(r'(src|href)="http', body)
    assert set(forecast_charts(sample())) == {"curve", "layers", "groups"}
    assert all(f'id="chart-{name}"' in body for name in ("curve", "layers", "groups"))
    assert charts
    assert render_forecast(sample(), "prunec plan model.pt") == page


def test_names_are_escaped() -> None:
    layers = tuple(replace(layer, layer=HOSTILE) for layer in sample().layers)
    assert HOSTILE not in render_forecast(sample(layers=layers), HOSTILE)


def test_without_importance_there_is_no_curve_to_draw() -> None:
    curve = tuple(replace(point, importance_kept=None) for point in sample().curve)
    assert set(forecast_charts(sample(curve=curve, importance_kept=None))) == {"layers", "groups"}


def test_measured_times_stand_beside_predicted_ones() -> None:
    measured = MeasuredTimes(1.02, 0.55, 1.85, (1.8, 1.9), 50)
    page = render_forecast(sample(measured=measured, why_not_measured=""), "prunec plan model.pt")
    assert "1.85x (95 % interval 1.80 to 1.90x), untrained." in page
