"""Two layers of low rank in the place of one: factors, programs, ranks, plans, the user's own module, the oracle."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from prunec.passes.applying import NotCheckedWarning, apply_plan
from prunec.passes.base import PassResult
from prunec.passes.errors import InputError, NumericMismatchError, OutOfReachError, UnsupportedModelError, UsageError
from prunec.passes.factorizing import factorized, obstacles
from prunec.passes.factors import factor_names, factors, full_rank, least_error, product, rank_that_saves
from prunec.passes.frontend import capture
from prunec.passes.low_rank import Decompose
from prunec.passes.oracle import check_oracle, relative_error
from prunec.passes.plan import PruningPlan
from prunec.passes.planned_pruning import prune_by_plan
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.rewrite import apply_plan_to_program
from prunec.passes.verify import verify_pass
from tests.architectures.redraw import redraw_
from tests.passes.checks import Net, assert_shapes_known, captured, images, normal


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


#: A network, its input, and the layer of it that is decomposed.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "conv2d": (lambda: flat(nn.Conv2d(3, 8, 3, 2, 1, 2), nn.ReLU(), nn.Conv2d(8, 2, 1)), (2, 3, 9, 9), "0"),
    "same": (lambda: flat(nn.Conv2d(3, 8, 3, padding="same"), nn.Conv2d(8, 2, 1)), (2, 3, 5, 5), "0"),
    "reflect": (lambda: flat(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")), (2, 3, 5, 5), "0"),
    "1x1": (lambda: flat(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)), (2, 6, 4, 4), "0"),
    "conv1d": (lambda: flat(nn.Conv1d(3, 6, 5, padding=2), nn.ReLU()), (2, 3, 7), "0"),
    "conv3d": (lambda: flat(nn.Conv3d(2, 5, 3), nn.ReLU()), (2, 2, 4, 4, 4), "0"),
    "linear": (lambda: flat(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)), (2, 6), "2"),
    "of tokens": (lambda: flat(nn.Linear(6, 9, bias=False)), (2, 4, 6), "0"),
}


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 3, 2, 2), (12, 1, 3), (3, 3, 1, 1)])
def test_factors_are_the_best_approximation(shape: tuple[int, ...]) -> None:
    weight = normal(*shape, seed=3)
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    for rank in range(1, full_rank(shape) + 1):
        first, second = factors("w", weight, rank)
        assert first.shape == (rank, *shape[1:])
        assert second.shape == (shape[0], rank, *[1] * (len(shape) - 2))
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        assert torch.allclose(product(first, second).flatten(1), best, atol=1e-12)
        error = float((weight - product(first, second)).square().sum())
        assert error == pytest.approx(float(values[rank:].square().sum()), abs=1e-12)
        assert least_error("w", weight, rank) == pytest.approx(error, abs=1e-12)
    assert torch.allclose(product(first, second), weight, atol=1e-12), "exact at full rank"


def test_factors_know_no_signs_and_refuse_what_cannot_be() -> None:
    weight = normal(4, 3)
    first, second = factors("w", weight, 2)
    assert (second.gather(0, second.abs().argmax(0, keepdim=True)) > 0).all()
    assert torch.allclose(first.norm(dim=1), second.norm(dim=0)), "singular values are shared evenly"
    assert factors("w", weight.float(), 1)[0].dtype == torch.float32
    for rank in (0, 4):
        with pytest.raises(InputError, match="expected 1 to 3"):
            factors("w", weight, rank)
    with pytest.raises(InputError, match="not finite"):
        factors("w", weight * torch.nan, 1)
    assert [rank_that_saves(shape) for shape in ((4, 4), (2, 2), (8, 4, 3, 3), (3, 1))] == [1, 0, 6, 0]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_is_exact_at_full_rank_and_has_the_product_at_any(name: str) -> None:
    make, shape, layer = NETWORKS[name]
    program = captured(make(), normal(*shape))
    weight = program.tensors()[f"{layer}.weight"]
    most = full_rank(tuple(weight.shape))
    for rank in (most, max(1, most // 2)):
        result = Decompose(rank={layer: rank}).run(program)
        verify_pass(program, result, "decompose")
        report = check_oracle(program, result, images(program))
        assert report.passed and report.exact
        assert_shapes_known(result.program)
        inputs = images(program)
        if rank == most:
            assert relative_error(result.program(*inputs), program(*inputs)) < 1e-9
        found = result.program.tensors()
        first, second = (found[each] for each in factor_names(f"{layer}.weight"))
        reference = program.clone()
        with torch.no_grad():
            reference.tensors()[f"{layer}.weight"].copy_(product(first, second))
        assert relative_error(result.program(*inputs), reference(*inputs)) < 1e-9
        assert f"{layer}.weight" not in found and f"{layer}.bias" not in found
        # MACs: as many places as before, of rank * (filters + inputs) each.
        old = next(each for each in program.layers() if each.name == layer)
        both = [each for each in result.program.layers() if each.name in (f"{layer}.0", f"{layer}.1")]
        expected = old.macs // weight.numel() * rank * (len(weight) + weight[0].numel())
        assert [each.name for each in both] == [f"{layer}.0", f"{layer}.1"]
        assert sum(each.macs for each in both) == expected
        assert result.program.macs() == program.macs() - old.macs + expected


def test_a_program_is_saved_and_captured_with_two_layers(tmp_path: Any) -> None:
    program = captured(NETWORKS["conv2d"][0](), normal(2, 3, 9, 9))
    result = Decompose(rank={"0": 3}).run(program).program
    result.save(tmp_path / "program.pt2")
    again = Program.load(tmp_path / "program.pt2", trust=False)
    assert relative_error(again(*images(program)), result(*images(program))) < 1e-12
    assert list(again.parameters()) == list(result.parameters())


class Odd(nn.Module):
    """Layers that can't be decomposed, and one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped, self.up = nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 6, 2, 2)
        self.twice, self.normed = nn.Conv2d(6, 6, 1), parametrizations.weight_norm(nn.Conv2d(6, 6, 1))
        self.tied, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.tied.weight
        self.cell, self.one, self.plain = nn.LSTM(6, 6, batch_first=True), nn.Linear(6, 1), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.grouped(x).relu())
        x = self.normed(self.twice(self.twice(x)).relu()).mean((2, 3))
        x = self.cell(self.other(self.tied(x))[:, None])[0][:, 0]
        return self.plain(x + self.one(x))  # type: ignore[no-any-return]


