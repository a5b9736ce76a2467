"""What is read of ONNX Runtime's profiler."""

import json
from pathlib import Path

import numpy as np

from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.onnx_events import read_kernel_times
from prunec.runtime.onnx_export import export_onnx
from tests.fuzz_readers.readers import program


def _kernel(name: str, operator: str, microseconds: int) -> dict[str, object]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": {"op_name": operator}}


def test_kernels_by_run(tmp_path: Path) -> None:
    end = {"cat": "Session", "name": "model_run", "dur": 9}
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 5},
        *(_kernel("a", "Conv", 1000), _kernel("loop", "Add", 10), _kernel("loop", "Add", 20), end),
        *(_kernel("a", "Conv", 3000), _kernel("late", "Relu", 500), end),
    ]
    path = tmp_path / "events.json"
    path.write_text(json.dumps(events))
    times = read_kernel_times(path)
    assert times.names == ("a", "loop", "late") and times.operators == ("Conv", "Add", "Relu")
    np.testing.assert_allclose(times.ms, [[1, 0.03, 0], [3, 0, 0.5]])


def test_a_real_profile(tmp_path: Path) -> None:
    export_onnx(program(), tmp_path / "model.onnx")
    session = OnnxRuntimeSession(tmp_path / "model.onnx", profile_prefix=str(tmp_path / "profile"))
    for _ in range(4):
        session(np.zeros((1, 1, 8, 8), np.float32))
    times = read_kernel_times(Path(session.end_profiling()))
    assert times.ms.shape == (4, len(times.names)) and "Gemm" in times.operators
    assert (times.ms >= 0).all() and times.ms.sum() > 0
