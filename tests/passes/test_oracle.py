"""The oracle on whole architectures, and that it fails when a single kept index is wrong."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
import torch
from torch import Tensor, nn

from prunec.passes.base import PassResult
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.oracle import TOLERANCE, check_oracle, relative_error, zeroed
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.rewrite import apply_plan_to_program
from prunec.passes.sparsify import Sparsify
from tests.architectures.densenet import densenet121
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import BasicBlock, Bottleneck, imagenet_resnet
from tests.architectures.vgg import vgg16_bn
from tests.passes.checks import Net, captured, check_module, exchanged, images, normal, random_prune

Architecture = tuple[Callable[[], nn.Module], int]

#: Name -> how it is built, and the side of the images that the checks run at.
ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": (lambda: imagenet_resnet(BasicBlock, (2, 2, 2, 2)), 64),
    "resnet50": (lambda: imagenet_resnet(Bottleneck, (3, 4, 6, 3)), 64),
    "vgg16_bn": (lambda: vgg16_bn(hidden=512), 64),
    "mobilenet_v2": (mobilenet_v2, 64),
    "densenet121": (densenet121, 64),
}
SAMPLED_MUTATIONS = 8


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pruned_equals_zeroed(name: str) -> None:
    build, size = ARCHITECTURES[name]
    network = redraw_(build().eval(), seed=1).double()
    x = normal(2, 3, size, size)
    program = capture(network, (x,))
    for result in (PruneFilters(ratio=0.5, min_channels=2).run(program), random_prune(program, seed=2, least=2)):
        assert result.program.macs() < program.macs()
        assert check_oracle(program, result, (x,)).max_relative_error < TOLERANCE
    check_module(network, result, (x,))
    assert_caught(program, result, Random(3).sample(all_places(result), SAMPLED_MUTATIONS), x)


def test_every_mutation_of_slopes_is_caught() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 16, 3), nn.PReLU(16), nn.Conv2d(16, 4, 1))
    with torch.no_grad():
        for module in network:
            module.weight.copy_(normal(*module.weight.shape))
    x = normal(4, 3, 8, 8)
    program = capture(network.double(), (x,))
    result = PruneFilters(ratio=0.5).run(program)
    places = all_places(result)
    assert {"1.weight", "3.weight"} < {name for name, _ in places}
    assert_caught(program, result, places, x)


def all_places(result: PassResult) -> list[tuple[str, int]]:
    """Every tensor and dimension that the plan makes smaller."""
    assert result.plan is not None
    return [(name, dim) for name, dims in result.plan.kept.items() for dim in dims]


def assert_caught(program: Program, result: PassResult, places: list[tuple[str, int]], x: Tensor) -> None:
    """Exchanging one kept index in any of these places makes the comparison fail."""
    assert result.plan is not None
    with torch.no_grad():
        expected = zeroed(program, result.plan)(x)
        assert relative_error(result.program(x), expected) < TOLERANCE
        mutant = result.program.clone()
        for name, dim in places:
            tensor, mutated = program.tensors()[name], mutant.tensors()[name]
            errors = []
            # Exchanging what is always zero (a padded border, a filter that never fires) changes nothing.
            for plan in exchanged(result.plan, name, dim, tensor.shape[dim]):
                mutated.copy_(plan.select(name, tensor))
                errors.append(relative_error(mutant(x), expected))
                if errors[-1] > TOLERANCE:
                    break
            mutated.copy_(result.program.tensors()[name])
            assert errors[-1] > TOLERANCE, f"{name}, dimension {dim}: {errors}"


def test_outputs_that_say_nothing_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.zero_()
    program = capture(network, (torch.randn(2, 3, 4, 4),))
    result = PruneFilters(ratio=0.5).run(program)
    with pytest.raises(NumericMismatchError, match="can't be compared"):
        check_oracle(program, result, (torch.randn(2, 3, 4, 4),))


def test_inputs_that_are_not_finite_are_refused() -> None:
    program = capture(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)), (torch.randn(2, 3, 4, 4),))
    result = PruneFilters(ratio=0.5).run(program)
    with pytest.raises(NumericMismatchError):
        check_oracle(program, result, (torch.full((2, 3, 4, 4), float("inf")),))


def joined() -> nn.Module:
    """Slices, a concatenation, a shuffle and a split, behind a sigmoid: removed channels are not zero by themselves."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.a(x).sigmoid()
        y = torch.cat([y[:, -3:], s.b(y) * s.scale, y[:, :-3]], 1)
        left, right = y.view(-1, 2, 8, 4, 4).transpose(1, 2).flatten(1, 2).chunk(2, 1)
        return s.c(left.relu() + right).mean((2, 3))  # type: ignore[no-any-return]

    scale = nn.Parameter(torch.ones(8, 1, 1))
    return Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 8, 1), c=nn.Conv2d(8, 3, 1), scale=scale)


def mixed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.BatchNorm2d(8, affine=False), nn.Sigmoid(), nn.Conv2d(8, 12, 1, groups=2), nn.Sigmoid(),
        nn.ConvTranspose2d(12, 6, 2, 2), nn.Flatten(), nn.Linear(6 * 64, 10), nn.Tanh(), nn.Linear(10, 3),
    )  # fmt: skip


