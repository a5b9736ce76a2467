"""The work of a program at any widths is the work of the program that is pruned to them."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.passes.costs.counting import work_of, workload_of
from prunec.passes.costs.workload import COUNTS, Work, Workload
from prunec.passes.coupling import Coupling, Group, analyse
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.resnet import cifar_resnet
from tests.architectures.vit import ViT
from tests.fuzz.checking import random_program
from tests.passes.checks import Net, captured, normal, random_prune


def widths(coupling: Coupling, plan: PruningPlan) -> NDArray[np.int64]:
    """Units of each group that a plan keeps."""

    def kept(group: Group) -> int:
        member = group.members[0]
        indices = set(plan.kept.get(member.parameter, {}).get(member.dim, range(10**6)))
        return sum(int(row[0]) in indices for row in group.slices[0])

    return np.array([kept(group) for group in coupling.groups], dtype=np.int64)


def full(program: Program) -> tuple[Workload, Work]:
    coupling = analyse(program)
    workload = workload_of(program, coupling)
    return workload, workload.at(np.array([group.count for group in coupling.groups], dtype=np.int64))


def assert_equal(predicted: Work, real: Work) -> None:
    assert [(o.name, o.operator, o.tail) for o in predicted.operations] == [
        (o.name, o.operator, o.tail) for o in real.operations
    ]
    for count in COUNTS:
        np.testing.assert_allclose(getattr(predicted, count), getattr(real, count), rtol=1e-12, err_msg=count)


def check(program: Program, seed: int) -> None:
    coupling = analyse(program)
    workload = workload_of(program, coupling)
    pruned = random_prune(program, seed, coupling=coupling)
    assert pruned.plan is not None
    assert_equal(workload.at(widths(coupling, pruned.plan)), full(pruned.program)[1])
    assert full(pruned.program)[1].macs.sum() == pytest.approx(pruned.program.macs(), rel=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_random_networks(seed: int) -> None:
    check(random_program(seed), seed)


def mixed(net: Net, x: Tensor) -> Tensor:
    """Groups, depthwise and transposed convolutions, a concatenation, a shared layer, a product with a weight."""
    first = net.first(x).relu()
    y = net.up(torch.cat([net.grouped(first), net.depthwise(first)], 1))
    y = torch.nn.functional.max_pool2d(y, 2).flatten(1) @ net.matrix
    return net.head(net.shared(net.shared(y).relu()) + y)  # type: ignore[no-any-return]


NETWORKS = {
    "resnet": lambda: captured(cifar_resnet(20), normal(2, 3, 16, 16)),
    "mobilenet": lambda: captured(mobilenet_v2(10), normal(2, 3, 32, 32)),
    "vit": lambda: captured(ViT(32, 8, 32, 2, 4, 10), normal(2, 3, 32, 32)),
    "lstm": lambda: captured(Recurrent(), normal(2, 5, 6)),
    "mixed": lambda: captured(
        Net(
            mixed, first=nn.Conv2d(3, 8, 1), grouped=nn.Conv2d(8, 12, 1, groups=2),
            depthwise=nn.Conv2d(8, 8, 1, groups=8),
            up=nn.ConvTranspose2d(20, 6, 2, 2), matrix=nn.Parameter(torch.randn(54, 10)), shared=nn.Linear(10, 10),
            head=nn.Linear(10, 2),
        ),
        normal(2, 3, 3, 3),
    ),
}  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Linear(6, 8), nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x))[0].relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NETWORKS)
def test_known_networks(name: str) -> None:
    program = NETWORKS[name]()
    for seed in range(3):
        check(program, seed)


def test_the_counts_of_a_residual_block() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.a(x).relu()
        return net.head(torch.nn.functional.avg_pool2d(net.b(y) + y, 2).flatten(1))  # type: ignore[no-any-return]

    program = captured(
        Net(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 3, padding=1), head=nn.Linear(16, 5)), normal(2, 3, 4, 4)
    )
    workload, work = full(program)
    assert [operation.name for operation in work.operations] == ["", "a", "b", "head"]
    assert work.operations[2].kernel == (3, 3) and work.operations[2].tail == ("avg_pool2d",)
    assert work.in_channels.tolist() == [0, 3, 4, 16]
    assert work.out_channels.tolist() == [0, 4, 4, 5]
    assert work.macs.tolist() == [0, 3 * 4 * 16, 4 * 4 * 9 * 16, 80]
    assert work.weights.tolist() == [0, 12, 144, 80]
    assert work.reads.tolist() == [0, 48, 64, 16]
    assert work.writes.tolist() == [0, 64, 64, 5]
    assert work.joined.tolist() == [0, 0, 64, 0]  # the other operand of the sum
    assert work.tail_moves.tolist() == [0, 0, 64 + 16, 0]
    assert workload.owners["add"] == 2
    assert workload.touched.tolist() == [[False, True, True, True]]


def test_many_widths_at_once_are_each_one_alone() -> None:
    coupling = analyse(program := NETWORKS["resnet"]())
    workload, generator = workload_of(program, coupling), np.random.default_rng(0)
    kept = generator.integers(1, [group.count for group in coupling.groups], (5, 2, len(coupling.groups)))
    together = workload.at(kept)
    for index in np.ndindex(5, 2):
        alone = workload.at(kept[index])
        for count in COUNTS:
            np.testing.assert_array_equal(getattr(together, count)[index], getattr(alone, count))


def test_attention_meets_keys_and_values() -> None:
    work = full(NETWORKS["vit"]())[1]
    tokens = 17
    qkv = [position for position, operation in enumerate(work.operations) if operation.name.endswith("qkv")]
    for position in qkv:
        assert work.tail_macs[position] == 2 * tokens * tokens * 32
        assert "scaled_dot_product_attention" in work.operations[position].tail
    assert work.tail_macs.sum() == NETWORKS["vit"]().attention_macs()


@pytest.mark.parametrize("seed", range(30, 36))
def test_work_without_an_analysis_is_that_of_the_program(seed: int) -> None:
    program = random_program(seed)
    assert_equal(work_of(program), full(program)[1])
