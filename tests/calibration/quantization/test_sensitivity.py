"""Sensitivity of layers and the choice of those in higher precision, against sums that are known."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunec.calibration.quantization.sensitivity import (
    LayerSensitivity,
    alone,
    fewest_kept,
    layer_costs,
    sensitivities,
    worst_first,
)
from prunec.passes import interruption
from prunec.passes.errors import UsageError
from prunec.passes.graphs import arguments, calls, unquantized
from prunec.passes.interruption import Stopped, ask_to_stop
from prunec.passes.program import Program
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import quantize
from prunec.runtime.costs.roofline import RooflineCosts, roofline_costs
from prunec.runtime.target import Target
from tests.passes.checks import Net
from tests.passes.quantization.observed import folded, ranges_of


def uneven() -> Program:
    """Four layers, of which the third reads one value far larger than all others."""
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU()]
    program = folded(nn.Sequential(*layers, nn.Conv2d(6, 4, 1)), 4, 3, 9, 9)
    tensors = program.tensors()
    with torch.no_grad():
        tensors["2.weight"][0] *= 1000
        tensors["2.bias"][0] = 1000.0
        tensors["4.weight"][:, 0] /= 1000
    return program


def test_one_layer_alone_is_quantized() -> None:
    program = uneven()
    placement = place(program)
    part = alone(program, placement, "4")
    quantized = quantize(program, part, ranges_of(program, placement), "symmetric")
    rounded = {
        str(unquantized(arguments(node)["weight"]).target): [
            unquantized(arguments(node)[name]) is not arguments(node)[name] for name in ("input", "weight")
        ]
        for node in calls(quantized.graph, "conv2d")
    }
    assert rounded == {
        "0.weight": [False, False], "2.weight": [False, False], "4.weight": [True, True], "6.weight": [False, False],
    }  # fmt: skip


def test_the_layer_that_rounding_breaks_is_found() -> None:
    program = uneven()
    placement = place(program)
    x = torch.randn(12, 3, 9, 9)
    told: list[tuple[int, int, str]] = []
    found = sensitivities(
        program, placement, ranges_of(program, placement, x), "symmetric", [x[:8], x[8:]],
        progress=lambda *state: told.append(state),
    )  # fmt: skip
    assert [each.layer for each in found] == ["0", "2", "4", "6"]
    assert worst_first(found)[0] == "4"
    others = [each.error for each in found if each.layer != "4"]
    assert found[2].error > 10 * max(others) > 0
    assert [(done, total) for done, total, _ in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [words.split(":")[0] for _, _, words in told] == ["0", "2", "4", "6"]


@torch.no_grad()
def test_errors_are_those_of_all_samples_whatever_the_batches() -> None:
    program = uneven()
    placement = place(program)
    x = torch.randn(9, 3, 9, 9)
    ranges = ranges_of(program, placement, x)
    whole, parts = (
        sensitivities(program, placement, ranges, "affine", batches) for batches in ([x], [x[:2], x[2:7], x[7:]])
    )
    assert [each.error for each in parts] == pytest.approx([each.error for each in whole], rel=1e-3)


def test_shared_layers_are_one_and_kept_ones_none() -> None:
    network = Net(lambda n, x: n.last(n.conv(n.conv(x).relu())), conv=nn.Conv2d(4, 4, 1), last=nn.Conv2d(4, 2, 1))
    program = folded(network, 2, 4, 5, 5)
    placement = place(program, ("last",))
    x = torch.randn(2, 4, 5, 5)
    found = sensitivities(program, placement, ranges_of(program, placement, x), "symmetric", [x])
    assert [each.layer for each in found] == ["conv"]
    assert found[0].cost == 2 * 4 * 4 * 25


def test_costs_are_milliseconds_or_multiply_accumulates() -> None:
    program = uneven()
    assert layer_costs(program) == {row.layer: row.macs for row in place(program).layers}
    costs = roofline_costs(Target.parse("a100-dense-fp16"), batch=1)
    assert isinstance(costs, RooflineCosts)
    predicted = layer_costs(program, costs)
    assert predicted.keys() == {"0", "2", "4", "6"}
    assert all(0 < value < 1 for value in predicted.values())


def test_sensitivity_needs_inputs() -> None:
    program = uneven()
    with pytest.raises(UsageError, match="needs calibration inputs"):
        sensitivities(program, place(program), {}, "symmetric", [])


def test_layers_are_ordered_by_the_error_that_a_millisecond_pays() -> None:
    found = [LayerSensitivity("a", 0.2, 2.0), LayerSensitivity("b", 0.3, 1.0), LayerSensitivity("c", 0.1, 0.0)]
    assert worst_first(found) == ("c", "b", "a")
    assert LayerSensitivity("d", 0.0, 0.0).error_per_cost == 0


def test_a_request_to_stop_is_heard_between_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_request", interruption._Request())

    def lost(kept: tuple[str, ...]) -> float:
        ask_to_stop(2)
        return 1.0

    tried: list[str] = []
    with pytest.raises(Stopped):
        fewest_kept("abc", lost, 0.5, lambda done, total, found: tried.append(found))
    assert len(tried) == 1


ERRORS = st.lists(st.floats(0, 1), min_size=1, max_size=9)


@given(ERRORS, st.floats(0, 4))
def test_a_limit_is_met_by_the_fewest_layers_where_errors_add_up(errors: list[float], limit: float) -> None:
    order = [f"{position}" for position in sorted(range(len(errors)), key=lambda position: -errors[position])]
    told: list[tuple[int, int, str]] = []

    def lost(kept: tuple[str, ...]) -> float:
        return math.fsum(error for position, error in enumerate(errors) if str(position) not in kept)

    choice = fewest_kept(order, lost, limit, lambda *state: told.append(state))
    assert choice.is_met
    assert choice.lost == lost(choice.kept) <= limit
    counts = range(len(choice.kept))
    assert not any(lost(kept) <= limit for count in counts for kept in itertools.combinations(order, count))
    assert len(told) == len(choice.tried) <= 2 + math.ceil(math.log2(len(order))) + len(choice.kept)
    assert all(done <= total for done, total, _ in told)


def test_layers_that_weren_t_needed_are_quantized_after_all() -> None:
    """The order is wrong: only "c" counts."""
    choice = fewest_kept("abcde", lambda kept: 0.0 if "c" in kept else 1.0, 0.5)
    assert (choice.kept, choice.lost, choice.is_met) == (("c",), 0.0, True)


def test_a_limit_that_nothing_meets_is_said_to_be_missed() -> None:
    choice = fewest_kept("abc", lambda kept: 2.0 - 0.1 * len(kept), 0.5)
    assert (choice.kept, choice.is_met) == (("a", "b", "c"), False)
    assert choice.lost == pytest.approx(1.7)
    assert not fewest_kept("", lambda _: 1.0, 0.5).is_met
