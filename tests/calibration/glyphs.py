"""Coloured glyphs, six classes that are different seen otherwise, and a small network that knows them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.calibration.data import Data
from prunec.calibration.samples import ArraySamples
from prunec.calibration.splits import Preprocessing, SampleSplit

_GLYPHS = ("11111 10000 11110 10000 10000", "11110 10001 11110 10100 10010", "11000 01000 01011 01001 01111")
_COLOURS = ((1.0, 0.45, 0.1), (0.1, 0.5, 1.0))
CLASSES = len(_GLYPHS) * len(_COLOURS)
MEAN, STD = (0.30, 0.32, 0.36), (0.17, 0.16, 0.2)


def glyphs(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, 12, 12) and labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.normal((0.28, 0.31, 0.36), 0.12, (count, 12, 12, 3)).transpose(0, 3, 1, 2)
    for image, label in zip(images, labels, strict=True):
        glyph = np.array([[float(dot) for dot in row] for row in _GLYPHS[label % 3].split()])
        y, x = rng.integers(0, 8, 2)
        image[:, y : y + 5, x : x + 5] += np.array(_COLOURS[label // 3])[:, None, None] * glyph * rng.uniform(0.35, 0.7)
    return (255 * images.clip(0, 1)).astype(np.uint8), labels


def split_of(images: NDArray[Any], labels: NDArray[Any], given: Preprocessing) -> SampleSplit:
    return SampleSplit(
        ArraySamples(torch.from_numpy(images), torch.from_numpy(labels)), torch.arange(len(labels)), given
    )


def preprocessing(mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Preprocessing:
    return Preprocessing(torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1))


def glyph_data(given: Preprocessing | None = None) -> Data:
    given = given or preprocessing()
    train, validation, test = (split_of(*glyphs(count, seed), given) for count, seed in ((1500, 1), (100, 2), (500, 3)))
    return Data(train, validation, test, "0", "0", CLASSES, (3, 12, 12), test_repeats_train=0.0, train_repeats=0.0)


def changed(data: Data, images: Any = None, labels: Any = None, given: Preprocessing | None = None) -> Data:
    """The data with something done to the images and labels of each part, as they are stored."""

    def of(split: SampleSplit) -> SampleSplit:
        inputs, numbers = split.samples.inputs, split.samples.labels  # type: ignore[attr-defined]
        samples = ArraySamples(images(inputs) if images else inputs, labels(numbers) if labels else numbers)
        return replace(split, samples=samples, preprocessing=given or split.preprocessing)

    return replace(data, **{name: of(getattr(data, name)) for name in ("train", "validation", "test")})


def network(norm: bool = True) -> nn.Sequential:
    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        norms = [nn.BatchNorm2d(outputs)] if norm else []
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not norm), *norms, nn.ReLU()]

    layers = [*block(3, 16, 1), *block(16, 32, 2), *block(32, 32, 2)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


def trained(data: Data, norm: bool = True, epochs: int = 4, seed: int = 0) -> nn.Sequential:
    """A network in eval mode, trained on the training data."""
    torch.manual_seed(seed)
    net = network(norm)
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3)
    steps = epochs * (len(data.train) // 50)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for epoch in range(epochs):
        for inputs, labels in data.train.batches(50, epoch=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs), labels).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def accuracy(net: nn.Module, data: Data) -> float:
    with torch.no_grad():
        right: list[Tensor] = [net(inputs).argmax(1) == labels for inputs, labels in data.test.batches(500)]
    return float(torch.cat(right).float().mean())
