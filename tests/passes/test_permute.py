"""Channel permutation: the same function, more magnitude kept, plans that replay."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunec.passes.base import PassResult
from prunec.passes.coupling import analyse
from prunec.passes.errors import InputError, UsageError
from prunec.passes.oracle import TOLERANCE, check_oracle, relative_error
from prunec.passes.permutation_kernels import STRIPE_SPLITS, worths_of_splits
from prunec.passes.permutation_search import Order, efficacy, retained_magnitude, search
from prunec.passes.permute import Permute
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.reorder import reorder, unmoved
from prunec.passes.rewrite import apply_plan_to_program
from prunec.passes.sparsify import Sparsify
from tests.architectures.densenet import densenet121
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import Bottleneck, imagenet_resnet
from tests.passes.checks import captured, check_module, images, normal
from tests.passes.test_rules import MIXING, around

QUICK = Permute(seconds=2)


def matrix(seed: int, rows: int, columns: int, scale: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, columns)) * rng.lognormal(0, scale, columns)


def test_worths_of_all_splits() -> None:
    x = np.abs(matrix(0, 37, 8).T).astype(np.float32)
    worths = np.empty(35, dtype=np.float32)
    worths_of_splits(np.ascontiguousarray(x), np.arange(8), worths)
    assert len({tuple(split) for split in STRIPE_SPLITS.tolist()}) == 35
    assert worths == pytest.approx([retained_magnitude(x[split].T) for split in STRIPE_SPLITS], rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 40), st.integers(1, 12), st.sampled_from([0, 3000]))
def test_an_order_is_a_permutation_that_loses_nothing(seed: int, rows: int, fours: int, exchanges: int) -> None:
    weights = matrix(seed, rows, 4 * fours)
    found = search(weights, seed, exchanges=exchanges)
    assert sorted(found.columns.tolist()) == list(range(4 * fours))
    # The sums may be taken in another order: equal to the last bits, not beyond.
    assert found.retained == pytest.approx(retained_magnitude(weights[:, found.columns]), rel=1e-12)
    assert found.retained_before == pytest.approx(retained_magnitude(weights), rel=1e-12)
    assert found.retained >= found.retained_before
    assert found.complete
    again = search(weights, seed, exchanges=exchanges)
    assert np.array_equal(found.columns, again.columns)


def test_no_pair_of_stripes_can_be_split_better() -> None:
    weights = matrix(1, 32, 32)
    found = search(weights, 0)
    ordered = weights[:, found.columns]
    for i in range(8):
        for j in range(i):
            eight = np.r_[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            before = retained_magnitude(ordered[:, eight])
            best = max(retained_magnitude(ordered[:, eight[split]]) for split in STRIPE_SPLITS)
            assert best <= before * (1 + 1e-5)


@pytest.mark.parametrize("seed", [0, 4])
def test_gains_that_are_rounding_do_not_go_round_in_circles(seed: int) -> None:
    """Stripes of small columns beside large ones: what is rounding to the large is a gain to the small."""
    weights = matrix(seed, 256, 1152, 1.0)
    found = search(weights, 0, seconds=60)
    assert found.complete
    assert found.pair_rows < 5e8


def test_columns_of_many_scales_gain_by_annealing() -> None:
    """A temperature of the large columns would leave the small ones as random as they began."""
    found = []
    for seed in range(3):
        weights = matrix(seed, 64, 256, 1.0)
        found.append([efficacy(weights, search(weights, 0, exchanges=n).retained) for n in (0, 3_000_000)])
    pairs, annealed = np.mean(found, axis=0)
    assert annealed >= pairs + 0.015


def test_a_search_among_columns_of_which_most_are_zero() -> None:
    weights = matrix(0, 16, 32) * (np.arange(32) < 3)
    found = search(weights, 0, exchanges=2000)
    assert found.exchanges == 2000
    assert found.retained >= found.retained_before


def test_a_search_without_time_says_so_and_loses_nothing() -> None:
    weights = matrix(0, 256, 256)
    found = search(weights, 0, seconds=0)
    assert not found.complete
    assert found.retained >= found.retained_before


def test_published_case() -> None:
    """NVIDIA's ASP reaches 2919.759 with windows of 8 columns (its permutation tests, 64 columns x 128 rows)."""
    np.random.seed(1)
    weights = np.random.rand(128, 64)
    assert search(weights, 0).retained >= 2919.7
    assert search(weights, 0, exchanges=1_000_000).retained > 2922


@pytest.mark.parametrize(
    ("rows", "columns", "exchanges", "least"), [(64, 64, 0, 0.455), (64, 64, 1_600_000, 0.505), (256, 1152, 0, 0.30)]
)
def test_efficacy_on_normal_weights(rows: int, columns: int, exchanges: int, least: float) -> None:
    seeds = range(5) if columns < 1000 else range(2)
    found = [efficacy(w, search(w, 0, exchanges=exchanges).retained) for w in (matrix(s, rows, columns) for s in seeds)]
    assert np.mean(found) >= least


