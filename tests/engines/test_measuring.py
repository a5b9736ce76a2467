"""Running and timing on the device, with a fake of Polygraphy's runner: nothing here has run on a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.size_range import SizeRange
from prunec.passes.unknown import Unknown
from prunec.runtime import gpu_state
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.engines.inspector import EngineLayer, node_times
from prunec.runtime.engines.measuring import Measurement, MeasureSettings, compare_with_torch, measure
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo
from prunec.runtime.engines.sparsity_log import BuilderSparsity
from prunec.runtime.engines.tensorrt import TensorRT
from prunec.runtime.engines.tensorrt_run import TensorRTSession
from prunec.runtime.latency import LatencyComparison
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target
from tests.engines.device import GPU, STATE, build_engine, pretend_device
from tests.engines.fake_tensorrt import CHOSE, FOUND, FakeRunner
from tests.runtime.nets import small

H100 = Target.parse("h100-2:4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export_onnx(small(sparse=True), path)
    return path


def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 3, 8, 8), dtype=np.float32)


def measured(model: Path, folder: Path, dense: Path | None, target: Target = H100) -> Measurement:
    engine, settings = build_engine(target, model, folder), MeasureSettings(runs=5)
    return measure(TensorRT(), target, engine, model, [images()], dense_onnx=dense, settings=settings)


def test_an_engine_built_on_the_device_says_how(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [FOUND[10].format("node_a", n=1), CHOSE[10].format("node_a", n=1)]
    trt = pretend_device(monkeypatch, version="11.4.1.5", lines=lines)
    options = EngineOptions({"batch": SizeRange(1, 4, 16)}, timing_cache=tmp_path / "timings")
    info = build_engine(H100, model, tmp_path, options)
    assert (info.kind, info.path.name, info.builder) == ("tensorrt", "engine.plan", "tensorrt 11.4.1.5")
    assert (info.gpu, info.built_ahead_of_time, info.run_on_device) == (GPU, False, True)
    assert isinstance(info.sparsity, BuilderSparsity)
    assert info.sparsity.has_chosen("node_a")
    assert {name: str(sizes) for name, sizes in info.ranges.items()} == {"batch": "1:4:16"}
    assert trt.built[0].config.profiles == [{"x": ((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))}]
    assert (tmp_path / "timings").exists()


def test_an_engine_computes_what_the_model_does(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_device(monkeypatch)
    engine = build_engine(H100, model, tmp_path)
    with TensorRTSession(engine.path) as loaded:
        outputs = loaded(images())
        assert loaded.timer(images())() == 1.0
    for actual, expected in zip(outputs, OnnxRuntimeSession(model)(images()), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("batch", "compared"), [("1:4:16", 2), ("4:4:8", 4), ("1:1:1", 1)])
def test_an_engine_is_compared_with_torch_at_a_batch_that_it_takes(
    batch: str, compared: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_device(monkeypatch)
    seen = []
    infer = FakeRunner.infer

    def recorded(runner: FakeRunner, feed: dict[str, Any], **options: bool) -> dict[str, Any]:
        seen.append(len(feed["x"]))
        return infer(runner, feed, **options)

    monkeypatch.setattr(FakeRunner, "infer", recorded)
    engine = build_engine(H100, model, tmp_path, EngineOptions({"batch": SizeRange.parse(batch)}))
    assert compare_with_torch(TensorRT(), engine, small(sparse=True)) < TensorRT().tolerance("fp32")
    assert seen == [compared]


def test_an_engine_that_computes_something_else_differs_from_torch(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_device(monkeypatch)
    infer = FakeRunner.infer
    monkeypatch.setattr(FakeRunner, "infer", lambda *a, **k: {n: 1.1 * v for n, v in infer(*a, **k).items()})
    error = compare_with_torch(TensorRT(), build_engine(H100, model, tmp_path), small(sparse=True))
    assert error == pytest.approx(0.1, abs=1e-3)


def test_speedup_is_against_the_dense_network_and_layers_against_the_same_without_sparse_kernels(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = pretend_device(monkeypatch)
    export_onnx(small(), tmp_path / "dense.onnx")
    found = measured(model, tmp_path, tmp_path / "dense.onnx")
    assert [(Path(b.network.path).name, "SPARSE_WEIGHTS" in b.config.flags) for b in trt.built] == [
        ("m.onnx", True),
        ("dense.onnx", False),
        ("m.onnx", False),
    ]
    assert isinstance(found.latency, LatencyComparison)
    assert (found.latency.speedup, found.latency.dense.median, found.latency.runs) == (2.0, 2.0, 5)
    nodes = {layer.name for layer in check_sparsity(model)}
    assert found.dense_ms == dict.fromkeys(nodes, 2.0)
    assert found.sparse_ms == dict.fromkeys(nodes, 1.0)
    assert found.sparse_kernel == dict.fromkeys(nodes, True)
    assert found.gpu == STATE


def test_without_a_dense_network_there_is_no_speedup(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_device(monkeypatch)
    found = measured(model, tmp_path, None)
    assert isinstance(found.latency, Unknown)
    assert "--source" in found.latency.reason
    assert found.sparse_ms


def test_a_dense_target_has_one_time_per_layer(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = pretend_device(monkeypatch)
    found = measured(model, tmp_path, None, Target.parse("h100"))
    assert len(trt.built) == 1
    assert not isinstance(found.dense_ms, Unknown)
    assert set(found.dense_ms.values()) == {2.0}
    assert found.sparse_ms == Unknown("the target is dense.")


def test_layers_that_share_an_engine_layer_have_no_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [layer.name for layer in check_sparsity(model)]
    pretend_device(monkeypatch, fused=nodes[:2])
    sparse_ms = measured(model, tmp_path, None).sparse_ms
    assert not isinstance(sparse_ms, Unknown)
    assert set(sparse_ms) == set(nodes[2:])


def test_a_node_in_several_engine_layers_has_their_sum() -> None:
    layers = [
        EngineLayer(n, frozenset(nodes), "", None) for n, nodes in (("p", {"a"}), ("q", {"a", "relu"}), ("r", {"b"}))
    ]
    assert node_times(layers, {"p": 1.0, "q": 0.5, "r": 2.0}, ["a", "b", "gone"]) == {"a": 1.5, "b": 2.0}
    assert node_times(layers, {"p": 1.0, "r": 2.0}, ["a", "b"]) == {"b": 2.0}


def test_clocks_that_cannot_be_read_have_a_reason(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_device(monkeypatch)

    def none() -> None:
        raise MissingDependencyError("GPU clocks need nvidia-ml-py.", hint="pip install nvidia-ml-py")

    monkeypatch.setattr(gpu_state, "gpu_state", none)
    gpu = measured(model, tmp_path, None).gpu
    assert isinstance(gpu, Unknown)
    assert "pip install nvidia-ml-py" in gpu.reason


def test_an_engine_of_another_version_names_both_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_device(monkeypatch)
    (tmp_path / "engine.plan").write_bytes(b"of another version")
    with (
        pytest.raises(MissingDependencyError, match="prunec build BUNDLE") as caught,
        TensorRTSession(tmp_path / "engine.plan", built="tensorrt 10.3.0 on NVIDIA A100"),
    ):
        pass
    assert caught.value.exit_code == 4
    assert "can't be loaded by tensorrt 10.13.0.35 on NVIDIA H100" in str(caught.value)
    assert "not compatible with this version" in str(caught.value), "the library's own reason"
    assert "built by tensorrt 10.3.0 on NVIDIA A100" in str(caught.value)


def test_without_tensorrt_or_a_gpu_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"anything")
    with (
        pytest.raises(MissingDependencyError, match="tensorrt, which isn't installed, on a machine without a GPU"),
        TensorRTSession(tmp_path / "engine.plan"),
    ):
        pass


def test_one_engine_for_several_devices_is_built_ahead_of_time_even_beside_a_gpu(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_device(monkeypatch)
    with pytest.raises(MissingDependencyError, match="only be built on the device"):
        build_engine(H100, model, tmp_path, EngineOptions(also_for=("a100",)))


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("cpu", EngineOptions({"batch": SizeRange(1, 1, 1)}), "ONNX Runtime takes no --dims"),
        ("a100", EngineOptions({"batch": SizeRange(2, 2, 2)}), "Latency is measured at batch 1"),
        ("a100", EngineOptions(also_for=("h100",)), "no engine for NVIDIA H100 SXM can be built ahead"),
        ("a100-2:4", EngineOptions(also_for=("t4",)), "no sparse tensor cores"),
        ("a100", EngineOptions(also_for=("a1000",)), "Unknown device 'a1000'"),
    ],
)
def test_options_that_cannot_be(target: str, options: EngineOptions, message: str) -> None:
    parsed = Target.parse(target)
    with pytest.raises(UsageError, match=message):
        preferred_engine(parsed, options).check(parsed, options, latency_batch=1)


def test_an_engine_info_is_ahead_of_time_where_it_names_capabilities() -> None:
    assert not EngineInfo("tensorrt", Path("e"), "tensorrt 10", run_on_device=True).built_ahead_of_time
