"""A trained toy network of which one layer bears no INT8: one channel that it reads is far larger than all others."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.passes import Program, capture

#: The layer, the one before it, and the others.
FRAGILE, BEFORE, OTHERS = "4", "2", ("0", "2", "8")


def corners(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of 8x8 whose class is the bright quadrant."""
    labels, images = rng.integers(0, 4, count), rng.integers(0, 150, (count, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 40
    return images.astype(np.uint8), labels


def toy_data(folder: Path) -> Data:
    rng, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 500), ("test", 100)):
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = corners(rng, count)
    np.savez(folder / "data.npz", **arrays)
    config = DataConfig(train="npz:data.npz", test="npz:data.npz", validation_fraction=0.4)
    return load_data(config, folder, seed=0)


def trained(data: Data) -> nn.Sequential:
    """A network that tells the quadrants apart, its layers alike."""
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(12):
        for inputs, labels in data.train.batches(30, epoch=epoch):
            assert isinstance(inputs, Tensor)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    return network.eval()


@torch.no_grad()
def made_fragile(network: nn.Sequential, factor: float = 3000.0) -> Program:
    """The same function, in which one channel of what `FRAGILE` reads is larger by a factor."""
    before, layer = network[int(BEFORE)], network[int(FRAGILE)]
    assert isinstance(before, nn.Conv2d)
    assert isinstance(layer, nn.Conv2d)
    assert before.bias is not None
    before.weight[0] *= factor
    before.bias[0] *= factor
    layer.weight[:, 0] /= factor
    return capture(network, (torch.randn(2, 1, 8, 8),))