@pytest.mark.parametrize("make", [joined, mixed])
@pytest.mark.parametrize("seed", range(3))
def test_every_mutation_is_caught_under_random_plans(make: Callable[[], nn.Module], seed: int) -> None:
    program = captured(make(), normal(2, 3, 4, 4), seed=seed)
    result = random_prune(program, seed, least=2)
    assert_caught(program, result, all_places(result), images(program)[0])


def test_a_size_that_is_rewritten_wrongly_is_caught() -> None:
    program = captured(joined(), normal(2, 3, 4, 4))
    result = PruneFilters(ratio=0.4).run(program)
    wrong = result.program.clone()
    first, last = (n for n in wrong.graph.nodes if "aten.slice" in str(n.target) and n.args[1] == 1)
    first.args, last.args = (*first.args[:2], first.args[2] - 1, *first.args[3:]), (*last.args[:3], last.args[3] - 1)
    wrong.module.recompile()
    assert check_oracle(program, result, images(program)).passed
    assert not check_oracle(program, replace(result, program=wrong), images(program)).passed


def test_zeroing_covers_every_pruned_slice() -> None:
    program = captured(mixed(), normal(2, 3, 4, 4))
    plan = PruneFilters(ratio=0.5).run(program).plan
    assert plan is not None
    dense = zeroed(program, plan).tensors()
    for name, dims in plan.kept.items():
        for dim, kept in dims.items():
            gone = torch.tensor([i for i in range(dense[name].shape[dim]) if i not in kept])
            assert not dense[name].index_select(dim, gone).any()
            assert program.tensors()[name].index_select(dim, gone).any()
    assert {"1.running_mean", "1.running_var", "4.running_mean", "8.weight", "10.weight"} <= plan.kept.keys()


@pytest.mark.parametrize(("weight", "bias"), [(1.0, float("nan")), (float("inf"), 0.0)])
def test_outputs_that_hide_every_error_are_refused(weight: float, bias: float) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        network[2].weight.fill_(weight)
        network[2].bias.fill_(bias)
    program = capture(network, (torch.ones(2, 4),))
    with pytest.raises(NumericMismatchError, match="can't be compared"):
        check_oracle(program, random_prune(program, 0), (torch.ones(3, 4),))


def test_results_without_a_plan() -> None:
    program = captured(nn.Linear(4, 4), normal(2, 4))
    with pytest.raises(UsageError, match="no pruning plan"):
        check_oracle(program, Sparsify().run(program), (normal(2, 4),))


def test_the_programs_and_the_inputs_stay_as_they_are() -> None:
    network = Net(lambda s, x: s.b(s.a(x.mul_(2)).relu()), a=nn.Linear(4, 8), b=nn.Linear(8, 3))
    program = captured(network, normal(2, 4)).train()
    result = PruneFilters(ratio=0.5).run(program)
    x = normal(3, 4)
    before = x.clone()
    assert check_oracle(program, result, (x,)).passed
    assert torch.equal(x, before)
    assert program.training
    assert result.program.training


def test_an_empty_plan_is_exact() -> None:
    program = captured(mixed(), normal(2, 3, 4, 4))
    result = PassResult(program, False, {}, PruningPlan({}))
    assert check_oracle(program, result, images(program)).max_relative_error == 0


def test_relative_error() -> None:
    one = torch.tensor([1.0, -4.0])
    assert relative_error(one, one) == 0
    assert relative_error(one + torch.tensor([0.0, 1.0]), one) == 0.25
    assert relative_error({"a": one, "b": (one * 2, 3)}, {"a": one, "b": (one, 3)}) == 1.0
    assert relative_error((one, torch.tensor([0, 0])), (one, torch.tensor([0, 0]))) == 0
    assert relative_error((one, torch.tensor([0, 1])), (one, torch.tensor([0, 0]))) == 1
    assert relative_error((one, one > 0), (one, one < 0)) == 1
    # What has no scale is compared as such: whole numbers, zeros, and what isn't finite.
    masked = torch.tensor([-2.0, float("-inf"), float("nan")])
    assert relative_error(torch.tensor([1]), torch.tensor([1])) == 0
    assert relative_error((one, one * 0), (one, one * 0)) == 0
    assert relative_error((one, one * 1e-30), (one, one * 0)) == 1
    assert relative_error(masked, masked) == 0
    assert relative_error(masked * 2, masked) == 1
    assert relative_error(masked, masked.flip(0).roll(1)) == 1
    assert relative_error(-masked, masked) == 1
    assert relative_error(one * 1e-12, one * 1e-12) == 0
    nothing = torch.tensor([])
    for actual, expected in [
        (one, one[:1]), ((one, one), one), ((), ()), (nothing, nothing), (one, one * float("nan")), (one * 0, one * 0),
        (one / 0, one),
    ]:  # fmt: skip
        with pytest.raises(NumericMismatchError):
            relative_error(actual, expected)


