"""A schedule as a self-contained HTML plot."""

from pathlib import Path

import plotly.graph_objects as go

from prunec.compiler.recovery.schedules import Schedule
from prunec.passes.errors import UsageError

_POINTS = 1000


def write_plot(schedule: Schedule, path: Path) -> None:
    """Draw learning rate over epochs into an HTML file that loads nothing from anywhere.

    Args:
        schedule: A schedule of known length.
        path: The file, with the suffix .html.

    Raises:
        UsageError: The suffix is another one, or the file can't be written.
    """
    if path.suffix != ".html":
        raise UsageError(f"--plot writes .html files, and {path} is none.")
    assert schedule.epochs is not None
    times = [schedule.epochs * point / _POINTS for point in range(_POINTS)]
    figure = go.Figure(go.Scatter(x=times, y=[schedule.learning_rate(time) for time in times], mode="lines"))
    figure.update_layout(title=str(schedule), xaxis_title="epoch", yaxis_title="learning rate", yaxis_type="log")
    try:
        path.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror or error}.") from error