def test_what_cannot_be_decomposed_is_left_with_a_reason_and_refused_by_name() -> None:
    program = capture(redraw_(Odd().eval().double(), 0), (normal(2, 4, 5, 5),))
    reasons = {layer.name: obstacles(program)[layer.weight] for layer in program.layers()}
    words = {
        "grouped": "2 groups",
        "up": "transposed",
        "twice": "read several times",
        "normed": "computed",
        "tied": "several times",
        "cell": "no convolution",
        "one": "rank 1",
    }
    for name, word in words.items():
        (told,) = {reason for layer, reason in reasons.items() if layer.startswith(name)}
        assert word in told, name
        named = next(layer for layer in reasons if layer.startswith(name))
        with pytest.raises(UsageError, match=f"{named} can't be decomposed: .*{word}"):
            Decompose(rank={named: 1}).run(program)
    assert reasons["plain"] == ""
    result = Decompose(rank=2).run(program)
    assert result.plan is not None
    assert result.plan.ranks == {"plain.weight": 2}
    assert "grouped" in result.stats["left"] and "plain" not in result.stats["left"]
    masked = program.clone()
    masked.masks["plain.weight"] = torch.ones(6, 6, dtype=torch.bool)
    assert "masked" in obstacles(masked)["plain.weight"]
    with pytest.raises(InputError, match=r"plain\.weight can't be decomposed: its weight is masked"):
        factorized(masked, {"plain.weight": 2})
    with pytest.raises(InputError, match="no such layer"):
        factorized(program, {"nothing.weight": 2})


def wide() -> Program:
    """Layers of several sizes, of which one saves nothing at any rank."""
    network = flat(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 2),
        nn.Linear(2, 2),
    )  # fmt: skip
    return captured(network, normal(2, 3, 6, 6))


def macs_by_layer(program: Program) -> dict[str, int]:
    found: dict[str, int] = {}
    for layer in program.layers():
        name = layer.name.rpartition(".")[0] or layer.name
        found[name] = found.get(name, 0) + layer.macs
    return found


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9])
def test_a_ratio_is_a_share_of_each_layers_macs(ratio: float) -> None:
    program = wide()
    result = Decompose(ratio=ratio).run(program)
    before, after = macs_by_layer(program), macs_by_layer(result.program)
    assert result.aim is not None and result.aim.what == "MACs removed"
    for layer in program.layers():
        rank = result.plan.ranks.get(layer.weight) if result.plan else None
        if layer.name == "9":
            assert rank is None and after["9"] == before["9"]
            continue
        assert rank is not None
        assert after[layer.name] <= (1 - ratio) * before[layer.name] or rank == 1
        one_more = (
            before[layer.name]
            // torch.Size(layer.shape).numel()
            * ((rank + 1) * (layer.shape[0] + torch.Size(layer.shape[1:]).numel()))
        )
        assert one_more > (1 - ratio) * before[layer.name], "no larger rank would do"


