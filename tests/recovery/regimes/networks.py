"""Small networks in which something stands behind a filter that a zero doesn't take away, or that ties zeros."""

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, scaled_dot_product_attention


class Concatenated(nn.Module):
    """Filters are read by a norm, and concatenated with others that are read behind one norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.of_both = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(16)
        self.third, self.head = nn.Conv2d(16, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        both = torch.cat([x, self.second(torch.relu(self.norm(x)))], 1)
        logits: Tensor = self.head(torch.relu(self.third(torch.relu(self.of_both(both)))).mean((2, 3)))
        return logits


class Unscaled(nn.Module):
    """Norms without a scale and a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False)
        self.second, self.scaled = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.third, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.scaled(self.second(torch.relu(self.norm(self.first(x))))))
        logits: Tensor = self.head(torch.relu(self.third(x)).mean((2, 3)))
        return logits


class Gated(nn.Module):
    """A gated linear unit, and squeeze-and-excitation, whose units are cheap: many go for one of another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gated, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.excited = nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.excited(glu(self.norm(self.gated(x)), 1))
        share = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        logits: Tensor = self.head(torch.relu(x * share[:, :, None, None]).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """Queries, keys and values of layers of their own, and classes from what one head of attention makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(12, 8) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        attended = scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        logits: Tensor = self.head(attended.mean(1))
        return logits
