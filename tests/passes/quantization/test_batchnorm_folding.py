"""Folding is exact, and happens only where the layer's weight and output are its own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunec.passes.graphs import calls
from prunec.passes.oracle import relative_error
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.sparsify import Sparsify
from tests.fuzz.checking import random_program
from tests.passes.checks import Net, captured, images, normal


def norms(program: Any) -> int:
    return len(list(calls(program.graph, "batch_norm")))


def check(network: nn.Module, x: Tensor, left: int) -> None:
    program = captured(network, x)
    result = fold_batch_norms(program)
    assert norms(result.program) == left
    assert result.stats == {"folded": norms(program) - left}
    assert result.modified == (norms(program) > left)
    with torch.no_grad():
        assert relative_error(result.program(*images(program)), program(*images(program))) < 1e-12
    assert norms(program) == result.stats["folded"] + left, "the given program stays as it is"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "norm", "size"),
    [
        (nn.Conv1d, nn.BatchNorm1d, 1),
        (nn.Conv2d, nn.BatchNorm2d, 2),
        (nn.Conv3d, nn.BatchNorm3d, 3),
        (nn.ConvTranspose1d, nn.BatchNorm1d, 1),
        (nn.ConvTranspose2d, nn.BatchNorm2d, 2),
        (nn.ConvTranspose3d, nn.BatchNorm3d, 3),
    ],
)
def test_convolutions_of_every_rank(layer: type[nn.Module], norm: type[nn.Module], size: int, bias: bool) -> None:
    network = nn.Sequential(layer(3, 6, 3, bias=bias), norm(6), nn.ReLU(), layer(6, 4, 2, bias=bias), norm(4))
    check(network, normal(2, 3, *(5,) * size), left=0)


@pytest.mark.parametrize("affine", [True, False])
def test_linear_and_grouped_layers_and_norms_without_gains(affine: bool) -> None:
    check(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, affine=affine)), normal(2, 4), left=0)
    check(nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8, affine=affine)), normal(2, 4, 5, 5), left=0)


@pytest.mark.parametrize(
    "network",
    [
        Net(lambda n, x: n.norm(n.conv(x)) + n.conv(x), conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3)),
        Net(lambda n, x: (y := n.conv(x)) + n.norm(y), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)),
        Net(
            lambda n, x: n.norm(functional.conv2d(x, n.weight.tanh())),
            weight=nn.Parameter(torch.randn(4, 3, 1, 1)), norm=nn.BatchNorm2d(4),
        ),
        Net(
            lambda n, x: n.norm(n.conv(x)) * n.conv.bias.sum(), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4),
        ),
        nn.Sequential(nn.ConvTranspose2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)),
    ],
    ids=["weight used twice", "output used twice", "computed weight", "bias used elsewhere", "grouped transposed",
         "statistics of the batch", "no layer before"],
)  # fmt: skip
def test_what_must_stay(network: nn.Module) -> None:
    channels = 4 if isinstance(network, nn.Sequential) and isinstance(network[0], nn.ConvTranspose2d) else 3
    check(network, normal(2, channels, 5, 5), left=1)


def test_tied_weights_are_not_scaled_twice() -> None:
    first, second = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
    second.weight = first.weight
    check(nn.Sequential(first, nn.BatchNorm2d(3), second, nn.BatchNorm2d(3)), normal(2, 3, 5, 5), left=2)


def test_a_norm_over_tokens_of_a_linear_layer_stays() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(5))
    check(network, normal(2, 5, 4), left=1)


def test_masks_and_names_stay() -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    program = Sparsify().run(captured(network, normal(2, 8, 6, 6))).program
    folded = fold_batch_norms(program).program
    assert folded.masks.keys() == program.masks.keys()
    for name, mask in folded.masks.items():
        assert not folded.parameters()[name][~mask].any()
    assert set(folded.parameters()) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert [layer.name for layer in folded.layers()] == ["0", "3"]
    assert folded.macs() == program.macs()


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed: int) -> None:
    program = random_program(seed)
    x = images(program)
    with torch.no_grad():
        assert relative_error(fold_batch_norms(program).program(*x), program(*x)) < 1e-9
