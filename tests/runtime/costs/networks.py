"""The work of known networks, written down layer by layer from their papers' tables; parameters are left out."""

import math

import numpy as np

from prunec.passes.costs.workload import COUNTS, Operation, Work


class Layers:
    """Layers with what they do for one sample, in the order of execution."""

    def __init__(self) -> None:
        self.operations, self.counts = [Operation("")], [dict.fromkeys(COUNTS, 0.0)]

    def conv(
        self, size: int, inputs: int, filters: int, kernel: int = 1, stride: int = 1, *, grouped: bool = False
    ) -> int:
        """A convolution over a square picture, depthwise where grouped; the size of what it writes."""
        written = math.ceil(size / stride)
        weights = filters * (1 if grouped else inputs) * kernel**2
        self._add("conv2d", (kernel, kernel), (inputs, filters), weights, (size**2, written**2), grouped)
        return written

    def linear(self, inputs: int, outputs: int, rows: int = 1) -> None:
        """A linear layer over rows."""
        self._add("linear", (), (inputs, outputs), inputs * outputs, (rows, rows))

    def _add(
        self,
        operator: str,
        kernel: tuple[int, ...],
        channels: tuple[int, int],
        weights: int,
        positions: tuple[int, int],
        grouped: bool = False,
    ) -> None:
        name = str(len(self.operations))
        self.operations.append(Operation(name, operator, f"{name}.weight", kernel, grouped))
        (inputs, filters), (read, written) = channels, positions
        counts = (inputs, filters, weights * written, weights, inputs * read, filters * written, 0, 0, 0, 0)
        self.counts.append(dict(zip(COUNTS, map(float, counts), strict=True)))

    def joins(self) -> None:
        """What the last layer writes is added to a shortcut."""
        self.counts[-1]["joined"] = self.counts[-1]["writes"]

    def follows(self, operator: str, moves: int, macs: int = 0) -> None:
        """A kernel of its own behind the last layer."""
        last = self.operations[-1]
        self.operations[-1] = Operation(
            last.name, last.operator, last.weight, last.kernel, last.is_grouped, (*last.tail, operator)
        )
        self.counts[-1]["tail_moves"] += moves
        self.counts[-1]["tail_macs"] += macs

    def work(self) -> Work:
        """The work of the layers."""
        return Work(tuple(self.operations), *(np.array([row[count] for row in self.counts]) for count in COUNTS))


def resnet(depths: tuple[int, ...]) -> Layers:
    """ResNet v1.5 with bottlenecks (He et al. 2016, table 1; stride on the 3x3)."""
    layers = Layers()
    size, channels = layers.conv(224, 3, 64, 7, 2), 64
    layers.follows("max_pool2d", 64 * (size**2 + (size // 2) ** 2))
    size //= 2
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            layers.conv(size, channels, width)
            inner = layers.conv(size, width, width, 3, stride)
            layers.conv(inner, width, 4 * width)
            if not block:
                layers.conv(size, channels, 4 * width, 1, stride)
            layers.joins()
            size, channels = inner, 4 * width
    layers.follows("adaptive_avg_pool2d", channels * (size**2 + 1))
    layers.linear(channels, 1000)
    return layers


def mobilenet_v2() -> Layers:
    """MobileNetV2 (Sandler et al. 2018, table 2)."""
    layers = Layers()
    size, channels = layers.conv(224, 3, 32, 3, 2), 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, width, depth, first_stride in table:
        for block in range(depth):
            inner, stride = expansion * channels, first_stride if not block else 1
            if expansion > 1:
                layers.conv(size, channels, inner)
            size = layers.conv(size, inner, inner, 3, stride, grouped=True)
            layers.conv(size, inner, width)
            if block:
                layers.joins()
            channels = width
    layers.conv(size, channels, 1280)
    layers.follows("mean", 1280 * (size**2 + 1))
    layers.linear(1280, 1000)
    return layers


def transformer(width: int, tokens: int, depth: int) -> Layers:
    """An encoder of blocks of attention and perceptron (Vaswani et al. 2017), as in BERT, without embeddings."""
    layers, elements = Layers(), width * tokens
    for _ in range(depth):
        layers.linear(width, 3 * width, tokens)
        layers.follows("scaled_dot_product_attention", 4 * elements, 2 * tokens * elements)
        layers.linear(width, width, tokens)
        layers.joins()
        layers.follows("layer_norm", 2 * elements)
        layers.linear(width, 4 * width, tokens)
        layers.linear(4 * width, width, tokens)
        layers.joins()
        layers.follows("layer_norm", 2 * elements)
    return layers
