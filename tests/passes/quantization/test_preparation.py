"""The form that grids are placed in, of networks whose weights are numbers."""

import pytest
import torch
from torch import nn

from prunec.passes import capture
from prunec.passes.errors import NumericMismatchError
from prunec.passes.quantization.preparation import prepared


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("place", "told"), [("2.weight", "2.weight of layer 2"), ("2.bias", "2.bias"), ("1.weight", "0.weight of layer 0")]
)
def test_weights_that_are_not_finite_are_refused_by_name(bad: float, place: str, told: str) -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    with torch.no_grad():
        network.get_parameter(place).flatten()[0] = bad
    program = capture(network.eval(), (torch.randn(2, 2, 4, 4),)).inference()
    with pytest.raises(NumericMismatchError, match=f"{told}.* not finite"):
        prepared(program, equalized=False)
