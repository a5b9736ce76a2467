"""The oracle on whole architectures, and that it fails when a single kept index is wrong."""

from collections.abc import Callable
from random import Random

import pytest
import torch
from torch import Tensor, nn

from prunec.passes.base import PassResult
from prunec.passes.errors import NumericMismatchError
from prunec.passes.frontend import capture
from prunec.passes.oracle import TOLERANCE, check_oracle, relative_error, zeroed
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from tests.architectures.densenet import densenet121
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.random_cnn import random_cnn
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import BasicBlock, Bottleneck, imagenet_resnet
from tests.architectures.vgg import vgg16_bn
from tests.passes.checks import check_module, exchanged, normal, random_prune

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


@pytest.mark.parametrize("seed", range(40))
def test_every_mutation_is_caught_on_random_networks(seed: int) -> None:
    network = random_cnn(seed, 1 + seed % 7).double()
    program = capture(network, (network.example(),))
    result = PruneFilters(ratio=0.5, criterion="random", seed=seed, min_channels=2).run(program)
    # Slopes for negative values do nothing where these networks, with biases above 0, yield none: see below.
    slopes = {f"{path}.weight" for path, module in network.named_modules() if isinstance(module, nn.PReLU)}
    places = [place for place in all_places(result) if place[0] not in slopes]
    assert places
    assert_caught(program, result, places, network.example(batch=16, seed=1))


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
