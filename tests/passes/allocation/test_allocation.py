"""Widths for goals, held against all combinations of widths on small networks."""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.passes.allocation.allocator import Allocated, Allocator
from prunec.passes.allocation.goals import Allocation, Goals
from prunec.passes.allocation.importance import normalised
from prunec.passes.allocation.space import Space
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.counting import workload_of
from prunec.passes.costs.workload import Work
from prunec.passes.coupling import Group, analyse
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.errors import InputError, UnsupportedModelError, UsageError
from prunec.passes.options import changed_options, with_options
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.resnet import cifar_resnet
from tests.fuzz.checking import random_program
from tests.passes.allocation.fake_costs import BlockCosts
from tests.passes.checks import Net, captured, normal

HOW: tuple[Allocation, ...] = ("uniform", "global", "greedy", "balanced")
COSTS = BlockCosts()
#: Most that widths chosen step by step may lose, over the least that is possible, in the mean over cases and in one.
MEAN_FACTORS, WORST_FACTOR = {"greedy": 1.1, "balanced": 1.15}, 2.0


@cache
def chain(seed: int = 0, widths: tuple[int, ...] = (48, 40, 64)) -> Program:
    """Convolutions of which the middle ones can be pruned, at falling resolution."""
    layers: list[nn.Module] = []
    for number, (i, o) in enumerate(itertools.pairwise((3, *widths, 5))):
        layers += [nn.Conv2d(i, o, 3, stride=1 + number % 2, padding=1), nn.ReLU()]
    return captured(nn.Sequential(*layers[:-1]), normal(2, 3, 16, 16), seed=seed)


@cache
def residual(seed: int = 0) -> Program:
    """A stream of 32 channels with two branches, one of them over a depthwise convolution."""

    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.stem(x).relu()
        y = y + net.b(net.a(y).relu())
        return net.head(y + net.e(net.d(net.c(y).relu())))  # type: ignore[no-any-return]

    network = Net(
        forward, stem=nn.Conv2d(3, 32, 3, padding=1), a=nn.Conv2d(32, 24, 1), b=nn.Conv2d(24, 32, 3, padding=1),
        c=nn.Conv2d(32, 96, 1), d=nn.Conv2d(96, 96, 3, padding=1, groups=96), e=nn.Conv2d(96, 32, 1),
        head=nn.Conv2d(32, 4, 1),
    )  # fmt: skip
    return captured(network, normal(2, 3, 8, 8), seed=seed)


@cache
def resnet() -> Program:
    return captured(cifar_resnet(20), normal(2, 3, 16, 16))


def chosen(program: Program, options: PruneFilters, costs: CostModel | None = None) -> Allocated:
    """What these options choose."""
    return Allocator.of(program, options, costs).allocate(options.goals, options.allocation)


def allocator(program: Program, costs: CostModel | None = COSTS, **options: Any) -> Allocator:
    return Allocator.of(program, PruneFilters(speedup=1, **options), costs)


def space_of(prepared: Allocator) -> Space:
    coupling = prepared.scope.coupling
    return Space(coupling.groups, prepared.scope.positions, prepared.rounding, prepared.workload, ())


def every_width(prepared: Allocator) -> NDArray[np.int64]:
    """All combinations of widths that may be chosen, int64 (combinations, groups)."""
    space = space_of(prepared)
    choices = [[int(count)] for count in space.dense]
    for position in space.chosen:
        choices[position] = space.allowed(position).tolist()
    return np.array(list(itertools.product(*choices)))


def met(goals: Goals, dense: Mapping[str, Any], used: Mapping[str, Any]) -> Any:
    """Whether goals are met, by their definitions."""
    least = 1 - 1e-9
    is_met: Any = True
    for goal, asked in goals.given.items():
        is_met &= {
            "speedup": lambda a: dense["macs"] / used["macs"] >= a * least,
            "latency_speedup": lambda a: dense["latency_ms"] / used["latency_ms"] >= a * least,
            "latency_ms": lambda a: used["latency_ms"] * least <= a,
            "parameters": lambda a: used["parameters"] <= a,
            "size_mb": lambda a: used["parameters"] * 4 / 1e6 * least <= a,
        }[goal](asked)
    return is_met


GOALS = [
    Goals(latency_speedup=1.3), Goals(latency_speedup=2.0), Goals(latency_speedup=3.0), Goals(speedup=2.5),
    Goals(parameters=20_000), Goals(size_mb=0.05), Goals(latency_speedup=1.5, parameters=15_000),
    Goals(latency_ms=0.6, speedup=3.0, size_mb=0.1),
]  # fmt: skip


