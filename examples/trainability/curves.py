"""The learning curves of all runs as one HTML plot that loads nothing from anywhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

if TYPE_CHECKING:
    from run import Outcome  # type: ignore[import-not-found]


def write_curves(outcomes: "Sequence[Outcome]", path: Path) -> None:
    """Mean test accuracy over the seeds, by epoch of each run's own training."""
    figure = go.Figure()
    for arm in dict.fromkeys(o.arm for o in outcomes):
        curve = 100 * np.mean([o.curve for o in outcomes if o.arm == arm], axis=0)
        figure.add_scatter(x=list(range(1, len(curve) + 1)), y=curve.tolist(), name=arm, mode="lines+markers")
    figure.update_layout(
        title="Fashion-MNIST, 90 % of the filters pruned: test accuracy while retraining",
        xaxis_title="epoch of the retraining",
        yaxis_title="top-1, %",
    )
    path.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