def test_globs_ranks_rounding_and_what_is_left_out() -> None:
    program = wide()

    def ranks(**options: Any) -> dict[str, int]:
        plan = Decompose(**options).run(program).plan
        assert plan is not None
        return plan.ranks

    assert ranks(ratio={"*": 0.5, "2": 0.0, "6": 0.75}).keys() == {"0.weight", "6.weight", "8.weight"}
    assert ranks(rank=8) == {"0.weight": 8, "2.weight": 8, "6.weight": 8}
    assert ranks(rank={"2": 32}) == {"2.weight": 32}, "a rank that is named may be the full one"
    assert ranks(rank=8, ignore=("stem", "6")) == {"2.weight": 8}
    assert ranks(rank={"2": 7}, round_to=8) == {"2.weight": 7}
    free, rounded = ranks(ratio=0.5), ranks(ratio=0.5, round_to=4)
    assert all(rounded[name] % 4 == 0 for name in ("0.weight", "2.weight", "6.weight")) and rounded["8.weight"] == 1
    assert all(rounded[name] <= free[name] for name in free)
    with pytest.raises(UsageError, match="2 is to be of rank 33, and has at most 32"):
        Decompose(rank={"2": 33}).run(program)
    with pytest.raises(UsageError, match="no layer matches"):
        Decompose(ratio={"nothing": 0.5}).run(program)
    with pytest.raises(UsageError, match="no layer matches"):
        Decompose(rank=8, ignore=("nothing",)).run(program)
    idle = Decompose(rank=100).run(program)
    assert not idle.modified and idle.aim is not None
    assert (idle.aim.asked, idle.aim.got) == (5, 0) and "saves anything" in idle.aim.reason


@pytest.mark.parametrize(
    "options",
    [{}, {"ratio": 0.5, "rank": 3}, {"ratio": 1.0}, {"rank": 0}, {"rank": {"a": 0}}, {"speedup": 0.5},
     {"speedup": 2.0, "round_to": 0}],
)  # fmt: skip
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Decompose(**options)


@pytest.mark.parametrize("speedup", [1.2, 2.0, 4.0])
def test_a_speedup_is_met_and_not_by_far(speedup: float) -> None:
    program = wide()
    result = Decompose(speedup=speedup).run(program)
    macs = result.program.macs()
    assert macs * speedup <= program.macs() * (1 + 1e-12)
    assert program.macs() - macs * speedup < 0.1 * program.macs()
    assert result.aim is not None
    assert result.aim.got == program.macs() - macs
    assert check_oracle(program, result, images(program)).passed
    with pytest.raises(OutOfReachError, match="the largest is"):
        Decompose(speedup=1000.0).run(program)
    same = Decompose(speedup=1.0).run(program)
    assert not same.modified and same.plan is not None and same.plan.is_empty


def test_plans_hold_ranks_and_older_ones_are_read() -> None:
    program = wide()
    result = Decompose(rank={"0": 4, "2": 9}).run(program)
    assert result.plan is not None
    text = result.plan.to_json()
    again = PruningPlan.from_json(text)
    assert again == result.plan and again.to_json() == text
    assert again.dense_sizes["2.weight"] == {0: 32, 1: 16, 2: 3, 3: 3}
    old = json.loads(text)
    del old["ranks"]
    assert PruningPlan.from_json(json.dumps(old)).ranks == {}
    for bad in ('{"ranks": {"a": 0}}', '{"ranks": {"a": true}}', '{"ranks": {"a": "3"}}', '{"ranks": [1]}'):
        with pytest.raises(InputError, match="can't be read"):
            PruningPlan.from_json(bad)
    replayed = apply_plan_to_program(program, again)
    assert all(torch.equal(a, result.program.tensors()[name]) for name, a in replayed.tensors().items())


