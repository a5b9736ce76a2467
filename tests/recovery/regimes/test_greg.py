"""The hooks "greg-1" and "greg-2": the penalty's course, the decay by it, the filters that it chooses, and the cut."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from prunec.calibration.data import Data
from prunec.compiler.recovery.recover import Recover
from prunec.compiler.recovery.regimes.greg import Greg1, Greg2
from prunec.compiler.recovery.regimes.penalty_course import PenaltyCourse
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.errors import UsageError
from prunec.passes.filter_pruning import kept_by
from prunec.passes.program import Program
from tests.recovery.networks import run, same, state
from tests.recovery.regimes.toys import (
    OPTIONS,
    PRUNING,
    STEPS,
    Watch,
    cut,
    difference,
    others,
    plain,
    prepare,
    redrawn,
    stays,
)
from tests.recovery.toy_hooks import Toy

BY_L1 = replace(PRUNING, criterion="l1")
#: A training whose loss moves nothing.
STILL = replace(OPTIONS, momentum=0.0, weight_decay=0.0, epochs=1)
#: What belongs to the units of a group: filters, and the rest.
OWN = {"0": (("0.weight",), ("1.weight", "1.bias")), "3": (("3.weight",), ("3.bias", "4.weight", "4.bias"))}


def frozen(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs.sum() * 0.0


def by_l1(program: Program) -> dict[str, list[int]]:
    """The filters that stay by L1 norm, by the name of the group."""
    return {group.name: kept.tolist() for group, kept in kept_by(program, BY_L1)[1]}


def test_over_the_paper_s_steps_it_is_the_paper_s_course() -> None:
    """CIFAR: 1e-4 every 10 steps, 100,010 in all, then 10,000 more, at a learning rate of 0.001."""
    total = 0.001 * (10 * 1e-4 * 10_001 * 10_002 / 2 + 10_000 * 1.0001)
    course = PenaltyCourse.over([0.001] * 110_010, total, stabilise=10_000 / 110_010)
    assert total == pytest.approx(60.0, rel=1e-3)
    assert (course.picking, course.growing) == (0, 100_010)
    for step in (0, 9, 10, 12_345, 99_999, 100_009, 105_000):
        assert course.at(step) == pytest.approx(min(1e-4 * (step // 10 + 1), 1.0), abs=3e-4)
        assert course.of_kept(step) == 0.0


def test_with_a_choice_on_the_way_it_grows_on_all_and_falls_on_what_stays() -> None:
    """CIFAR: 1e-5 every 10 steps up to 0.01, then 1e-4 up to 1 and down to 0, then 10,000 steps more."""
    steps = 9_990 + 99_000 + 10_000
    course = PenaltyCourse.over([0.001] * steps, 60.0, stabilise=10_000 / steps, pick=9_990 / steps)
    assert (course.picking, course.growing) == (9_990, 99_000)
    unit = course.scale
    assert unit == pytest.approx(1.0, rel=0.01)
    assert course.at(0) == pytest.approx(1e-5 * unit, rel=1e-9)
    assert course.at(9_989) == pytest.approx(1e-2 * unit)
    assert course.at(9_990) == pytest.approx(1.01e-2 * unit)
    assert course.of_kept(9_990) == pytest.approx(0.99e-2 * unit)
    assert course.of_kept(9_990 + 1_000) == 0.0
    assert course.at(steps - 1) == pytest.approx(unit)


@pytest.mark.parametrize("steps", [3, 8, 16, 390])
@pytest.mark.parametrize("pick", [0.0, 0.08])
def test_the_sum_of_rate_times_penalty_is_the_total_at_every_length(steps: int, pick: float) -> None:
    schedule = parse_schedule("cosine:0.05", epochs=1)
    rates = [schedule.learning_rate(step / steps) for step in range(steps)]
    course = PenaltyCourse.over(rates, 60.0, stabilise=0.1, pick=pick)
    penalties = [course.at(step) for step in range(steps)]
    assert math.fsum(map(lambda a, b: a * b, rates, penalties)) == pytest.approx(60.0, rel=1e-12)
    assert penalties == sorted(penalties)
    assert penalties[-1] == pytest.approx(course.scale)


@pytest.mark.parametrize(("momentum", "factor"), [(0.0, 1.0), (0.75, 4.0)])
def test_pruned_weights_decay_by_the_rate_times_the_penalty(data: Data, momentum: float, factor: float) -> None:
    """Of each step, where the loss has no say; those that stay don't move."""
    options, program = replace(STILL, momentum=momentum), plain()
    prepare(program, data, Greg1(total=0.5), Watch(), options=options, loss=frozen)
    seen = [program.parameters(), *Toy.started[0].seen]
    course = PenaltyCourse.over([0.05] * STEPS, 0.5, stabilise=0.1)
    kept = by_l1(program)
    for group, (filters, rest) in OWN.items():
        gone = others(8, kept[group])
        for name in (*filters, *rest):
            for step in range(STEPS):
                before, after = seen[step][name], seen[step + 1][name]
                expected = before[gone] * (1 - factor * 0.05 * course.at(step))
                torch.testing.assert_close(after[gone], expected, rtol=1e-5, atol=1e-9)
                assert torch.equal(after[kept[group]], before[kept[group]])
    assert torch.equal(seen[-1]["7.weight"], seen[0]["7.weight"]), "what reads a unit isn't the unit's"


