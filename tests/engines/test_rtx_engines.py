"""Real TensorRT-RTX engines, built on the CPU: four networks, two capabilities, three precisions, dynamic batch."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Project
from prunec.passes import Program, Sparsify, capture
from prunec.passes.errors import UnsupportedModelError, UsageError
from prunec.passes.patterns.eligibility import eligibility
from prunec.passes.quantization.made_up_ranges import quantized_untrained
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


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The float32 file of each network, written once."""

    @cache
    def written(name: str) -> Path:
        path = tmp_path_factory.mktemp(name) / "model.onnx"
        export_onnx(program(name), path)
        return path

    return written


@pytest.mark.parametrize(("name", "device", "precision"), CASES)
def test_engine(exported: Callable[[str], Path], name: str, device: str, precision: str, tmp_path: Path) -> None:
    typed = exported(name) if precision == "fp32" else tmp_path / f"model.{precision}.onnx"
    if precision != "fp32":
        {"fp16": to_fp16, "bf16": to_bf16}[precision](exported(name), typed)
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


def of_fp8(network: Program, folder: Path) -> Path:
    """The file that an engine in FP8 is built from, with ranges that are made up."""
    export_onnx(quantized_untrained(network, "float8"), folder / "model.onnx")
    to_fp16(folder / "model.onnx", folder / "model.fp8.onnx")
    return folder / "model.fp8.onnx"


def residual() -> Program:
    """Convolutions around a sum, and a product with a weight, of widths that kernels of FP8 take."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
            self.head = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.stem(x))
            return self.head(torch.relu(y + self.body(y)).mean((2, 3)))

    return Sparsify().run(capture(Network().eval(), (torch.randn(2, 3, 8, 8),))).program.eval()


@pytest.mark.parametrize(
    "name", ["residual", *(pytest.param(each, marks=pytest.mark.long) for each in ("example", "mobilenet_v2", "vit"))]
)
def test_an_engine_in_fp8(name: str, tmp_path: Path) -> None:
    path = of_fp8(residual() if name == "residual" else program(name), tmp_path)
    options = EngineOptions(ranges={"batch": SizeRange(1, 4, 8)})
    engine = build_engine(Target.parse("l4-2:4-fp8"), path, tmp_path, options)
    assert engine.path.stat().st_size > 0
    assert not engine.run_on_device


def test_fp8_is_refused_for_devices_without_it(tmp_path: Path) -> None:
    path = of_fp8(residual(), tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"sm80.*fp8_e4m3"):
        build_engine(Target.parse("a100"), path, tmp_path)
    with pytest.raises(UsageError, match="has no fp8"):
        build_engine(Target.parse("l4-fp8"), path, tmp_path, EngineOptions(also_for=("t4",)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the engine may run here")
def test_an_engine_that_cannot_be_loaded_is_refused_with_the_library_s_reason(tmp_path: Path) -> None:
    """In a process of its own: Polygraphy takes one of the two libraries for good."""
    script = f"""
from pathlib import Path
from prunec.runtime.engines import TensorRTSession
from prunec.runtime.engines.tensorrt_build import build_plan
from prunec.runtime.onnx_export import export_onnx
from tests.runtime.nets import small
folder = Path({str(tmp_path)!r})
export_onnx(small(), folder / "m.onnx")
built = build_plan("tensorrt_rtx", folder / "m.onnx", sparse=False, ranges={{}}, compute_capabilities=[(8, 9)])
(folder / "engine.rtx").write_bytes(built.plan)
with TensorRTSession(folder / "engine.rtx", "tensorrt_rtx"):
    pass
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "on a machine without a GPU: IRuntime::deserializeCudaEngine" in done.stderr
    assert "CUDA driver version is insufficient" in done.stderr
