"""Patterns by their text, masks of whole units in exact numbers, and which units go."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunec.passes.errors import UsageError
from prunec.passes.patterns.pattern import Pattern
from prunec.passes.patterns.rule import MaskRule
from prunec.passes.patterns.unit_masks import has_pattern, holds_mask, masks_of, n_of_m_mask, unit_numbers

OF_UNITS = ["elements", "rows", "channels", "columns", "block:2x3", "block:4x4", "block:1x8"]
SHARES = st.integers(0, 19).map(lambda share: share / 20)


@st.composite
def scores(draw: st.DrawFn) -> Tensor:
    """(K, C), (K, C, R) or (K, C, R, S), of few distinct values in half of the cases, so that ties are common."""
    kernel = draw(st.lists(st.integers(1, 3), max_size=2))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), *kernel)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if draw(st.booleans()):
        return torch.randint(0, 3, shape, generator=generator).double()
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def unit_key(pattern: Pattern, shape: tuple[int, ...], index: tuple[int, ...]) -> object:
    """What the weights of one unit have in common, from the definition and not from a matrix."""
    k, c, *position = index
    if pattern.block is not None:
        column = c
        for size, place in zip(shape[2:], position, strict=True):
            column = column * size + place
        return k // pattern.block[0], column // pattern.block[1]
    return {"elements": index, "rows": k, "channels": c, "columns": (c, *position)}[pattern.text]


@given(scores(), st.sampled_from(OF_UNITS))
def test_units_are_those_of_the_definition(weight: Tensor, text: str) -> None:
    pattern, shape = Pattern.parse(text), tuple(weight.shape)
    numbers = unit_numbers(pattern, shape)
    assert numbers.shape == weight.shape
    number_of: dict[object, int] = {}
    for index in itertools.product(*map(range, shape)):
        number = int(numbers[index])
        assert number_of.setdefault(unit_key(pattern, shape, index), number) == number
    assert sorted(number_of.values()) == list(range(len(number_of)))


@given(scores(), st.sampled_from(OF_UNITS), SHARES, st.sampled_from(["layer", "global"]))
def test_as_many_weights_go_as_are_asked_for_to_within_a_unit(
    weight: Tensor, text: str, ratio: float, allocation: str
) -> None:
    pattern = Pattern.parse(text)
    rule = MaskRule(pattern, ratio, allocation=allocation)  # type: ignore[arg-type]
    mask = masks_of(rule, {"w": weight}, {})["w"]
    assert (mask.shape, mask.dtype) == (weight.shape, torch.bool)
    assert has_pattern(pattern, mask)
    sizes = torch.bincount(unit_numbers(pattern, weight.shape).flatten())
    gone, wanted = int((~mask).sum()), Fraction(str(ratio)) * weight.numel()
    assert gone - int(sizes.max()) < wanted or gone == 0
    is_last_unit = allocation == "layer" and len(torch.unique(unit_numbers(pattern, weight.shape)[mask])) == 1
    assert gone >= wanted or is_last_unit
    assert mask.any() or allocation == "global"
    if text == "elements" and not is_last_unit:
        assert gone == math.ceil(wanted)


@given(scores(), st.sampled_from(OF_UNITS), SHARES)
def test_the_lowest_units_go_and_of_equal_ones_the_last(weight: Tensor, text: str, ratio: float) -> None:
    pattern = Pattern.parse(text)
    mask = masks_of(MaskRule(pattern, ratio), {"w": weight}, {})["w"]
    numbers = unit_numbers(pattern, weight.shape)
    worth = [float(weight[numbers == unit].sum()) for unit in range(int(numbers.max()) + 1)]
    goes = [not bool(mask[numbers == unit].any()) for unit in range(len(worth))]
    for a, b in itertools.permutations(range(len(worth)), 2):
        if goes[a] and not goes[b]:
            assert worth[a] <= worth[b] + 1e-12
            assert worth[a] < worth[b] - 1e-12 or a > b or not math.isclose(worth[a], worth[b])


@given(st.integers(2, 8), st.integers(1, 7), st.integers(0, 2**31))
def test_no_other_set_of_units_is_worth_less(rows: int, count: int, seed: int) -> None:
    """Brute force over all sets of as many rows."""
    count = min(count, rows - 1)
    weight = torch.rand(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rule = MaskRule(Pattern.parse("rows"), ratio=float(f"{count / rows - 1e-6:.7f}"))
    mask = masks_of(rule, {"w": weight}, {})["w"]
    worth = weight.sum(1)
    least = min(float(worth[list(some)].sum()) for some in itertools.combinations(range(rows), count))
    assert int((~mask[:, 0]).sum()) == count
    assert float(worth[~mask[:, 0]].sum()) == pytest.approx(least)


@given(st.lists(scores(), min_size=1, max_size=3), SHARES)
def test_one_threshold_over_all_weights(weights: list[Tensor], ratio: float) -> None:
    """As np.where(|w| > threshold), where no two are equal."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.rand(weight.shape, generator=generator, dtype=torch.float64) for weight in weights]
    named = {str(position): weight for position, weight in enumerate(weights)}
    masks = masks_of(MaskRule(Pattern.parse("elements"), ratio, allocation="global"), named, {})
    flat = torch.cat([weight.flatten() for weight in weights]).sort().values
    gone = math.ceil(Fraction(str(ratio)) * len(flat))
    threshold = float(flat[gone - 1]) if gone else -1.0
    for name, weight in named.items():
        assert torch.equal(masks[name], weight > threshold)


