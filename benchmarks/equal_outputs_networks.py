"""Small networks of several kinds, and pictures to train them on, for `benchmarks.equal_outputs`."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.c2, self.b2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.b2(self.c2(self.b1(self.c1(x)).relu()))).relu()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.cells = nn.Sequential(Block(32), Block(32))
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.norm(self.stem(x)).relu(), 2)
        return self.fc(self.cells(x).mean((2, 3)))


class StandardisedConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 48, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(48), nn.LayerNorm(48)
        self.qkv, self.project = nn.Linear(48, 144), nn.Linear(48, 48)
        self.up, self.down, self.fc = nn.Linear(48, 96), nn.Linear(96, 48), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.project(attended)
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.fc(x.mean(1))


def residual() -> nn.Module:
    return Residual()


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32),
        nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 4),
    )  # fmt: skip


def standardised() -> nn.Module:
    return nn.Sequential(
        StandardisedConv(3, 16, 3), nn.ReLU(), StandardisedConv(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def transformer() -> nn.Module:
    return Transformer()


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 3, 16, 16), uint8, whose class is the bright quadrant."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, count)
    pictures = rng.integers(0, 140, (count, 3, 16, 16))
    for picture, label in zip(pictures, labels, strict=True):
        picture[:, 8 * (label // 2) :][:, :8, 8 * (label % 2) :][..., :8] += 60
    return pictures.astype(np.uint8), labels


def trained(network: nn.Module) -> nn.Module:
    """A little, so that accuracies mean something; the same on every call."""
    pictures, labels = images(400)
    inputs, targets = (torch.from_numpy(pictures).float() / 255 - 0.4) / 0.2, torch.from_numpy(labels)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9)
    for _ in range(3):
        for batch in torch.randperm(400, generator=torch.Generator().manual_seed(0)).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return network.eval()
