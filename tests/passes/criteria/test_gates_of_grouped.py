"""Gates of units that a grouped convolution passes on."""

import pytest
import torch
from torch import Tensor, nn

from prunec.calibration import collect_evidence
from prunec.passes import PruneFilters, capture
from prunec.passes.coupling import analyse
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.criteria.protocol import ScoresUnits


class Separable(nn.Module):
    """A pointwise, a depthwise and a pointwise convolution without biases: linear in the units between."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 6, 1, bias=False)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.project = nn.Conv2d(6, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.depthwise(self.expand(x))).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["taylor", "skeletonization"])
def test_a_unit_that_a_depthwise_convolution_passes_on_counts_once(name: str) -> None:
    torch.manual_seed(0)
    network = Separable().double().eval()
    x, labels = torch.randn(4, 3, 5, 5, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    program = capture(network, (x,)).double()

    def loss(outputs: Tensor, _: Tensor) -> Tensor:
        return outputs.sum()  # linear, so that a first-order change is the change

    (group,) = analyse(program).groups
    criterion = resolve(name)
    assert isinstance(criterion, ScoresUnits)
    evidence = collect_evidence(program, [criterion], [(x, labels)], loss, policy=PruneFilters(ratio=0.5).policy)
    scores = criterion.score(group, evidence)
    whole = float(loss(network(x), labels).detach())
    for unit in range(group.count):
        without = Separable().double().eval()
        without.load_state_dict(network.state_dict())
        with torch.no_grad():
            without.expand.weight[unit] = 0
        change = float(loss(without(x), labels).detach()) - whole
        expected = change**2 if name == "taylor" else change
        assert scores[unit] == pytest.approx(expected, rel=1e-6)