@cache
def oracle(program: Program, block: int, round_to: int) -> tuple[Allocator, NDArray[np.int64], dict[str, Any]]:
    """All combinations of widths of a network, and what they use."""
    costs = BlockCosts(block)
    prepared = allocator(program, costs, round_to=round_to)
    widths = every_width(prepared)
    work = prepared.workload.at(widths)
    used = {"macs": work.macs.sum(-1), "parameters": work.parameters.sum(-1), "latency_ms": costs.network_ms(work)}
    return prepared, widths, used


@pytest.mark.parametrize("network", [chain, residual])
@pytest.mark.parametrize("goals", GOALS, ids=lambda goals: "-".join(goals.given))
def test_against_all_combinations_of_widths(network: Callable[[int], Program], goals: Goals) -> None:
    factors: dict[str, list[float]] = {how: [] for how in MEAN_FACTORS}
    for seed, block, round_to in itertools.product((0, 1, 2), (1, 16), (4, 8)):
        prepared, widths, used = oracle(network(seed), block, round_to)
        feasible = met(goals, prepared.dense, used)
        if not feasible.any():
            with pytest.raises(UsageError, match="can't be reached"):
                prepared.allocate(goals)
            continue
        for how in HOW:
            found = prepared.allocate(goals, how)
            assert met(goals, prepared.dense, found.figures)
            assert (widths == found.widths).all(axis=1).any(), "widths are allowed ones"
            losses = prepared.importance.in_product if how == "balanced" else prepared.importance.in_sum
            lost, least = float(losses.lost(found.widths)), float(losses.lost(widths[feasible]).min())
            assert lost >= least - 1e-12
            if how in factors:
                factors[how].append(lost / least if least else 1.0)
            assert_none_as_fast_is_wider(prepared, found)
    for how, limit in MEAN_FACTORS.items():
        assert np.mean(factors[how]) <= limit and max(factors[how]) <= WORST_FACTOR, factors


def assert_none_as_fast_is_wider(prepared: Allocator, found: Allocated) -> None:
    """No single group could be wider in the same time with all goals met."""
    space, goals = space_of(prepared), Goals(**{budget.goal: budget.asked for budget in found.budgets})
    for position in space.chosen:
        for width in space.allowed(position):
            if width > found.widths[position]:
                wider = found.widths.copy()
                wider[position] = width
                as_fast = prepared.figures(wider)["latency_ms"] <= found.figures["latency_ms"]
                assert not (as_fast and met(goals, found.dense, prepared.figures(wider)))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("seed", range(25))
def test_random_networks(seed: int, how: Allocation) -> None:
    """Goals that half of what is possible would meet are met, by the pruned network itself where that tells."""
    program = random_program(seed)
    options = PruneFilters(speedup=1, criterion="random", seed=seed)
    try:
        prepared = Allocator.of(program, options, COSTS)
    except UnsupportedModelError:
        return
    half = {name: (prepared.dense[name] + prepared.least[name]) / 2 for name in prepared.dense}
    goals = Goals(
        speedup=prepared.dense["macs"] / half["macs"], latency_ms=half["latency_ms"],
        size_mb=(half["parameters"] + 1) * 4e-6,
    )  # fmt: skip
    found = prepared.allocate(goals, how)
    assert_none_as_fast_is_wider(prepared, found)
    asked: dict[str, Any] = goals.given
    result = replace(options, **asked, allocation=how).run(program, costs=COSTS)
    assert [group["kept"] for group in result.stats["groups"]] == found.widths.tolist()
    used = found.figures | {"macs": result.program.macs(), "parameters": result.program.parameter_count()}
    assert used == pytest.approx(found.figures), "what is predicted is what the pruned network has"
    assert met(goals, found.dense, used)
    coupling = analyse(result.program)
    kept = np.array([group.count for group in coupling.groups], dtype=np.int64)
    own = COSTS.network_ms(workload_of(result.program, coupling).at(kept))
    assert own == pytest.approx(found.figures["latency_ms"])


@dataclass(frozen=True)
class Halves:
    """A criterion that only selects: the first units."""

    name: ClassVar[str] = "halves"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def select(self, group: Group, evidence: Evidence, count: int) -> NDArray[np.int64]:
        return np.arange(count)


