"""A tiny network for grey images of 8x8 pixels: coupled channels, and a size that stands in its code."""

from torch import Tensor, nn


class Tiny(nn.Module):
    """Two convolutions and one around which the first's output is added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.outer = nn.Conv2d(16, 16, 1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(64, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 1, 8, 8), logits (N, 4)."""
        stem = self.stem(images)
        pooled: Tensor = self.pool(stem + self.outer(self.inner(stem)))
        logits: Tensor = self.head(pooled.view(-1, 64))
        return logits
