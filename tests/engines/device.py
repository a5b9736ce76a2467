"""A machine with an H100 and TensorRT, faked: what it computes is ONNX Runtime's, what it times is made up."""

import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType

import pytest
import torch

from prunec.compiler import verify_bundle
from prunec.runtime.engines import building, measuring, tensorrt_run
from prunec.runtime.gpu_state import GpuState
from tests.engines.fake_tensorrt import FakeRunner, fake_tensorrt

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
    monkeypatch.setattr(building, "find_spec", lambda name: object())
    for module in (building, verify_bundle):
        monkeypatch.setattr(module, "has_device", lambda target: target.device == "h100")
    for module in (building, tensorrt_run):
        monkeypatch.setattr(module, "gpu_name", lambda: GPU)
    monkeypatch.setattr(tensorrt_run, "to_gpu", torch.from_numpy)
    monkeypatch.setattr(tensorrt_run, "open_runner", partial(FakeRunner, fused=fused))
    monkeypatch.setattr(measuring, "gpu_state", lambda: STATE)
    return trt
