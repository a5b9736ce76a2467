"""Masks of transposed convolutions by what their channels read."""

import pytest
import torch
from torch import nn

from prunec.calibration import collect_evidence
from prunec.passes import Sparsify, capture


@pytest.mark.parametrize(("inputs", "filters"), [(8, 4), (4, 8), (6, 6)])
def test_magnitude_times_activation_reads_the_first_axis_of_a_transposed_convolution(inputs: int, filters: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, inputs, 1), nn.ConvTranspose2d(inputs, filters, 2, stride=2)).eval()
    x = torch.randn(4, 1, 3, 3)
    program = capture(network, (x,))
    options = Sparsify(pattern="elements", ratio=0.5, criterion="magnitude-activation", ignore=("0",))
    evidence = collect_evidence(program, [options.criterion], [(x, torch.zeros(4))])
    masked = options.run(program, evidence).program
    with torch.no_grad():
        read = network[0](x).abs().mean((0, 2, 3))
        scores = network[1].weight.abs() * read[:, None, None, None]
    kept = scores.flatten().argsort(descending=True)[: scores.numel() // 2].sort().values
    assert masked.masks["1.weight"].flatten().nonzero().flatten().tolist() == kept.tolist()