def test_a_criterion_that_only_selects_is_for_uniform_widths() -> None:
    options = PruneFilters(latency_speedup=1.5, criterion=Halves())
    found = chosen(chain(), options, COSTS)
    assert (found.allocation, found.importance_lost) == ("uniform", None)
    assert options.run(chain(), costs=COSTS).stats["allocation"]["importance_lost"] is None
    for how in ("global", "greedy", "balanced"):
        with pytest.raises(UsageError, match=f"allocation={how} compares groups .* halves only selects"):
            PruneFilters(latency_speedup=1.5, criterion=Halves(), allocation=how)
        with pytest.raises(UsageError, match="halves only selects"):
            Allocator.of(chain(), options, COSTS).allocate(Goals(latency_speedup=1.5), how)


@pytest.mark.parametrize("how", HOW)
def test_a_cost_model_widens_what_costs_no_time_whatever_is_asked_for(how: Allocation) -> None:
    prepared, goals = allocator(resnet()), Goals(speedup=2.0)
    without, found = allocator(resnet(), None).allocate(goals, how), prepared.allocate(goals, how)
    assert met(goals, found.dense, found.figures)
    assert (found.widths >= without.widths).all()
    assert_none_as_fast_is_wider(prepared, found)


@dataclass(frozen=True)
class Protecting:
    """A criterion that never gives up the first unit."""

    name: ClassVar[str] = "protecting"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def score(self, group: Group, evidence: Evidence) -> NDArray[np.float64]:
        return np.append(np.inf, np.arange(1.0, group.count))


def test_scores_without_end_are_for_uniform_widths() -> None:
    options = PruneFilters(speedup=2.0, criterion=Protecting())
    assert chosen(chain(), options).importance_lost is None
    with pytest.raises(UsageError, match="not finite"):
        replace(options, allocation="greedy").run(chain())


def test_auto_is_balanced_for_latency() -> None:
    prepared = allocator(resnet())
    assert prepared.allocate(Goals(latency_speedup=1.2)).allocation == "balanced"
    assert prepared.allocate(Goals(speedup=2.0, latency_ms=prepared.dense["latency_ms"])).allocation == "balanced"
    assert prepared.allocate(Goals(speedup=2.0, parameters=10**6)).allocation == "uniform"


def test_greedy_loses_less_than_half_of_what_one_ratio_loses() -> None:
    prepared = allocator(resnet(), BlockCosts(block=4))
    for asked in (1.3, 1.6, 2.0):
        lost = {how: prepared.allocate(Goals(latency_speedup=asked), how).importance_lost or 1.0 for how in HOW}
        assert lost["greedy"] < 0.5 * lost["uniform"] and lost["greedy"] <= lost["global"]


def test_every_criterion_gives_the_same_widths_twice() -> None:
    for how, criterion in itertools.product(HOW, ("l1", "l2", "random")):
        options = PruneFilters(latency_speedup=1.3, criterion=criterion, allocation=how, seed=3)
        first, second = (chosen(resnet(), options, COSTS) for _ in range(2))
        assert first.widths.tolist() == second.widths.tolist()
    by_seed = [
        chosen(resnet(), PruneFilters(latency_speedup=1.3, criterion="random", seed=seed), BlockCosts(1))
        for seed in range(4)
    ]
    assert len({tuple(found.widths.tolist()) for found in by_seed}) > 1


def test_scores_are_compared_over_their_norm() -> None:
    scores = np.array([3.0, 4.0])
    assert normalised(scores).tolist() == pytest.approx([0.6, 0.8])
    assert normalised(1e-300 * scores).tolist() == pytest.approx([0.6, 0.8])
    assert normalised(1e300 * scores).tolist() == pytest.approx([0.6, 0.8])
    assert normalised(np.array([-1.0, 2.0, 3.0])).tolist() == pytest.approx([0, 0.6, 0.8])
    assert normalised(np.zeros(2)).tolist() == [0, 0]
    prepared = allocator(chain(widths=(4, 6)))
    by_hand = [scores / np.linalg.norm(scores) for scores in prepared.scores.values()]
    total = sum(each.sum() for each in by_hand)
    lost = sum(np.sort(each)[:2].sum() for each in by_hand)
    assert prepared.importance.in_sum.lost(np.array([2, 4])) == pytest.approx(lost / total)


