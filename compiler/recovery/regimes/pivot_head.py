"""Heads that tell classes by values within a network."""

import torch
from torch import Tensor, nn


class PivotHead(nn.Module):
    """A batch norm by the statistics of each batch, a ReLU, the mean over all places and a linear layer.

    Args:
        channels: Channels of the values.
        classes: Number of classes.
        axis: The axis of the values that the channels are along.
    """

    def __init__(self, channels: int, classes: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.norm = nn.BatchNorm1d(channels, track_running_stats=False)
        self.classify = nn.Linear(channels, classes)

    def forward(self, values: Tensor) -> Tensor:
        """The scores of classes (N, classes) of values (N, ..., channels, ...)."""
        rows = values.movedim(self.axis, 1)
        rows = rows.flatten(2) if rows.ndim > 2 else rows[:, :, None]
        scores: Tensor = self.classify(torch.relu(self.norm(rows)).mean(2))
        return scores
