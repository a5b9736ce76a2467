"""A MobileNetV2 and a small vision transformer for images (3, 32, 32) of 10 classes."""

from collections.abc import Callable

from torch import nn

from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.vit import ViT

SMALL: dict[str, Callable[[], nn.Module]] = {
    "MobileNetV2": lambda: mobilenet_v2(10), "ViT": lambda: ViT(32, patch=8, width=32, depth=2, heads=2, classes=10),
}  # fmt: skip
