"""What ONNX Runtime's own profiler wrote: the milliseconds of every kernel in every inference. Imports no torch."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SUFFIX = "_kernel_time"
_END_OF_RUN = "model_run"


@dataclass(frozen=True, eq=False)
class KernelTimes:
    """Times of the kernels that ONNX Runtime really runs, after its own fusions, in the order of execution.

    Attributes:
        names: Names of their nodes.
        operators: Types of their nodes.
        ms: Milliseconds, float64 (runs, kernels); those within loops are summed, and 0 where a branch isn't taken.
    """

    names: tuple[str, ...]
    operators: tuple[str, ...]
    ms: NDArray[np.float64]


def read_kernel_times(path: Path) -> KernelTimes:
    """The times in a file that a session's profiler wrote, of all its inferences in their order."""
    columns: dict[tuple[str, str], int] = {}
    runs: list[dict[int, float]] = []
    current: dict[int, float] = {}
    for event in json.loads(path.read_text()):
        name = event["name"]
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            key = name.removesuffix(_SUFFIX), event["args"]["op_name"]
            column = columns.setdefault(key, len(columns))
            current[column] = current.get(column, 0.0) + event["dur"] / 1000
        elif name == _END_OF_RUN:
            runs.append(current)
            current = {}
    ms = np.zeros((len(runs), len(columns)))
    for row, run in enumerate(runs):
        ms[row, list(run)] = list(run.values())
    return KernelTimes(tuple(name for name, _ in columns), tuple(operator for _, operator in columns), ms)
