"""Factors on units: closed, they leave what cutting the units leaves."""

import pytest
import torch
from torch import nn

from prunec.compiler.recovery.regimes.unit_factors import UnitFactors
from prunec.passes import PruneFilters, capture
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.filter_pruning import kept_by
from prunec.passes.tensors import with_values

HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
NETWORKS = {
    "depthwise": nn.Sequential(
        nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
        nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU6(), *HEAD,
    ),
    "biases": nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), *HEAD),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_closed_factors_are_cut_units(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name].double()
    for parameter in network.parameters():
        parameter.copy_(torch.randn_like(parameter))
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    program = capture(network.eval(), (x,)).double()
    scores = torch.rand(6, dtype=torch.float64)
    options = PruneFilters(ratio=0.5, criterion="learned")
    groups = kept_by(program, options, evidence := Evidence({}, decisions={"units": {"0": scores}}))[0].groups
    (kept,) = [units for _, units in kept_by(program, options, evidence)[1]]
    factors = UnitFactors.on(program, groups)
    closed = torch.zeros(6)
    closed[torch.tensor(kept)] = 1
    factors.values["0"].copy_(closed)
    masked = program.with_tensors(with_values(program.tensors(), factors.merged(program.tensors())))
    pruned = options.run(program, evidence).program
    assert float((masked(x) - pruned(x)).abs().max()) < 1e-12