def test_what_layers_keep_is_multiplied() -> None:
    """By hand: the share of the norms that is kept, once for each layer whose filters a unit has."""
    dense = residual()
    prepared = allocator(dense)
    kept, logarithms = [], []
    for position, (group, layers) in enumerate(zip(prepared.scope.coupling.groups, (3, 1, 1), strict=True)):
        scores = np.sort(prepared.scores[position])
        kept.append(group.count // 2)
        logarithms.append(layers * np.log(scores[group.count - kept[-1] :].sum() / scores.sum()))
    assert [group.name for group in prepared.scope.coupling.groups] == ["stem", "a", "c"]  # c with the depthwise d
    assert prepared.importance.in_product.lost(np.array(kept)) == pytest.approx(-sum(logarithms))
    assert prepared.importance.in_product.lost(prepared.dense_widths) == 0


@pytest.mark.parametrize("asked", [1.5, 2.5])
def test_balanced_widths_spare_no_layer_at_the_cost_of_another(asked: float) -> None:
    """Layers that take unequal time lose unequally, but none is emptied while others stay whole, as by the sum."""
    prepared = allocator(chain(widths=(64, 64, 64)), BlockCosts(1))
    shares = {how: prepared.allocate(Goals(latency_speedup=asked), how).widths / 64 for how in HOW}
    assert shares["balanced"].min() > shares["greedy"].min()
    assert np.ptp(shares["balanced"]) < np.ptp(shares["greedy"])
    assert np.ptp(shares["balanced"]) > np.ptp(shares["uniform"])


UNREACHABLE = [
    (Goals(speedup=1e4), r"A speed-up of 10000x in MACs can't be reached: the largest is \d+\.\d\dx\."),
    (Goals(latency_speedup=50), r"of 50x in latency .* the largest is \d\.\d\dx by the cost model's word\."),
    (Goals(latency_ms=1e-3), r"latency_ms=0\.001 can't be reached: the least is 0\.\d+ ms by the cost model's word\."),
    (Goals(parameters=10), r"parameters=10 can't be reached: the least is 593\."),
    (Goals(size_mb=1e-5), r"size_mb=1e-05 can't be reached: the least is 0\.002372 MB in float32\."),
]


@pytest.mark.parametrize(("goals", "words"), UNREACHABLE)
def test_what_is_out_of_reach_says_what_is_possible(goals: Goals, words: str) -> None:
    prepared = allocator(chain(), round_to=4)
    with pytest.raises(UsageError, match=words) as failure:
        prepared.allocate(goals)
    figure = float(re.findall(r"[\d.]+\d", failure.value.message)[-1])
    possible = Goals(**{name: type(asked)(figure) for name, asked in goals.given.items()})
    assert met(possible, prepared.dense, prepared.allocate(possible).figures), "what it says can be asked for"


@dataclass(frozen=True)
class SlowNarrow(BlockCosts):
    """Layers that read fewer than a block, or no whole blocks, take longer."""

    def layer_ms(self, work: Work) -> NDArray[np.float64]:
        narrow, broken = work.in_channels < self.block, work.in_channels % self.block != 0
        is_inner = work.in_channels > 3
        return super().layer_ms(work) + np.where(is_inner & narrow, 0.5, 0.0) + np.where(is_inner & broken, 0.05, 0.0)


@pytest.mark.parametrize("network", [chain, residual])
@pytest.mark.parametrize("round_to", [4, 8])
def test_the_fastest_widths_are_the_most_that_is_possible(network: Callable[[int], Program], round_to: int) -> None:
    """Where narrow layers are slow, goals up to the fastest of all combinations of widths are met, and none beyond."""
    costs = SlowNarrow()
    prepared = allocator(network(0), costs, round_to=round_to)
    widths = every_width(prepared)
    work = prepared.workload.at(widths)
    times = costs.network_ms(work)
    assert prepared.least["latency_ms"] == pytest.approx(times.min())
    assert prepared.least["macs"] == work.macs.sum(-1).min()
    assert times.min() < 0.9 * prepared.figures(space_of(prepared).least)["latency_ms"], "the least are slower"
    for how, share in itertools.product(HOW, (0.0, 0.01, 0.2, 0.6)):
        goals = Goals(latency_ms=float(times.min() + share * (prepared.dense["latency_ms"] - times.min())))
        found = prepared.allocate(goals, how)
        assert met(goals, found.dense, found.figures) and (widths == found.widths).all(axis=1).any()
        assert_none_as_fast_is_wider(prepared, found)
    with pytest.raises(UsageError, match=r"latency_ms=.* can't be reached"):
        prepared.allocate(Goals(latency_ms=0.99 * float(times.min())))


def test_time_and_counts_that_only_other_widths_reach_each() -> None:
    """What is fastest while another goal is met is found and told."""
    costs = SlowNarrow()
    prepared = allocator(chain(), costs, round_to=4)
    work = prepared.workload.at(every_width(prepared))
    times, parameters = costs.network_ms(work), work.parameters.sum(-1)
    fastest = int(parameters[times <= times.min() * (1 + 1e-9)].min())
    least = float(times[parameters < fastest].min())
    for how in HOW:
        goals = Goals(latency_ms=1.001 * least, parameters=fastest - 1)
        assert met(goals, prepared.dense, prepared.allocate(goals, how).figures)
    with pytest.raises(UsageError, match=rf"the least is .*\nThat is the most where parameters={fastest - 1:g} is met"):
        prepared.allocate(Goals(latency_ms=(least + float(times.min())) / 2, parameters=fastest - 1))


def test_several_goals_out_of_reach_are_all_named() -> None:
    with pytest.raises(UsageError) as failure:
        allocator(chain()).allocate(Goals(latency_speedup=99, parameters=1))
    assert len(failure.value.message.splitlines()) == 2


def test_latency_needs_a_cost_model() -> None:
    with pytest.raises(UsageError, match="latency_ms is asked for, and there is no cost model"):
        PruneFilters(latency_ms=1.0).run(chain())
    with pytest.raises(InputError, match="latency_ms 0"):
        PruneFilters(latency_ms=1.0).run(chain(), costs=BlockCosts(launch_ms=0, block_ms=0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latency_speedup": 0.5}, "latency_speedup 0.5 is not a factor of at least 1"),
        ({"latency_ms": 0.0}, "latency_ms 0.0 is not a number of milliseconds above 0"),
        ({"latency_ms": float("nan")}, "latency_ms nan"),
        ({"parameters": 0}, "parameters 0 is not a number of parameters of at least 1"),
        ({"size_mb": float("inf")}, "size_mb inf"),
        ({"latency_speedup": "2"}, "latency_speedup '2' is not a number but a str"),
        ({"latency_speedup": True}, "latency_speedup True is not a number but a bool"),
        ({"parameters": 2.5}, "parameters 2.5 is not a whole number"),
        ({"ratio": 0.5, "size_mb": 1.0}, "either a ratio or goals"),
        ({"ratio": {"a": 0.5}, "allocation": "greedy"}, "allocation=greedy chooses widths, and ratios by layer"),
        ({"speedup": 2.0, "allocation": "knapsack"}, "allocation is 'knapsack'"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        PruneFilters(**options)


def test_goals_as_text() -> None:
    options = with_options(PruneFilters, "prune-filters", {"latency-speedup": "1.5", "parameters": "1000000"})
    assert options == PruneFilters(latency_speedup=1.5, parameters=1_000_000)
    assert changed_options(options) == {"latency_speedup": 1.5, "parameters": 1_000_000}


def test_the_aim_is_that_of_the_goal_that_decides() -> None:
    """Of two goals one is far from its limit, whichever comes first."""
    loose, tight = {"latency_ms": 1e3}, {"parameters": 15_000}
    aim = PruneFilters(**loose, **tight).run(chain(), costs=COSTS).aim  # type: ignore[arg-type]
    assert aim is not None and aim.what == "parameters removed" and aim.asked == chain().parameter_count() - 15_000
    aim = PruneFilters(latency_speedup=2.0, parameters=10**9).run(chain(), costs=COSTS).aim
    assert aim is not None and aim.what == "milliseconds saved by the cost model's word"


def test_the_aim_of_goals() -> None:
    dense = allocator(chain()).dense
    result = PruneFilters(latency_speedup=1.5, parameters=30_000).run(chain(), costs=COSTS)
    told = result.stats["allocation"]
    assert result.aim is not None and result.aim.what == "milliseconds saved by the cost model's word"
    assert result.aim.asked == pytest.approx(dense["latency_ms"] * (1 - 1 / 1.5))
    assert result.aim.got == pytest.approx(dense["latency_ms"] - told["predicted"]["latency_ms"])
    assert result.aim.share >= 1 and told["goals"] == {"latency_speedup": 1.5, "parameters": 30_000}
    assert told["predicted"]["parameters"] == result.program.parameter_count() <= 30_000
    only = PruneFilters(size_mb=0.1).run(chain())
    assert only.aim is not None and only.aim.what == "parameters removed"
    assert only.aim.got == chain().parameter_count() - only.program.parameter_count() >= only.aim.asked
    assert 4e-6 * only.program.parameter_count() <= 0.1
    nothing = PruneFilters(parameters=10**9).run(chain())
    assert not nothing.modified and nothing.aim is not None and (nothing.aim.asked, nothing.aim.share) == (0, 1)


def test_depthwise_networks() -> None:
    prepared = allocator(captured(mobilenet_v2(10), normal(2, 3, 32, 32)), BlockCosts(block=8))
    found = prepared.allocate(Goals(latency_speedup=1.5))
    assert met(Goals(latency_speedup=1.5), found.dense, found.figures)
    assert_none_as_fast_is_wider(prepared, found)