def test_plans_go_on_by_ranks_and_end_with_them() -> None:
    program = wide()
    pruned = PruneFilters(ratio=0.25).run(program)
    decomposed = Decompose(rank={"2": 5}).run(pruned.program)
    assert pruned.plan is not None and decomposed.plan is not None
    both = pruned.plan.then(decomposed.plan)
    assert both.then(PruningPlan({})).ranks == both.ranks, "what does nothing forgets nothing"
    assert both.kept == pruned.plan.kept and both.ranks == {"2.weight": 5}
    assert both.dense_sizes["2.weight"][0] == 32, "the size before everything"
    whole = PassResult(apply_plan_to_program(program, both), True, plan=both)
    assert check_oracle(program, whole, images(program)).passed
    assert relative_error(whole.program(*images(program)), decomposed.program(*images(program))) < 1e-12
    assert prune_by_plan(program, both).program.macs() == whole.program.macs()
    with pytest.raises(UsageError, match="no plan tells that"):
        both.then(pruned.plan)
    with pytest.raises(InputError, match="has 16 slices here, expected 24"):
        narrower = captured(flat(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)), normal(2, 3, 6, 6))
        apply_plan_to_program(narrower, decomposed.plan)


def test_the_oracle_sees_factors_that_are_wrong() -> None:
    program = wide()
    result = Decompose(rank={"0": 4, "2": 9}).run(program)
    wrong = result.program.clone()
    with torch.no_grad():
        wrong.tensors()["2.0.weight"][0] *= 1.01
    with pytest.raises(NumericMismatchError, match=r"2\.weight of rank 9 has a squared error"):
        check_oracle(program, replace(result, program=wrong), images(program))
    swapped = result.program.clone()
    with torch.no_grad():
        swapped.tensors()["2.1.bias"].add_(0.1)
    assert not check_oracle(program, replace(result, program=swapped), images(program)).passed


def module() -> nn.Module:
    return flat(
        nn.Conv2d(3, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, 10), nn.Linear(10, 3),
    )  # fmt: skip


@pytest.mark.parametrize("is_pruned", [False, True])
def test_the_users_own_module_gets_two_layers(is_pruned: bool) -> None:
    network, x = redraw_(module().eval().double(), 0), normal(2, 3, 8, 8)
    program = capture(network, (x,))
    plan, result = PruningPlan({}), program
    if is_pruned:
        pruned = PruneFilters(ratio=0.25).run(program)
        assert pruned.plan is not None
        plan, result = pruned.plan, pruned.program
    decomposed = Decompose(rank={"3": 4, "6": 5}).run(result)
    assert decomposed.plan is not None
    plan = PruningPlan.from_json(plan.then(decomposed.plan).to_json())
    own = copy.deepcopy(network)
    assert apply_plan(own, plan, (x,)).checked
    with torch.no_grad():
        assert relative_error(own(x), decomposed.program(x)) < 1e-9
    assert [type(layer) for layer in own[3]] == [nn.Conv2d, nn.Conv2d]
    assert (own[3][0].bias, own[3][1].bias, own[6][0].bias) == (None, None, None)
    assert own[6][1].bias is not None and not own.training
    assert decomposed.program.parameters().keys() == dict(own.named_parameters()).keys()
    own.train()(x).sum().backward()
    unchecked = copy.deepcopy(network)
    with pytest.warns(NotCheckedWarning):
        apply_plan(unchecked, plan)
    with torch.no_grad():
        assert relative_error(unchecked(x), decomposed.program(x)) < 1e-9


class OwnLinear(nn.Linear):
    """A subclass whose forward could be anything."""


class Reads(nn.Module):
    """Reads a layer's weight itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(functional.linear(x, self.first.weight, self.first.bias))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "layer", "words"),
    [
        (flat(OwnLinear(6, 8), nn.Linear(8, 4)), "0", "place of 0, and it is a OwnLinear"),
        (nn.Linear(6, 8), "weight", "it is the whole module"),
        (Reads(), "first", "two layers in the place of each of 1 layers, such as first"),
        (
            Net(
                lambda s, x: s.head(functional.linear(x, s.w)), w=nn.Parameter(torch.zeros(8, 6)), head=nn.Linear(8, 4)
            ),
            "w",
            "has no layer of torch there",
        ),
    ],
)
def test_a_module_whose_layer_cannot_be_replaced_is_refused_and_as_it_was(
    network: nn.Module, layer: str, words: str
) -> None:
    redraw_(network.eval().double(), 0)
    x = normal(2, 6)
    result = Decompose(rank={layer: 2}).run(capture(network, (x,)))
    assert result.plan is not None
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UnsupportedModelError, match=words):
        apply_plan(network, result.plan, (x,))
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
