"""A multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Mlp(nn.Module):
    """Flattens its input; hidden layers with optional batch norm, then the classifier.

    Args:
        widths: input features, hidden widths, classes.
        norm: whether hidden layers have batch norm.
    """

    def __init__(self, widths: Sequence[int] = (784, 300, 100, 10), norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths[:-1]):
            layers.append(nn.Linear(inputs, outputs))
            if norm:
                layers.append(nn.BatchNorm1d(outputs))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-2], widths[-1]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def mlp(widths: Sequence[int] = (784, 300, 100, 10), norm: bool = False) -> Mlp:
    return Mlp(widths, norm)