NETWORKS: dict[str, Callable[[], Program]] = {
    "resnet": lambda: captured(imagenet_resnet(Bottleneck, (1, 1, 1, 1)), normal(2, 3, 64, 64)),
    "mobilenet": lambda: captured(mobilenet_v2(), normal(2, 3, 64, 64)),
    "densenet": lambda: captured(densenet121(), normal(2, 3, 64, 64)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays_and_no_layer_loses(name: str) -> None:
    program = NETWORKS[name]()
    result = QUICK.run(program)
    assert result.modified
    assert result.plan is not None
    assert result.stats["max_relative_error"] < TOLERANCE
    x = images(program)
    with torch.no_grad():
        assert relative_error(result.program(*x), program(*x)) < TOLERANCE
    layers = result.stats["layers"]
    assert all(layer["retained_after"] >= layer["retained_before"] * (1 - 1e-3) for layer in layers)
    assert sum(layer["retained_after"] > layer["retained_before"] for layer in layers) > len(layers) / 2
    masked = {layer["layer"]: layer["retained_magnitude"] for layer in Sparsify().run(result.program).stats["layers"]}
    assert all(masked[layer["layer"]] == pytest.approx(layer["retained_after"], rel=1e-5) for layer in layers)
    replayed = apply_plan_to_program(program, PruningPlan.from_json(result.plan.to_json()))
    assert torch.equal(replayed(*x), result.program(*x))


def test_every_random_order_of_the_channels_is_the_same_function() -> None:
    for name, make in NETWORKS.items():
        program = make()
        coupling = analyse(program)
        targets, rng = unmoved(coupling), np.random.default_rng(0)
        for group in coupling.groups:
            units = coupling.units(group)
            targets[units] = rng.permutation(units)
        permuted, plan = reorder(program, coupling, targets)
        assert plan.kept
        with torch.no_grad():
            assert relative_error(permuted(*images(program)), program(*images(program))) < TOLERANCE, name


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.PReLU(24),
        nn.Conv2d(24, 24, 3, groups=24), nn.Flatten(), nn.Linear(24 * 16, 10),
    )  # fmt: skip


def test_after_pruning_one_plan_says_both() -> None:
    network = small()
    program = captured(network, normal(2, 3, 6, 6))
    pruned = PruneFilters(ratio=0.5, round_to=4).run(program)
    permuted = QUICK.run(pruned.program)
    assert pruned.plan is not None
    assert permuted.plan is not None
    assert permuted.modified
    plan = pruned.plan.then(permuted.plan)
    x = images(program)
    replayed = apply_plan_to_program(program, PruningPlan.from_json(plan.to_json()))
    assert torch.equal(replayed(*x), permuted.program(*x))
    report = check_oracle(program, PassResult(replayed, True, {}, plan), x)
    assert report.exact
    assert report.max_relative_error < TOLERANCE
    own = redraw_(small().eval().double(), 0)
    check_module(own, PassResult(permuted.program, True, {}, plan), x)


def test_orders_that_tear_coupled_slices_apart_are_refused() -> None:
    program = captured(small(), normal(2, 3, 6, 6))
    plan = QUICK.run(program).plan
    assert plan is not None
    name, dims = next(iter(plan.kept.items()))
    dim, indices = next(iter(dims.items()))
    for wrong in ({**plan.kept, name: {**dims, dim: [*indices[1:], indices[0]]}}, {name: dims}):
        with pytest.raises(InputError, match="fit this network"):
            apply_plan_to_program(program, PruningPlan(wrong))


def test_groups_whose_order_matters_are_refused_and_the_others_are_not() -> None:
    running_sum, _ = MIXING["running sum"]
    result = QUICK.run(captured(around(running_sum), normal(2, 3, 8, 8)))
    reasons = {group["name"]: group["reason"] for group in result.stats["groups"]}
    assert "changes what the network computes" in reasons["a"]
    assert result.stats["max_relative_error"] < TOLERANCE


def test_bad_options() -> None:
    with pytest.raises(UsageError, match="seconds"):
        Permute(seconds=0)
    with pytest.raises(UsageError, match="ignore"):
        Permute(ignore=("nothing",)).run(captured(small(), normal(2, 3, 6, 6)))


@pytest.mark.parametrize(("seed", "searched"), [(None, 0), (0, 0), (7, 7)])
def test_the_seed_of_the_searches(monkeypatch: pytest.MonkeyPatch, seed: int | None, searched: int) -> None:
    seeds: list[int] = []

    def recorded(matrix: np.ndarray, seed: int, *rest: float) -> Order:
        seeds.append(seed)
        return search(matrix, seed, *rest)

    monkeypatch.setattr("prunec.passes.permutation.search", recorded)
    Permute(seconds=2, seed=seed).run(captured(small(), normal(2, 3, 6, 6)))
    assert seeds[0] == searched


def test_compiling_the_kernels_takes_nothing_of_the_searches_time() -> None:
    """In a new process, with less time in all than compiling takes."""
    code = (
        "import torch; from torch import nn; from prunec.passes import capture\n"
        "from prunec.passes.permute import Permute\n"
        "torch.manual_seed(0)\n"
        "net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))\n"
        "result = Permute(seconds=2.0).run(capture(net.eval(), (torch.randn(2, 8),)))\n"
        "print([group['complete'] for group in result.stats['groups']])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[True, True]"
