"""Factors on units: closed, they leave what cutting the units leaves, whatever stands behind a filter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunec.compiler.recovery.regimes.unit_factors import UnitFactors
from prunec.passes import PruneFilters, capture
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.filter_pruning import kept_by
from prunec.passes.tensors import with_values
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import cifar_resnet
from tests.recovery.regimes.networks import Attention, Concatenated, Gated, Unscaled

HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
IMAGE, TOKENS = (2, 1, 8, 8), (2, 5, 12)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
            nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU6(), *HEAD,
        ), IMAGE,
    ),
    "biases": (
        lambda: nn.Sequential(nn.Conv2d(1, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), *HEAD), IMAGE,
    ),
    "sigmoid": (lambda: nn.Sequential(nn.Conv2d(1, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 6, 3), nn.ReLU(), *HEAD), IMAGE),
    "concatenated": (Concatenated, IMAGE),
    "norms without scale": (Unscaled, IMAGE),
    "gates": (Gated, IMAGE),
    "queries and keys": (Attention, TOKENS),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_closed_factors_are_cut_units(name: str) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    program = capture(redraw_(make().eval(), 0), (x.float(),)).double()
    options = PruneFilters(ratio=0.5, criterion="learned", seed=0)
    groups = kept_by(program, PruneFilters(ratio=0.5, seed=0))[0].groups
    scores: dict[str, Tensor] = {group.name: torch.rand(group.count, dtype=torch.float64) for group in groups}
    evidence = Evidence({}, decisions={"units": scores})
    factors = UnitFactors.on(program, groups)
    form = program.with_tensors(program.tensors())
    factors.insert(form)
    for group, kept in kept_by(program, options, evidence)[1]:
        assert 0 < len(kept) < group.count
        factors.values[group.name].zero_()
        factors.values[group.name][torch.tensor(kept)] = 1.0
    merged = factors.merged(program.tensors(), factors.values)
    masked = program.with_tensors(with_values(program.tensors(), merged))
    expected = options.run(program, evidence).program(x)
    for other in (masked, form):
        torch.testing.assert_close(other(x), expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(program(x), expected, rtol=1e-3)


RESIDUAL = "a residual block"


@pytest.mark.parametrize("name", [*NETWORKS, RESIDUAL])
@torch.no_grad()
def test_factors_merge_into_what_makes_units_as_into_what_reads_them(name: str) -> None:
    make, shape = ((lambda: cifar_resnet(8)), (2, 3, 16, 16)) if name == RESIDUAL else NETWORKS[name]
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    program = capture(redraw_(make().eval(), 0), (x.float(),)).double()
    factors = UnitFactors.on(program, kept_by(program, PruneFilters(ratio=0.5, seed=0))[0].groups)
    for values in factors.values.values():
        values.copy_((torch.rand(len(values)) * 3 - 1).clamp(min=0))
    read, made = factors.merged(program.tensors(), factors.values), factors.merged_into_makers(program, factors.values)
    outputs = [program.with_tensors(with_values(program.tensors(), each))(x) for each in (read, made)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-6, atol=1e-8)
    if name == RESIDUAL:
        assert any(program.tensors()[tensor].ndim == 1 for tensor in made), "scales of norms have them"