def test_filters_that_are_not_chosen_yet_or_stay_decay_by_their_own_penalty(data: Data) -> None:
    options, program = replace(STILL, epochs=6), redrawn(plain())
    hook = Greg2(total=5.0, pick=0.25)
    prepare(program, data, hook, Watch(), options=options, loss=frozen)
    seen = [program.parameters(), *Toy.started[0].seen]
    course = PenaltyCourse.over([0.05] * 6 * STEPS, 5.0, stabilise=0.1, pick=0.25)
    picking, kept = course.picking, by_l1(program)
    assert picking == 24
    for step in range(6 * STEPS):
        before, after = seen[step], seen[step + 1]
        for group, (filters, rest) in OWN.items():
            gone = others(8, kept[group])
            penalty = course.at(step)
            of_kept = penalty if step < picking else course.of_kept(step)
            for name in filters:
                torch.testing.assert_close(after[name][gone], before[name][gone] * (1 - 0.05 * penalty))
                torch.testing.assert_close(after[name][kept[group]], before[name][kept[group]] * (1 - 0.05 * of_kept))
            for name in rest:
                assert torch.equal(after[name][kept[group]], before[name][kept[group]])
                assert torch.equal(after[name], before[name]) == (step < picking)


def test_greg_1_prunes_the_least_by_l1_norm_at_the_start(data: Data) -> None:
    program = run(plain(), data, OPTIONS).program
    pruned = cut(prepare(program, data, Greg1()))
    for group, kept in by_l1(program).items():
        assert stays(pruned, f"{group}.weight") == kept


def test_greg_2_prunes_the_least_by_l1_norm_after_the_growth_on_all(data: Data) -> None:
    program = plain()
    result = prepare(program, data, Watch(), Greg2(pick=0.4))
    picking = PenaltyCourse.over([0.05] * 3 * STEPS, 60.0, stabilise=0.1, pick=0.4).picking
    at_choice = program.clone()
    with torch.no_grad():
        for name, tensor in Toy.started[0].seen[picking].items():
            at_choice.parameters()[name].copy_(tensor)
    pruned = PRUNING.run(result.program, Evidence({}, decisions=result.hooks[1].decided))
    chosen = by_l1(at_choice)
    for group, kept in chosen.items():
        assert stays(pruned, f"{group}.weight") == kept
    assert chosen != by_l1(result.program) or chosen != by_l1(program), "the moment matters"


@pytest.mark.parametrize("hook", [Greg1(), Greg2()])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        replace(OPTIONS, schedule="constant:0.01"),
        Recover(epochs=3, schedule="constant:0.003", batch_size=32, keep="last", optimizer="adamw"),
    ],
    ids=["sgd", "slow", "adamw"],
)
def test_cutting_changes_nothing_at_the_end_of_any_length(data: Data, hook: Any, epochs: int, options: Recover) -> None:
    trained = run(plain(), data, replace(OPTIONS, epochs=4)).program
    inputs, _ = next(data.train.batches(200, epoch=0, seed=0))
    result = prepare(trained, data, hook, options=replace(options, epochs=epochs))
    assert difference(result.program, cut(result).program, inputs) < 1e-3
    assert difference(trained, BY_L1.run(trained).program, inputs) > 0.1, "without the training it would"
    figures = result.hooks[0].figures
    assert figures["pruned"] == 8
    assert figures["largest_magnitude_of_pruned_over_kept"] < 1e-3  # type: ignore[operator]
    if options is OPTIONS and epochs == 3:
        assert result.curve[-1].test > 0.7, "and the network has learned to do without"


def test_the_penalty_stops_growing_where_pruned_weights_are_small_enough(data: Data) -> None:
    program = plain()
    full = prepare(program, data, Greg1(total=3.0), options=STILL, loss=frozen).hooks[0].figures
    result = prepare(program, data, Greg1(total=3.0, ratio_limit=2.0), options=STILL, loss=frozen)
    assert full["groups_whose_penalty_stopped_growing"] == 0
    assert result.hooks[0].figures["groups_whose_penalty_stopped_growing"] == 2
    larger = result.hooks[0].figures["largest_magnitude_of_pruned_over_kept"]
    assert full["largest_magnitude_of_pruned_over_kept"] < larger < 0.5  # type: ignore[operator]


def test_a_training_of_too_few_steps_is_refused(data: Data) -> None:
    with pytest.raises(
        UsageError, match="at least 3 steps, for its penalty to grow and to stay, and the training has 2"
    ):
        prepare(plain(), data, Greg1(), options=replace(OPTIONS, epochs=2, batch_size=540))
    result = prepare(plain(), data, Greg2(), options=replace(OPTIONS, epochs=3, batch_size=540))
    assert not same(state(result.program), state(plain()))


@pytest.mark.parametrize("options", [{"total": 0.0}, {"stabilise": 1.0}, {"ratio_limit": -1.0}, {"pick": 0.0}])
def test_options_that_can_t_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Greg2(**options)
