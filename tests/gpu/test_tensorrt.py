"""What needs an NVIDIA GPU with TensorRT: run by `make gpu-check`. None of it has been run so far."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from prunec.compiler.bundle.bundle_reader import read_bundle
from prunec.compiler.cli.main import run
from prunec.passes.unknown import Unknown, known
from prunec.runtime.devices import DEVICES
from prunec.runtime.engines import EngineOptions, OnnxRuntimeSession, SizeRange, TensorRTSession
from prunec.runtime.engines.nvidia import AHEAD_OF_TIME
from prunec.runtime.gpu_state import gpu_state
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_bf16, to_fp16
from prunec.runtime.target import Target
from tests.engines.device import build_engine
from tests.gpu.device import device_here
from tests.runtime.nets import small

pytestmark = pytest.mark.gpu

EXAMPLE = Path("examples/fashion_mnist/model.pt").resolve()


@pytest.fixture(scope="module")
def device() -> str:
    name = device_here()
    assert name is not None
    return name


@pytest.fixture(scope="module")
def pattern(device: str) -> str:
    return "2:4" if DEVICES[device].sparse_tensor_cores else "dense"


@pytest.fixture(scope="module")
def bundle(device: str, pattern: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example compiled on the device, without recovery."""
    output = tmp_path_factory.mktemp("compiled") / "b"
    target = f"{device}-{pattern}"
    assert run(["compile", str(EXAMPLE), "-t", target, "--epochs", "0", "-o", str(output)]) == 0
    return output


def test_compile_measures_latency_accuracy_and_clocks(bundle: Path) -> None:
    report = read_bundle(bundle).report
    assert not isinstance(report.engine, Unknown)
    assert (report.engine.kind, report.engine.run_on_device) == ("tensorrt", True)
    assert report.engine.gpu == torch.cuda.get_device_name()
    assert not isinstance(report.latency, Unknown)
    assert report.latency.dense_ms.median > 0
    assert report.accuracy.engine == pytest.approx(report.accuracy.exported, abs=0.01)
    assert not isinstance(report.environment.gpu_state, Unknown)


def test_the_truth_table_knows_what_the_builder_chose(bundle: Path, pattern: str) -> None:
    if pattern == "dense":
        pytest.skip("this GPU has no sparse tensor cores")
    layers = [
        layer
        for layer in read_bundle(bundle).report.layers
        if not isinstance(layer.sparsity, Unknown) and layer.sparsity.valid
    ]
    assert layers
    assert all(known(layer.sparsity.found_by_builder) is not None for layer in layers)
    assert any(known(layer.sparsity.found_by_builder) for layer in layers)
    timed = [
        layer
        for layer in layers
        if not isinstance(layer.dense_ms, Unknown) and not isinstance(layer.sparse_ms, Unknown)
    ]
    assert len(timed) > len(layers) / 2


def test_verify_runs_the_engine(bundle: Path) -> None:
    assert run(["verify", str(bundle)]) == 0


def test_build_finishes_a_bundle_with_the_speedup_over_the_source(device: str, pattern: str, tmp_path: Path) -> None:
    output = str(tmp_path / "b")
    target = f"{device}-{pattern}"
    assert run(["compile", str(EXAMPLE), "-t", target, "--epochs", "0", "--no-engine", "-o", output]) == 0
    assert run(["build", output, "--source", str(EXAMPLE), "--timing-cache", str(tmp_path / "timings")]) == 0
    report = read_bundle(Path(output)).report
    assert not isinstance(report.latency, Unknown)
    assert not isinstance(report.accuracy.engine, Unknown)
    assert (tmp_path / "timings").stat().st_size > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_every_precision_and_batch_size_computes_what_the_model_does(
    device: str, precision: str, tmp_path: Path
) -> None:
    if precision not in DEVICES[device].precisions:
        pytest.skip(f"this GPU has no {precision}")
    export_onnx(small(), tmp_path / "m.onnx")
    convert = {"fp16": to_fp16, "bf16": to_bf16}.get(precision)
    if convert is not None:
        convert(tmp_path / "m.onnx", tmp_path / "typed.onnx")
    typed = tmp_path / ("m.onnx" if convert is None else "typed.onnx")
    options = EngineOptions({"batch": SizeRange(1, 4, 16)})
    info = build_engine(Target.parse(f"{device}-dense-{precision}"), typed, tmp_path, options)
    reference = OnnxRuntimeSession(tmp_path / "m.onnx")
    with TensorRTSession(info.path, info.kind) as engine:
        for batch in (1, 3, 16):
            x = np.random.default_rng(batch).standard_normal((batch, 3, 8, 8), dtype=np.float32)
            for actual, expected in zip(engine(x), reference(x), strict=True):
                limit = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1}[precision]
                assert np.abs(actual - expected).max() < limit * np.abs(expected).max()
        assert engine.timer(x)() > 0
        times = engine.layer_times_ms(x, runs=10)
        assert times
        assert set(times) <= {layer.name for layer in engine.layers()}


def test_an_engine_that_does_not_fit_is_refused_with_code_4(bundle: Path, tmp_path: Path) -> None:
    plan = bytearray((bundle / "engine.plan").read_bytes())
    plan[8:40] = bytes(32)
    (tmp_path / "engine.plan").write_bytes(plan)
    with pytest.raises(Exception, match="prunec build BUNDLE") as caught, TensorRTSession(tmp_path / "engine.plan"):
        pass
    assert caught.value.exit_code == 4  # type: ignore[attr-defined]


def test_an_engine_built_ahead_of_time_runs(device: str, tmp_path: Path) -> None:
    """In a process of its own: Polygraphy takes one of the two libraries for good."""
    if DEVICES[device].compute_capability not in AHEAD_OF_TIME:
        pytest.skip("TensorRT-RTX doesn't build for this GPU ahead of time")
    script = f"""
import numpy as np
from pathlib import Path
from prunec.runtime.engines import TensorRTSession
from prunec.runtime.engines.tensorrt_build import build_plan
from prunec.runtime.onnx_export import export_onnx
from tests.runtime.nets import small
folder = Path({str(tmp_path)!r})
export_onnx(small(), folder / "m.onnx")
capability = {DEVICES[device].compute_capability}
built = build_plan("tensorrt_rtx", folder / "m.onnx", sparse=False, ranges={{}}, compute_capabilities=[capability])
(folder / "engine.rtx").write_bytes(built.plan)
with TensorRTSession(folder / "engine.rtx", "tensorrt_rtx") as engine:
    assert np.isfinite(engine(np.zeros((2, 3, 8, 8), np.float32))[0]).all()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_clocks_and_power_are_read() -> None:
    state = gpu_state()
    assert state.name
    assert 0 < state.sm_clock_mhz <= state.max_sm_clock_mhz
    assert 0 < state.temperature_c < 120
