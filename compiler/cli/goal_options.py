"""Options of the goals that widths are chosen for, shared by the commands that prune."""

from functools import partial
from typing import Annotated

import typer

_goal = partial(typer.Option, rich_help_panel="Goals in place of a ratio; of several all are met")

LatencySpeedup = Annotated[
    float | None, _goal("--latency-speedup", help="Dense over pruned milliseconds on the target, at least.")
]
LatencyMs = Annotated[float | None, _goal("--latency-ms", help="Milliseconds of one inference on the target, at most.")]
Speedup = Annotated[float | None, _goal("--speedup", help="Dense over pruned MACs, at least.")]
Parameters = Annotated[int | None, _goal("--parameters", help="Number of trained scalars, at most.")]
SizeMb = Annotated[float | None, _goal("--size-mb", help="Megabytes of the trained scalars in float32, at most.")]
