"""Ratios, their exact rounding, and which layers they belong to."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunec.passes.coupling import Group, Member, analyse
from prunec.passes.errors import UsageError
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.ratios import Rounding, check_globs, exact, group_ratio, matches
from tests.passes.checks import Net, captured, normal


def group(count: int, per_unit: int = 1, layers: tuple[str, ...] = ("conv",)) -> Group:
    names = [f"{layer}.weight" for layer in layers]
    return Group(
        name=layers[0],
        count=count,
        members=tuple(Member(name, 0, per_unit) for name in names),
        slices=tuple(np.arange(count * per_unit).reshape(count, per_unit) for _ in names),
        filters=frozenset((name, 0) for name in names),
    )


@pytest.mark.parametrize(
    ("ratio", "width", "kept"),
    [
        (0.1, 64, 57), (0.3, 64, 44), (0.5, 64, 32), (0.7, 64, 19), (0.9, 64, 6), (0.95, 64, 3),
        (0.1, 10, 9), (0.3, 10, 7), (0.7, 10, 3), (0.9, 10, 1), (0.95, 10, 1), (0.1, 2048, 1843),
        (0.5, 3, 1), (0.01, 3, 2), (0.99, 1, 1), (0.5, 1, 1), (0.0, 64, 64),
    ],
)  # fmt: skip
def test_golden_rounding(ratio: float, width: int, kept: int) -> None:
    assert Rounding().kept(group(width), exact(ratio)) == kept


@given(st.sampled_from([1, 3, 5, 7, 9, 95]), st.integers(1, 2048))
@settings(max_examples=300, deadline=None)
def test_rounding_is_exact(digits: int, n: int) -> None:
    tenths = digits * (1 if digits == 95 else 10)  # in hundredths
    pruned = min(-(-tenths * n // 100), n - 1)
    assert Rounding().kept(group(n), exact(tenths / 100)) == n - pruned


def test_every_width_at_every_published_ratio() -> None:
    for text in ("0.1", "0.3", "0.5", "0.7", "0.9", "0.95"):
        for n in range(1, 2049):
            pruned = min(ceil(Fraction(text) * n), n - 1)
            assert Rounding().kept(group(n), exact(float(text))) == n - pruned


@given(
    st.integers(1, 512), st.integers(1, 8), st.integers(1, 64), st.integers(1, 40),
    st.floats(0, 1, exclude_max=True, allow_nan=False),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_rounded_widths(count: int, per_unit: int, round_to: int, least: int, ratio: float) -> None:
    rounding, units = Rounding(round_to, least), group(count, per_unit)
    kept = rounding.kept(units, exact(ratio))
    plain = Rounding().kept(units, exact(ratio))
    step = rounding.step(units)
    assert 1 <= kept <= count
    assert kept == count or kept % step == 0
    assert kept * per_unit >= min(least, count * per_unit)
    if ratio and kept < count and kept - step >= -(-least // per_unit) and kept > step:
        assert 2 * abs(kept - plain) <= step
    # At most a quarter of the layer's width is rounded, by a halving of round_to.
    filters = step * per_unit
    multiple = round_to
    while multiple > 1 and 4 * multiple > count * per_unit:
        multiple //= 2
    assert filters % multiple == 0
    assert multiple == 1 or 4 * multiple <= count * per_unit


@pytest.mark.parametrize(("width", "step"), [(64, 16), (63, 8), (32, 8), (16, 4), (8, 2), (4, 1), (2, 1)])
def test_narrow_layers_round_to_a_halving(width: int, step: int) -> None:
    assert Rounding(16).step(group(width)) == step


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_ratios_outside_the_range(ratio: float) -> None:
    with pytest.raises(UsageError, match="outside"):
        exact(ratio)
    with pytest.raises(UsageError, match="outside"):
        PruneFilters(ratio=ratio)
    with pytest.raises(UsageError, match="outside"):
        PruneFilters(ratio={"*": ratio})


def test_the_last_matching_glob_counts() -> None:
    ratios = {"*": 0.1, "layer*.conv1": 0.5, "layer2.*": 0.7}
    for layer, ratio in {"stem": "1/10", "layer1.conv1": "1/2", "layer2.conv1": "7/10", "layer2.conv2": "7/10"}.items():
        assert group_ratio(group(8, layers=(layer,)), ratios) == Fraction(ratio)
    assert group_ratio(group(8, layers=("other",)), {"layer*": 0.5}) == 0


def test_layers_that_no_glob_matches_have_no_say() -> None:
    assert group_ratio(group(8, layers=("a", "b")), {"b": 0.5}) == Fraction(1, 2)
    assert group_ratio(group(8, layers=("a", "b")), {"a": 0.5, "b": 0.5}) == Fraction(1, 2)
    with pytest.raises(UsageError, match=r"a 0\.5, b 0\.3"):
        group_ratio(group(8, layers=("a", "b")), {"a": 0.5, "b": 0.3})


def test_globs_that_match_nothing() -> None:
    check_globs(["conv*"], ["conv1"], "ratio")
    with pytest.raises(UsageError, match=r"ignore: no layer matches 'cnov\*'"):
        check_globs(["conv*", "cnov*"], ["conv1"], "ignore")
    assert matches(["a.b"], ["a.*"])
    assert not matches(["A.b"], ["a.*"])


def two_branches() -> nn.Module:
    return Net(
        lambda s, x: s.head(s.c((s.a(x) + s.b(x)).relu()).relu().mean((2, 3))),
        a=nn.Conv2d(3, 16, 1), b=nn.Conv2d(3, 16, 1), c=nn.Conv2d(16, 12, 1), head=nn.Linear(12, 3),
    )  # fmt: skip


def widths(options: PruneFilters) -> dict[str, int]:
    program = captured(two_branches(), normal(2, 3, 4, 4))
    return {entry["name"]: entry["kept"] for entry in options.run(program).stats["groups"]}


def test_options_of_the_pass() -> None:
    assert widths(PruneFilters(ratio=0.5)) == {"a": 8, "c": 6}
    assert widths(PruneFilters(ratio={"c": 0.25})) == {"a": 16, "c": 9}
    assert widths(PruneFilters(ratio={"*": 0.5, "c": 0.25})) == {"a": 8, "c": 9}
    assert widths(PruneFilters(ratio=0.5, residual_streams=False)) == {"a": 16, "c": 6}
    assert widths(PruneFilters(ratio=0.5, ignore=("c",))) == {"a": 8, "c": 12}
    assert widths(PruneFilters(ratio=0.5, ignore=("b",))) == {"a": 16, "c": 6}
    assert widths(PruneFilters(ratio={"b": 0.5, "c": 0.75})) == {"a": 8, "c": 3}
    assert widths(PruneFilters(ratio=0.9, min_channels=5)) == {"a": 5, "c": 5}
    assert widths(PruneFilters(ratio=0.9, round_to=4)) == {"a": 4, "c": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a ratio or goals"),
        ({"ratio": 0.5, "speedup": 2.0}, "either a ratio or goals"),
        ({"speedup": 0.5}, "at least 1"),
        ({"speedup": float("nan")}, "at least 1"),
        ({"ratio": 0.5, "criterion": "l3"}, "There is no criterion 'l3'"),
        ({"ratio": 0.5, "round_to": 0}, "at least 1"),
        ({"ratio": 0.5, "inexact_groups": "no"}, "inexact_groups"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PruneFilters(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": {"d": 0.5}}, "ratio: no layer matches 'd'"),
        ({"ratio": 0.5, "freeze": ("d",)}, "freeze: no layer matches 'd'"),
        ({"ratio": {"a": 0.5, "b": 0.25}}, r"a 0\.5, b 0\.25"),
    ],
)
def test_globs_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        widths(PruneFilters(**options))  # type: ignore[arg-type]


def test_freeze_keeps_every_tensor_of_a_layer_whole() -> None:
    program = captured(two_branches(), normal(2, 3, 4, 4))
    pruned = PruneFilters(ratio=0.5, freeze=("head",)).run(program).program.parameters()
    assert pruned["c.weight"].shape == (12, 8, 1, 1)
    assert pruned["head.weight"].shape == (3, 12)


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_the_smallest_go_and_ties_go_by_index(criterion: str) -> None:
    program = captured(nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)), normal(2, 2, 3, 3))
    values = torch.tensor([3.0, 1.0, 2.0, 1.0, -1.0, -5.0], dtype=torch.float64)
    with torch.no_grad():
        program.parameters()["0.weight"].copy_(values[:, None, None, None].expand(6, 2, 1, 1))
    for ratio, kept in ((0.5, [0, 2, 5]), (0.3, [0, 2, 4, 5]), (0.1, [0, 2, 3, 4, 5])):
        plan = PruneFilters(ratio=ratio, criterion=criterion).run(program).plan
        assert plan is not None
        assert plan.kept["0.weight"][0] == plan.kept["0.bias"][0] == plan.kept["2.weight"][1] == kept


def test_scores_add_up_over_the_filters_of_a_unit() -> None:
    program = captured(two_branches(), normal(2, 3, 4, 4))
    sums = sum(program.parameters()[f"{name}.weight"].detach().abs().sum((1, 2, 3)) for name in "ab")
    plan = PruneFilters(ratio={"a": 0.25}).run(program).plan
    assert plan is not None
    assert plan.kept["c.weight"][1] == sorted(torch.as_tensor(sums).argsort()[4:].tolist())


def test_transposed_filters_are_scored_along_their_own_dimension() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(3, 8, 2), nn.ReLU(), nn.Conv2d(8, 2, 1))
    program = captured(network, normal(2, 3, 3, 3))
    scores = program.parameters()["0.weight"].detach().abs().sum((0, 2, 3))
    plan = PruneFilters(ratio=0.5).run(program).plan
    assert plan is not None
    assert plan.kept["0.weight"] == {1: sorted(scores.argsort()[4:].tolist())}


def test_the_random_criterion_draws_per_group_and_seed() -> None:
    program = captured(two_branches(), normal(2, 3, 4, 4))

    def kept(**options: object) -> dict[str, dict[int, list[int]]]:
        plan = PruneFilters(criterion="random", **options).run(program).plan  # type: ignore[arg-type]
        assert plan is not None
        return plan.kept

    first = kept(ratio=0.5, seed=1)
    assert first == kept(ratio=0.5, seed=1)
    assert first != kept(ratio=0.5, seed=2)
    assert first["c.weight"][0] == kept(ratio={"c": 0.5}, seed=1)["c.weight"][0]


def test_half_precision_weights_are_scored_in_float64() -> None:
    program = captured(nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 2, 1)), normal(2, 2, 3, 3))
    program.module.to(torch.bfloat16)
    for criterion in ("l1", "l2"):
        assert PruneFilters(ratio=0.5, criterion=criterion).run(program).modified
    assert analyse(program).groups[0].count == 6
