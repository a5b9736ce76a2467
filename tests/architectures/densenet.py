"""DenseNet-BC (Huang et al. 2017): a layer reads all earlier outputs of its block, concatenated."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """norm, relu, 1x1, norm, relu, 3x3; adds ``growth`` channels."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        y = self.conv1(F.relu(self.norm1(torch.cat(maps, 1))))
        new: Tensor = self.conv2(F.relu(self.norm2(y)))
        return new


class DenseBlock(nn.ModuleList):
    """Layers of one resolution."""

    def __init__(self, layers: int, in_channels: int, growth: int) -> None:
        super().__init__(DenseLayer(in_channels + i * growth, growth) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


def _transition(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.AvgPool2d(2),
    )


class DenseNet(nn.Module):
    """Stem, dense blocks with halving transitions, classifier."""

    def __init__(self, layers: Sequence[int], growth: int = 32, classes: int = 1000) -> None:
        super().__init__()
        channels = 2 * growth
        features: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        for index, count in enumerate(layers):
            features.append(DenseBlock(count, channels, growth))
            channels += count * growth
            if index + 1 < len(layers):
                features.append(_transition(channels, channels // 2))
                channels //= 2
        self.features = nn.Sequential(*features, nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(F.relu(self.features(x), inplace=True), 1)
        logits: Tensor = self.classifier(torch.flatten(y, 1))
        return logits


def densenet121(classes: int = 1000) -> DenseNet:
    return DenseNet((6, 12, 24, 16), classes=classes)
