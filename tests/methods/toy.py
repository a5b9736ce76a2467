"""A toy network with a residual stream."""

import torch
from torch import Tensor, nn

from prunec.passes import Program, capture


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def toy() -> Program:
    """A network of two blocks on images of one channel, 8 x 8, and four classes; its norms have been in training."""
    torch.manual_seed(0)
    stem = (nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
    network = nn.Sequential(
        *stem, Block(12, 16), Block(12, 20), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 4)
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return capture(network.eval(), (torch.randn(2, 1, 8, 8),))
