"""Sensitivities, numbers of draws and draws against their definitions, written out in loops."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.calibration import collect_evidence
from prunec.passes import PruneFilters, analyse, check_oracle
from prunec.passes.criteria import Seen, sensitivity
from prunec.passes.criteria.provable import Provable, Variant
from prunec.passes.criteria.sampling import certain_units, draw, draw_beside_certain, expected_units, shares
from prunec.passes.criteria.sensitivity import InputSensitivity, Sensitivities
from prunec.passes.errors import NumericMismatchError, UsageError
from tests.architectures.vit import ViT
from tests.passes.checks import Net, captured, images, normal
from tests.passes.criteria.networks import data, evidence_for, grouped, residual

VARIANTS: tuple[Variant, ...] = ("deterministic", "sampled", "hybrid")


def by_definition(rows: Tensor, weight: Tensor) -> list[float]:
    """The largest share of each channel in a sum of one sign: rows (rows, positions * C), a weight (K, C, ...)."""
    filters, channels = weight.shape[:2]
    inputs = rows.unflatten(1, (-1, channels)).tolist()
    weights = weight.reshape(filters, channels, -1).tolist()
    largest = [0.0] * channels
    for row, kernel, sign_a, sign_w in itertools.product(inputs, weights, (1, -1), (1, -1)):
        parts = [
            sum(max(sign_a * row[p][c], 0) * max(sign_w * kernel[c][p], 0) for p in range(len(row)))
            for c in range(channels)
        ]
        if total := sum(parts):
            largest = [max(old, part / total) for old, part in zip(largest, parts, strict=True)]
    return largest


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([(), (1,), (3,), (2, 2)]), st.integers(0, 2**31))
def test_sensitivities_are_shares_in_sums_of_one_sign(filters: int, channels: int, kernel: Any, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(filters, channels, *kernel, generator=random, dtype=torch.float64)
    rows = torch.randn(5, channels * math.prod(kernel), generator=random, dtype=torch.float64)
    statistic = InputSensitivity(9)
    found = statistic.update(None, Seen(rows, weight=weight))
    assert found.channels.tolist() == pytest.approx(by_definition(rows, weight))
    assert ((found.channels >= 0) & (found.channels <= 1)).all()
    assert (found.looked_at, found.filters) == (5, filters)
    twice = statistic.update(statistic.update(None, Seen(rows[:2], weight=weight)), Seen(rows[2:], weight=weight))
    torch.testing.assert_close(twice.channels, found.channels)
    assert twice.looked_at == 5


def test_parts_of_bounded_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, rows = torch.randn(7, 5, 3, 3), torch.randn(11, 45).relu()
    whole = InputSensitivity(9).update(None, Seen(rows, weight=weight))
    for size in (1, 12, 70):
        monkeypatch.setattr(sensitivity, "_PRODUCTS", size)
        monkeypatch.setattr(sensitivity, "_INPUTS", 10 * size)
        monkeypatch.setattr(sensitivity, "_ROWS", 3)
        parts = InputSensitivity(9).update(None, Seen(rows, weight=weight))
        torch.testing.assert_close(parts.channels, whole.channels)


def test_inputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NumericMismatchError, match="not finite"):
        InputSensitivity(9).update(None, Seen(torch.full((2, 3), torch.inf), weight=torch.ones(2, 3)))


def patches(x: Tensor, weight: Tensor) -> Tensor:
    """What a convolution without padding reads, (places, positions * C)."""
    kernel = weight.shape[2:]
    found = nn.functional.unfold(x, (kernel[0], kernel[1])).unflatten(1, (weight.shape[1], -1))
    return found.permute(0, 3, 2, 1).flatten(0, 1).flatten(1)


def test_a_unit_is_as_sensitive_as_its_most_sensitive_reader() -> None:
    """Of the stream these are an inner convolution and the head; its channels go through batch norm and activation."""
    program = residual()
    evidence = evidence_for(program, Provable())
    t = {name: tensor.detach() for name, tensor in program.tensors().items()}
    x = torch.cat([inputs for inputs, _ in data()])
    norm = (t["norm.running_mean"], t["norm.running_var"], t["norm.weight"], t["norm.bias"])
    y = nn.functional.batch_norm(nn.functional.conv2d(x, t["stem.weight"]), *norm).relu()
    inner = nn.functional.conv2d(y, t["a.weight"], t["a.bias"])
    inner = nn.functional.conv2d(inner, t["depthwise.weight"], t["depthwise.bias"], padding=1, groups=6).relu()
    pooled = (y + nn.functional.conv2d(inner, t["b.weight"], t["b.bias"])).relu().mean((2, 3))
    of_a, of_b = (by_definition(patches(*each), each[1]) for each in ((y, t["a.weight"]), (inner, t["b.weight"])))
    of_head = by_definition(pooled, t["head.weight"])
    stream, other = analyse(program).groups
    np.testing.assert_allclose(Provable().score(stream, evidence), np.maximum(of_a, of_head))
    np.testing.assert_allclose(Provable().score(other, evidence), of_b)
    for group, expected in ((stream, np.maximum(of_a, of_head)), (other, of_b)):
        kept = Provable().select(group, evidence, 3)
        assert kept.tolist() == sorted(sorted(range(group.count), key=lambda unit: (expected[unit], unit))[-3:])


def test_channels_of_a_flattened_map_count_together() -> None:
    program = grouped()
    evidence = evidence_for(program, Provable())
    group = next(group for group in analyse(program).groups if group.name == "c")
    found = evidence.of(InputSensitivity(16), "head.weight")
    assert isinstance(found, Sensitivities)
    expected = np.minimum(found.channels.numpy().reshape(6, 16).sum(1), 1)
    np.testing.assert_allclose(Provable().score(group, evidence), expected)


def test_only_so_many_images_are_looked_at() -> None:
    program = residual()
    first = (torch.cat([inputs for inputs, _ in data()])[:6], torch.zeros(6, dtype=torch.long))
    few, only = evidence_for(program, Provable(images=6)), evidence_for(program, Provable(images=6), [first])
    assert few.samples == 8
    for name in ("stem.weight", "a.weight", "b.weight", "head.weight"):
        one, other = (each.of(InputSensitivity(6), name) for each in (few, only))
        torch.testing.assert_close(one.channels, other.channels)
        assert one.looked_at == other.looked_at


def test_the_number_of_draws_is_that_of_the_bound() -> None:
    program, criterion = residual(), Provable(delta=0.01)
    evidence, (stream, _) = evidence_for(program, criterion), analyse(program).groups
    places, filters = 12 * 36, 6  # of a; the head has 12 places and 5 filters
    sensitivity_sum, error = float(criterion.score(stream, evidence).sum()), 0.5
    bound = 3 * (6 + 2 * error) * sensitivity_sum * 2 * math.log(8 * (places + 1) * filters / 0.01) / error**2
    assert criterion.draws(stream, evidence, error) == math.ceil(bound)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_larger_error_needs_fewer_units(variant: Variant) -> None:
    program, criterion = residual(), Provable(variant)
    evidence = evidence_for(program, criterion)
    for group in analyse(program).groups:
        errors = np.geomspace(1e-6, 1e9, 200).tolist()
        draws = [criterion.draws(group, evidence, error) for error in errors]
        needed = [criterion.needed(group, evidence, error) for error in errors]
        assert all(a >= b for a, b in itertools.pairwise(draws)) and draws[0] > draws[-1]
        assert all(a >= b - 1e-9 for a, b in itertools.pairwise(needed))
        assert needed[0] == pytest.approx(group.count) and needed[-1] <= 1


@given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=8), st.integers(1, 30))
def test_expected_units_are_those_of_all_sequences(worth: list[float], draws: int) -> None:
    """By the definition for a few draws: the share of each sequence times the units that it finds."""
    share = shares(np.array(worth))
    assert expected_units(share, draws) == pytest.approx(sum(1 - (1 - p) ** draws for p in share.tolist()))
    if len(worth) ** draws <= 4000:
        sequences = itertools.product(range(len(worth)), repeat=draws)
        total = sum(math.prod(share[unit] for unit in each) * len(set(each)) for each in sequences)
        assert expected_units(share, draws) == pytest.approx(total)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 2**31), st.data())
def test_draws_find_as_many_units_as_stay(worth: list[float], seed: int, more: st.DataObject) -> None:
    count = more.draw(st.integers(1, len(worth)))
    for how in (draw, draw_beside_certain):
        units, weights = how(shares(np.array(worth)), count, np.random.default_rng(seed))
        assert len(set(units.tolist())) == count == len(weights)
        assert units.tolist() == sorted(units.tolist())
        assert (weights > 0).all() and np.isfinite(weights).all()


def test_weights_make_up_for_what_was_not_drawn() -> None:
    """What all units are expected to give together is what the drawn ones give by their weights."""
    share = shares(np.random.default_rng(0).exponential(size=20))
    for seed in range(20):
        units, weights = draw(share, 8, np.random.default_rng(seed))
        assert (weights * share[units]).sum() == pytest.approx(1)


def one_by_one(share: Any, count: int, random: np.random.Generator) -> tuple[frozenset[int], int]:
    """Units drawn with replacement until as many are found, and the number of draws."""
    found: set[int] = set()
    draws = 0
    while len(found) < count:
        found.add(int(random.choice(len(share), p=share)))
        draws += 1
    return frozenset(found), draws


def test_draws_are_distributed_as_one_by_one() -> None:
    """Which units are found, and by how many draws: means of 3,000 of each, within four deviations of their means."""
    share, count, runs = shares(np.array([5.0, 3.0, 1.0, 0.5, 0.5])), 3, 3000
    random, sizes = np.random.default_rng(1), np.empty((2, runs))
    found = np.zeros((2, runs, 5))
    for run in range(runs):
        one, sizes[0, run] = one_by_one(share, count, random)
        found[0, run, list(one)] = 1
        units, weights = draw(share, count, np.random.default_rng([2, run]))
        found[1, run, units] = 1
        sizes[1, run] = 1 / (weights * share[units]).min()  # the unit that is found last was drawn once
    spread = 4 * np.sqrt(found.var(axis=1).sum(0) / runs)
    assert (np.abs(found.mean(axis=1)[0] - found.mean(axis=1)[1]) < spread).all()
    assert abs(sizes[0].mean() - sizes[1].mean()) < 4 * np.sqrt(sizes.var(axis=1).sum() / runs)


def test_units_that_would_be_drawn_anyway_are_certain() -> None:
    share = shares(np.array([100.0, 50.0, 1.0, 1.0, 1.0, 1.0]))
    assert certain_units(share, 4).tolist() == [True, True, False, False, False, False]
    units, weights = draw_beside_certain(share, 4, np.random.default_rng(0))
    assert units[:2].tolist() == [0, 1] and weights[:2].tolist() == [1, 1]
    assert len(units) == 4
    assert not certain_units(shares(np.ones(6)), 1).any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_readers_multiply_what_was_drawn(variant: Variant) -> None:
    program, criterion = residual(), Provable(variant)
    evidence = evidence_for(program, criterion)
    result = PruneFilters(ratio={"a": 0.5}, criterion=criterion).run(program, evidence)
    assert result.plan is not None and check_oracle(program, result, images(program)).passed
    kept = result.plan.kept["b.weight"][1]
    dense, pruned = (p.tensors()["b.weight"].detach()[..., 0, 0] for p in (program, result.program))
    factors = (pruned / dense[:, kept])[0]
    torch.testing.assert_close(pruned, dense[:, kept] * factors)
    group = next(group for group in analyse(program).groups if group.name == "a")
    share = shares(criterion.score(group, evidence))
    if variant == "deterministic":
        assert torch.equal(pruned, dense[:, kept])
    elif variant == "sampled":
        assert float(factors.numpy() @ share[kept]) == pytest.approx(1)
    else:
        certain = certain_units(share, 3)
        assert set(np.flatnonzero(certain).tolist()) <= set(kept)
        assert all(float(f) == 1 for f, unit in zip(factors, kept, strict=True) if certain[unit])


def test_units_that_nothing_reads_have_no_sensitivity() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        return s.up(s.a(x).relu()).flatten(1)  # type: ignore[no-any-return]

    program = captured(Net(forward, a=nn.Conv2d(3, 6, 3), up=nn.ConvTranspose2d(6, 2, 2)), normal(2, 3, 8, 8))
    evidence = evidence_for(program, Provable())
    message = r"provable is not defined for the group a: no convolution without groups .*\nLeave such layers out"
    with pytest.raises(UsageError, match=message):
        PruneFilters(ratio=0.5, criterion=Provable()).run(program, evidence)


def test_a_transformer_is_pruned() -> None:
    program = captured(ViT(8, 4, 8, 1, 2, 5), normal(2, 3, 8, 8))
    options = PruneFilters(ratio=0.5, criterion=Provable("hybrid"))
    evidence = collect_evidence(program, [options.criterion], data(1), policy=options.policy)
    result = options.run(program, evidence)
    assert result.program.parameter_count() < program.parameter_count()
    assert check_oracle(program, result, images(program)).passed


def test_queries_that_no_layer_reads_have_no_sensitivity() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (f(tokens).unflatten(2, (2, 4)).transpose(1, 2) for f in (s.q, s.k, s.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return s.out(s.inner(y).relu()).mean(1)  # type: ignore[no-any-return]

    layers = {name: nn.Linear(3, 8) for name in "qkv"}
    network = Net(forward, **layers, inner=nn.Linear(8, 6), out=nn.Linear(6, 5))
    program = captured(network, normal(2, 3, 8, 8))
    for attention, message in (("head_dim", "group q:.*\n.*attention=none"), ("none", "")):
        options = PruneFilters(ratio=0.5, criterion=Provable(), attention=attention)  # type: ignore[arg-type]
        evidence = collect_evidence(program, [Provable()], data(1), policy=options.policy)
        if message:
            with pytest.raises(UsageError, match=message):
                options.run(program, evidence)
        else:
            assert options.run(program, evidence).modified


def test_groups_without_any_signal_are_pruned_without_a_division_by_zero() -> None:
    program = residual()
    with torch.no_grad():
        program.tensors()["a.weight"].zero_()
        program.tensors()["a.bias"].zero_()
        program.tensors()["depthwise.bias"].zero_()
    for variant in VARIANTS:
        criterion = Provable(variant)
        evidence = evidence_for(program, criterion)
        group = next(group for group in analyse(program).groups if group.name == "a")
        assert criterion.score(group, evidence).tolist() == [0] * 6
        assert criterion.draws(group, evidence, 0.1) == 0
        assert len(criterion.select(group, evidence, 2)) == 2


def test_a_row_of_inputs_that_is_zero_has_no_shares() -> None:
    weight = torch.tensor([[5.0, -1.0, 2.0, 0.5]])
    rows = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 0.5, 0.0]])
    statistic = InputSensitivity(images=2)
    state = statistic.update(None, Seen(rows, weight=weight))
    shares = statistic.result(state).channels
    assert torch.isfinite(shares).all()
    assert shares[0] == pytest.approx(5 / (5 + 1))
