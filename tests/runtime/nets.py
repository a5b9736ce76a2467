"""Small networks that the tests of this folder share."""

import torch
from torch import Tensor, nn

from prunec.passes import Program, Sparsify, capture
from tests.architectures.redraw import redraw_


class Small(nn.Module):
    """Convolutions with batch norm, a depthwise and a grouped one, a product with a constant, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Conv2d(16, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.grouped = nn.Conv2d(32, 16, 1, groups=2)
        self.classifier = nn.Linear(16, 10)
        self.head = nn.Parameter(torch.randn(10, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.grouped(torch.relu(self.depthwise(self.body(self.stem(x)))))
        logits = self.classifier(y.mean((2, 3)))
        return logits, torch.relu(logits) @ self.head


def small(sparse: bool = False) -> Program:
    """The network captured, with re-drawn weights, masked to 2:4 if wanted."""
    torch.manual_seed(0)
    network = redraw_(Small(), seed=0)
    program = capture(network, (torch.randn(2, 3, 8, 8),))
    return Sparsify().run(program).program if sparse else program