@given(scores(), st.sampled_from(OF_UNITS), SHARES, SHARES)
def test_what_is_masked_stays_masked(weight: Tensor, text: str, first: float, second: float) -> None:
    pattern = Pattern.parse(text)
    before = masks_of(MaskRule(pattern, first), {"w": weight}, {})
    other = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    after = masks_of(MaskRule(pattern, ratio_of_rest=second), {"w": other}, before)
    assert not (after["w"] & ~before["w"]).any()
    assert has_pattern(pattern, after["w"])


@given(st.integers(1, 400), st.integers(1, 8))
def test_levels_of_a_fifth_of_what_is_left(count: int, levels: int) -> None:
    """Sparsity after L levels is 1 - 0.8^L, and each level rounds up by less than one weight."""
    generator = torch.Generator().manual_seed(count)
    rule, masks = MaskRule(Pattern.parse("elements"), ratio_of_rest=0.2, allocation="global"), {}
    for level in range(1, levels + 1):
        before = int((~masks["w"]).sum()) if masks else 0
        masks = masks_of(rule, {"w": torch.rand(1, count, generator=generator)}, masks)
        gone = int((~masks["w"]).sum())
        assert gone == before + math.ceil(Fraction(1, 5) * (count - before))
        assert 0 <= gone - count * (1 - 0.8**level) + 1e-9 < level + 1e-9


def test_the_last_level_takes_what_is_left() -> None:
    rule = MaskRule(Pattern.parse("elements"), ratio_of_rest=0.2, until=0.45)
    masks: dict[str, Tensor] = {}
    counts = []
    for _ in range(4):
        masks = masks_of(rule, {"w": torch.rand(10, 10)}, masks)
        counts.append(int((~masks["w"]).sum()))
    assert counts == [20, 36, 45, 45]


