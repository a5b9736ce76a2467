"""The networks of the recipes beside this file; torchvision's, which the extra `vision` installs."""

from torch import nn
from torchvision.models import resnet34, resnet50  # type: ignore[import-untyped]


def resnet50_imagenet() -> nn.Module:
    """ResNet-50 for 1,000 classes; 4.09e9 multiply-accumulates."""
    module: nn.Module = resnet50()
    return module


def resnet34_imagenet100() -> nn.Module:
    """ResNet-34 for the 100 classes of a subset of ImageNet; 3.66e9 multiply-accumulates."""
    module: nn.Module = resnet34(num_classes=100)
    return module
