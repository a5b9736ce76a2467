"""A machine with an H100 and TensorRT, faked: what it computes is ONNX Runtime's, what it times is made up."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from prunec.runtime import gpu_state
from prunec.runtime.engines import building, choose_engine, nvidia, tensorrt, tensorrt_run
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo
from prunec.runtime.gpu_state import GpuState
from prunec.runtime.target import Target
from tests.engines.fake_tensorrt import FakeRunner, fake_tensorrt
from tests.here import native_code_here

GPU = "NVIDIA H100 80GB HBM3"
STATE = GpuState(
    name=GPU,
    driver="550.54.15",
    sm_clock_mhz=1755,
    max_sm_clock_mhz=1980,
    memory_clock_mhz=2619,
    power_w=312.5,
    power_limit_w=700.0,
    temperature_c=46,
    performance_state=0,
    clocks_held_by=("SwPowerCap",),
)


def pretend_device(
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str = "10.13.0.35",
    lines: Sequence[str] = (),
    fused: Sequence[str] = (),
) -> ModuleType:
    """Let prunec see an H100 with TensorRT; gives the fake library, which remembers what was built."""
    trt = fake_tensorrt(version, lines=lines)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(nvidia, "has_device", lambda target: target.device == "h100")
    for module in (nvidia, tensorrt_run):
        monkeypatch.setattr(module, "gpu_name", lambda: GPU)
    monkeypatch.setattr(tensorrt_run, "to_gpu", torch.from_numpy)
    monkeypatch.setattr(tensorrt_run, "open_runner", partial(FakeRunner, fused=fused))
    monkeypatch.setattr(gpu_state, "gpu_state", lambda: STATE)
    native_code_here(monkeypatch)
    return trt


def build_engine(target: Target, onnx_path: Path, folder: Path, options: EngineOptions | None = None) -> EngineInfo:
    """Build with the engine kind that the target gets."""
    options = options or EngineOptions()
    return building.build_engine(choose_engine(target, options), target, onnx_path, folder, options)