@given(st.integers(1, 4), st.sampled_from([(1, 2), (1, 4), (2, 4), (4, 8), (3, 5)]), st.integers(0, 2**31))
def test_n_of_m_keeps_the_best_n(groups: int, n_of_m: tuple[int, int], seed: int) -> None:
    n, m = n_of_m
    weight = torch.rand(3, groups * m, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = n_of_m_mask(weight, n, m)
    assert has_pattern(Pattern.parse(f"{n}:{m}"), mask)
    rows, kept = (each.movedim(1, -1).reshape(-1, m) for each in (weight, mask))
    assert (kept.sum(1) == n).all()
    best = [max(float(row[list(some)].sum()) for some in itertools.combinations(range(m), n)) for row in rows]
    torch.testing.assert_close((rows * kept).sum(1), torch.tensor(best, dtype=torch.float64))
    assert not has_pattern(Pattern.parse(f"{n}:{m}"), torch.ones_like(mask))
    again = n_of_m_mask(torch.rand_like(weight), n, m, before=mask)
    assert not (again & ~mask).any()


@given(scores(), st.sampled_from(OF_UNITS[1:]))
def test_a_broken_unit_is_seen(weight: Tensor, text: str) -> None:
    pattern = Pattern.parse(text)
    numbers = unit_numbers(pattern, weight.shape)
    sizes = torch.bincount(numbers.flatten())
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask.view(-1)[0] = False
    assert has_pattern(pattern, mask) == (int(sizes[numbers.flatten()[0]]) == 1)


def test_a_mask_holds_where_its_weight_is_zero() -> None:
    rows, mask = Pattern.parse("rows"), torch.tensor([[True, True], [False, False]])
    assert holds_mask(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), mask, rows)
    assert not holds_mask(torch.tensor([[1.0, 0.0], [0.0, 0.1]]), mask, rows)
    assert not holds_mask(torch.zeros(2, 3), mask, rows)


def test_texts() -> None:
    assert Pattern.parse("2:4").n_of_m == (2, 4)
    assert Pattern.parse("block:16x1").block == (16, 1)
    for text in (*OF_UNITS, "1:4", "4:8"):
        assert Pattern.parse(text).text == text


@pytest.mark.parametrize(
    "text", ["", "element", "4:4", "5:4", "0:4", "2:", "2:4:8", "block", "block:4", "block:0x4", "02:4", "2:99999"]
)
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        Pattern.parse(text)


def test_what_becomes_faster() -> None:
    assert Pattern.parse("2:4").gain(sparse_kernels=True)[0] == "sparse tensor cores"
    assert Pattern.parse("2:4").gain(sparse_kernels=False)[0] == "theoretical"
    for text in (*OF_UNITS, "1:4", "4:8"):
        for sparse in (True, False):
            speed, why = Pattern.parse(text).gain(sparse)
            assert speed == "theoretical"
            assert why


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("2:4", {"ratio": 0.5}, "ratio is given, and 2:4 says"),
        ("2:4", {"ratio_of_rest": 0.5}, "ratio_of_rest is given"),
        ("2:4", {"allocation": "global"}, "allocation is given"),
        ("elements", {}, "none is given"),
        ("elements", {"until": 0.5}, "none is given"),
        ("elements", {"ratio": 0.5, "ratio_of_rest": 0.2}, "two are given"),
        ("rows", {"ratio": 0.5, "until": 0.5}, "until is for ratio_of_rest"),
        ("rows", {"ratio": 1.0}, r"outside \[0, 1\)"),
        ("rows", {"ratio_of_rest": -0.1}, r"outside \[0, 1\)"),
        ("rows", {"ratio_of_rest": 0.1, "until": math.nan}, r"outside \[0, 1\)"),
        ("rows", {"ratio": 0.5, "allocation": "greedy"}, "greedy"),
    ],
)
def test_shares_that_can_not_be(text: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MaskRule(Pattern.parse(text), **options)  # type: ignore[arg-type]


@given(scores(), st.sampled_from(OF_UNITS), SHARES, SHARES)
def test_counts_say_how_much_of_each_weight_goes(weight: Tensor, text: str, first: float, share: float) -> None:
    """By whole units, and all of it where the counts say so; what has no count loses nothing."""
    pattern = Pattern.parse(text)
    rule = MaskRule(pattern, first, allocation="global")
    before = masks_of(rule, {"w": weight}, {})
    gone, most = int((~before["w"]).sum()), int(torch.bincount(unit_numbers(pattern, weight.shape).flatten()).max())
    count = gone + math.ceil(share * (weight.numel() - gone))
    masks = masks_of(rule, {"w": weight, "other": weight}, before, {"w": count})
    assert count <= int((~masks["w"]).sum()) < count + most
    assert not bool((masks["w"] & ~before["w"]).any())
    assert masks["other"].all()
    assert not masks_of(rule, {"w": weight}, before, {"w": weight.numel()})["w"].any()
