"""Small networks with groups of every kind, and data, for criteria that look at data."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from prunec.calibration import collect_evidence
from prunec.passes.criteria import Criterion, Evidence
from prunec.passes.program import Program
from tests.passes.checks import Net, captured, normal

Batches = list[tuple[Tensor, Tensor]]


def residual() -> Program:
    """A stream that two layers add to, an inner layer beside a depthwise one, batch norms, and a linear head."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.norm(s.stem(x)).relu()
        y = (y + s.b(s.depthwise(s.a(y)).relu())).relu()
        return s.head(y.mean((2, 3)))  # type: ignore[no-any-return]

    return captured(
        Net(
            forward, stem=nn.Conv2d(3, 8, 3, bias=False), norm=nn.BatchNorm2d(8), a=nn.Conv2d(8, 6, 1),
            depthwise=nn.Conv2d(6, 6, 3, padding=1, groups=6), b=nn.Conv2d(6, 8, 1), head=nn.Linear(8, 5),
        ), normal(2, 3, 8, 8),
    )  # fmt: skip


def grouped() -> Program:
    """A convolution of two groups between two others, and a flattened map."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.b(s.a(x).relu()).relu()
        return s.head(s.c(y).relu().flatten(1))  # type: ignore[no-any-return]

    return captured(
        Net(
            forward, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 8, 3, groups=2), c=nn.Conv2d(8, 6, 1),
            head=nn.Linear(6 * 16, 5),
        ), normal(2, 3, 8, 8),
    )  # fmt: skip


def linear() -> Program:
    """A perceptron, whose inputs have both signs."""
    layers = (nn.Flatten(), nn.Linear(3 * 8 * 8, 12), nn.ReLU(), nn.Linear(12, 9), nn.GELU(), nn.Linear(9, 5))
    return captured(nn.Sequential(*layers), normal(2, 3, 8, 8))


NETWORKS: dict[str, Callable[[], Program]] = {"residual": residual, "grouped": grouped, "linear": linear}


def data(count: int = 3, size: int = 4) -> Batches:
    """Batches of images and labels, the same ones however many are taken."""
    return [
        (normal(size, 3, 8, 8, seed=20 + i), torch.randint(0, 5, (size,), generator=torch.Generator().manual_seed(i)))
        for i in range(count)
    ]


def evidence_for(program: Program, criterion: Criterion, batches: Batches | None = None) -> Evidence:
    return collect_evidence(program, [criterion], data() if batches is None else batches, cross_entropy)
