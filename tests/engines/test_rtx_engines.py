"""Real TensorRT-RTX engines, built on the CPU: four networks, two capabilities, three precisions, dynamic batch."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Project
from prunec.passes import Program, Sparsify, capture
from prunec.passes.two_four import eligibility
from prunec.runtime.engines import EngineOptions, SizeRange
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_bf16, to_fp16
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import resnet50
from tests.architectures.vit import vit_tiny
from tests.engines.device import build_engine

pytest.importorskip("tensorrt_rtx")

EXAMPLE = Path("examples/fashion_mnist/model.pt")
NETWORKS: dict[str, Callable[[], nn.Module]] = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2, "vit": vit_tiny}
DEVICES = {"a100": "sm80", "l4": "sm89"}
#: Two networks, of which one sparse, in every test run; all of them in the long one.
QUICK = (("example", "a100", "fp16"), ("vit", "l4", "fp32"))
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.long)
    for name in ("example", *NETWORKS)
    for device in DEVICES
    for case in [(name, device, precision) for precision in ("fp16", "fp32", "bf16")]
    if case[2] != "bf16" or device == "a100"
]


@cache
def program(name: str) -> Program:
    """A network masked to 2:4; the example's weights are trained, the others' are drawn."""
    if name == "example":
        dense = Project.find(EXAMPLE).load(EXAMPLE, ModelOptions()).program
    else:
        torch.manual_seed(0)
        dense = capture(redraw_(NETWORKS[name](), seed=0), (torch.randn(2, 3, 224, 224),))
    return Sparsify().run(dense).program.eval()


@pytest.mark.parametrize(("name", "device", "precision"), CASES)
def test_engine(name: str, device: str, precision: str, tmp_path: Path) -> None:
    export_onnx(program(name), tmp_path / "model.onnx")
    typed = tmp_path / f"model.{precision}.onnx"
    if precision == "fp32":
        typed = tmp_path / "model.onnx"
    else:
        {"fp16": to_fp16, "bf16": to_bf16}[precision](tmp_path / "model.onnx", typed)
    valid = {layer.layer for layer in check_sparsity(typed) if layer.valid}
    assert valid == {layer.layer for layer in eligibility(program(name)) if layer.eligible}
    pattern = "dense" if precision == "fp32" else "2:4"
    options = EngineOptions({"batch": SizeRange(1, 4, 16)})
    info = build_engine(Target.parse(f"{device}-{pattern}-{precision}"), typed, tmp_path, options)
    plan = info.path.read_bytes()
    weights = sum(p.numel() for p in program(name).module.parameters()) * (4 if precision == "fp32" else 2)
    assert f"accelerators={{{DEVICES[device]} }}".encode() in plan
    assert len(plan) > 0.9 * weights
    assert {name: str(sizes) for name, sizes in info.ranges.items()} == {"batch": "1:4:16"}