class Masked(nn.Module):
    """Scores with -inf where a mask is, a constant, zeros and class indices beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y: Tensor = self.b(self.a(x).relu())
        return y.masked_fill(y > 1, float("-inf")), torch.full_like(y, 3), y * 0, y.argmax(1)


def test_outputs_without_a_scale_of_their_own_are_compared_as_such() -> None:
    program = captured(Masked(), normal(16, 4))
    assert program(normal(16, 4))[0].isinf().any()
    result = random_prune(program, 0)
    assert check_oracle(program, result, (normal(16, 4),)).passed
    wrong = result.program.clone()
    wrong.tensors()["b.bias"].data += 1e-6
    assert not check_oracle(program, replace(result, program=wrong), (normal(16, 4),)).passed


def test_the_class_alone() -> None:
    program = captured(Net(lambda s, x: s.b(s.a(x)).argmax(1), a=nn.Linear(4, 8), b=nn.Linear(8, 5)), normal(16, 4))
    assert check_oracle(program, random_prune(program, 0), (normal(16, 4),)).passed


def test_the_limit_is_relative_to_the_networks_own_scale() -> None:
    network = redraw_(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double(), 0)
    with torch.no_grad():
        for parameter in network[2].parameters():
            parameter.mul_(1e-12)
    program = capture(network, (normal(2, 4),))
    result = random_prune(program, 0)
    assert check_oracle(program, result, (normal(3, 4),)).passed
    wrong = result.program.clone()
    wrong.tensors()["2.bias"].data *= 1.1
    assert not check_oracle(program, replace(result, program=wrong), (normal(3, 4),)).passed


def test_outputs_that_became_zero_are_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3, bias=False)).double()
    with torch.no_grad():
        network[1].weight[:, 0] = 0
    program = capture(network, (normal(2, 4),))
    plan = PruningPlan({"0.weight": {0: [0]}, "0.bias": {0: [0]}, "1.weight": {1: [0]}})
    result = PassResult(apply_plan_to_program(program, plan), True, {}, plan)
    with pytest.raises(NumericMismatchError, match="can't be compared"):
        check_oracle(program, result, (normal(2, 4),))


def learned_divisor(s: Net, x: Tensor) -> Tensor:
    y = s.a(x)
    y = y + (s.alpha * y).sin().square() / s.alpha
    return s.b(y / s.alpha.square().sum().sqrt() + (y / s.alpha).sum(1, keepdim=True))  # type: ignore[no-any-return]


def test_learned_divisors() -> None:
    network = Net(learned_divisor, a=nn.Linear(4, 8), alpha=nn.Parameter(torch.ones(8)), b=nn.Linear(8, 3))
    program = captured(network, normal(2, 4))
    result = PruneFilters(ratio=0.5).run(program)
    assert result.modified
    report = check_oracle(program, result, images(program))
    assert report.passed
    assert report.exact


def test_keyword_inputs_of_inexact_networks() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)

        def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
            y: Tensor = self.b(self.norm(self.a(x)))
            return y if scale is None else y * scale

    x, scale = normal(2, 8), normal(2, 1, seed=1)
    network = redraw_(Scaled().double().eval(), 0)
    for args, kwargs in (((x,), {"scale": scale}), ((), {"x": x, "scale": scale}), ((x, scale), {})):
        program = capture(network, args, kwargs)
        assert check_oracle(program, random_prune(program, 0), args, kwargs).passed
    assert check_oracle(program, random_prune(program, 0), (x,), {"scale": scale}).passed


@pytest.mark.parametrize("fill", [-1e9, torch.finfo(torch.float32).min, -6.5e4 * 10])
def test_values_that_a_mask_fills_in_hide_nothing(fill: float) -> None:
    expected = normal(4, 8).masked_fill(torch.eye(4, 8).bool(), fill)
    other = torch.where(expected == fill, expected, expected * 1.001)
    assert relative_error(other, expected) == pytest.approx(1e-3, rel=0.5)
    assert relative_error(expected.clone(), expected) == 0
    added = torch.where(torch.eye(4, 8).bool(), fill, 0.0) + normal(4, 8)
    assert relative_error(added + 1e-3 * ~torch.eye(4, 8).bool(), added) == pytest.approx(1e-3, rel=0.9)
    assert relative_error(added * (1 + 1e-15), added) < TOLERANCE
    assert relative_error(torch.full((3,), fill), torch.full((3,), fill)) == 0
    # In 16 bits the fill is rounded, or the largest number: the others are compared at their own scale.
    for dtype in (torch.float16, torch.bfloat16):
        rounded = expected.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
        assert 1e-5 < relative_error(rounded, expected) < 2**-7
        assert relative_error(torch.where(expected == fill, rounded, rounded * 1.5), expected) > 0.3
    assert relative_error(torch.where(expected == fill, 65504.0, expected), expected) >= 1
    # Large values of the network's own are its scale: rounding of small ones beside them is no difference.
    own = torch.tensor([2e6, 3e6, 400.0], dtype=torch.float64)
    assert relative_error(own + torch.tensor([0, 1e-9, 1e-9]), own) < TOLERANCE
