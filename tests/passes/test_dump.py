"""The text form of a program against golden files."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from prunec.passes.dump import program_text
from prunec.passes.frontend import capture
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import cifar_resnet
from tests.architectures.vit import ViT
from tests.passes.checks import Net, random_prune

IMAGE = (torch.zeros(2, 3, 16, 16),)


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 16, 3, groups=16), nn.ConvTranspose2d(16, 8, 2, 2), nn.Flatten(), nn.Linear(8 * 576, 4),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: cifar_resnet(8),
    "grouped": grouped,
    "attention": lambda: ViT(16, patch=8, width=16, depth=1, heads=2, classes=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, check_golden: Callable[[str, str], None]) -> None:
    program = capture(redraw_(NETWORKS[name](), 0), IMAGE)
    check_golden(f"{name}.txt", program_text(program))


def test_after_pruning_and_sparsity(check_golden: Callable[[str, str], None]) -> None:
    program = capture(redraw_(cifar_resnet(8), 0), IMAGE)
    pruned = PruneFilters(ratio=0.5, round_to=4, freeze=("stem",)).run(program).program
    check_golden("residual_pruned_sparse.txt", program_text(Sparsify().run(pruned).program))


def test_dtypes_several_outputs_and_sizes_that_vary(check_golden: Callable[[str, str], None]) -> None:
    def forward(s: Net, x: Tensor) -> Any:
        first, second = s.b(s.a(x)).chunk(2, 1)
        y = F.max_pool2d(first * second, 2) + s.scale
        return y.flatten(0, 1).sum(-1), y.double(), y.argmax(1)

    network = Net(forward, a=nn.Conv2d(3, 6, 3, padding=1), b=nn.Conv2d(6, 8, 1), scale=torch.ones(4, 1, 1))
    sizes = {0: Dim("n"), 2: 2 * Dim("h", min=4, max=64), 3: 2 * Dim("w", min=4, max=64)}
    program = capture(redraw_(network, 0), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=(sizes,))
    check_golden("varying.txt", program_text(program))


def test_the_text_depends_on_the_program_alone() -> None:
    network = redraw_(cifar_resnet(8), 0)
    program = capture(network, IMAGE)
    text = program_text(program)
    assert text == program_text(program)
    assert text == program_text(capture(network, IMAGE))
    assert text == program_text(program.clone().train())
    assert text != program_text(random_prune(program, 0).program)


def test_a_mask_that_pruning_cut_across_its_fours_is_not_called_two_four() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    sparse = Sparsify().run(capture(redraw_(network, 0), (torch.zeros(2, 8),))).program
    assert program_text(sparse).count("(2:4)") == 2
    text = program_text(PruneFilters(ratio=0.4).run(sparse).program)
    assert "2.weight (4, 4) (masked)" in text
