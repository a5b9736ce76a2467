"""VGG16 with batch norm: the ImageNet form and the CIFAR form of Li et al. (2017), with two linear layers."""

from torch import Tensor, nn

#: Output channels of the 13 convolutions; 0 is a 2x2 max pooling.
_LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def _features() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in _LAYOUT:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers)


class Vgg16(nn.Module):
    """For ImageNet: a 512x7x7 map is flattened into three linear layers.

    Args:
        classes: size of the output.
        hidden: width of the two hidden linear layers.
    """

    def __init__(self, classes: int = 1000, hidden: int = 4096) -> None:
        super().__init__()
        self.features = _features()
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, hidden), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


class Vgg16Cifar(nn.Module):
    """For 32x32 images: linear 512 -> 512 with batch norm, then the classifier."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = _features()
        self.classifier = nn.Sequential(
            nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).view(-1, 512))
        return logits


def vgg16_bn(classes: int = 1000, hidden: int = 4096) -> Vgg16:
    return Vgg16(classes, hidden)


def vgg16_cifar(classes: int = 10) -> Vgg16Cifar:
    return Vgg16Cifar(classes)
