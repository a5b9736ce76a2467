"""Residual networks (He et al. 2016): the ImageNet form (stride on the 3x3) and the CIFAR form (option A)."""

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; the last widens by 4."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


Block = type[BasicBlock] | type[Bottleneck]
#: (input channels, output channels, stride) -> what a shortcut does where the shape changes
Shortcut = Callable[[int, int, int], nn.Module]


class ZeroPadShortcut(nn.Module):
    """Option A, free of parameters: take every second position, append zero channels on both sides."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        missing = out_channels - in_channels
        self.stride, self.before, self.after = stride, missing // 2, missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A strided 1x1 convolution with batch norm (option B)."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """Stem, stages ``layer1``, ``layer2``, ..., global average pooling and a linear classifier.

    Args:
        block: kind of block.
        depths: blocks per stage.
        widths: inner width of each stage's blocks.
        stem: what comes before the first stage, by its names in this module.
        shortcut: makes the shortcut where the shape changes.
        classes: size of the output.
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        widths: Sequence[int],
        stem: dict[str, nn.Module],
        shortcut: Shortcut,
        classes: int,
    ) -> None:
        super().__init__()
        self.stem_names, self.stage_names = tuple(stem), tuple(f"layer{i + 1}" for i in range(len(depths)))
        for name, module in stem.items():
            self.add_module(name, module)
        channels = widths[0]
        for index, (name, depth, width) in enumerate(zip(self.stage_names, depths, widths, strict=True)):
            blocks: list[nn.Module] = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                wide = width * block.expansion
                changes = stride != 1 or channels != wide
                blocks.append(block(channels, width, stride, shortcut(channels, wide, stride) if changes else None))
                channels = wide
            self.add_module(name, nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.stem_names + self.stage_names:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def imagenet_resnet(
    block: Block, depths: Sequence[int], *, classes: int = 1000, in_channels: int = 3, width: int = 64
) -> ResNet:
    """The ImageNet form: 7x7 stem of stride 2, max pooling, four stages whose widths double."""
    stem = {
        "conv1": nn.Conv2d(in_channels, width, 7, 2, 3, bias=False),
        "bn1": nn.BatchNorm2d(width),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    return ResNet(block, depths, [width << i for i in range(4)], stem, projection, classes)


def cifar_resnet(depth: int, *, block: Block = BasicBlock, classes: int = 10, width: int = 16) -> ResNet:
    """The CIFAR form for 32x32 images: 3x3 stem, three stages, zero-padded shortcuts.

    Args:
        depth: number of weighted layers, shortcuts aside.
        block: kind of block.
        classes: size of the output.
        width: Number of channels of the stem and the first stage.
    """
    per_block = 2 if block is BasicBlock else 3
    if (depth - 2) % (3 * per_block):
        raise ValueError(f"depth {depth} is not 2 plus a multiple of {3 * per_block}")
    blocks = (depth - 2) // (3 * per_block)
    stem = {"conv1": conv3x3(3, width), "bn1": nn.BatchNorm2d(width), "relu": nn.ReLU(inplace=True)}
    return ResNet(block, [blocks] * 3, [width << i for i in range(3)], stem, ZeroPadShortcut, classes)


resnet18 = partial(imagenet_resnet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(imagenet_resnet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(imagenet_resnet, Bottleneck, (3, 4, 6, 3))
resnet101 = partial(imagenet_resnet, Bottleneck, (3, 4, 23, 3))
resnet152 = partial(imagenet_resnet, Bottleneck, (3, 8, 36, 3))
resnet56 = partial(cifar_resnet, 56)
resnet110 = partial(cifar_resnet, 110)
