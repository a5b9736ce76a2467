"""Running and timing on the device, with a fake of Polygraphy's runner: nothing here has run on a GPU."""

from pathlib import Path

import numpy as np
import pytest

from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.runtime.engines import measuring
from prunec.runtime.engines.building import EngineInfo, build_engine
from prunec.runtime.engines.inspector import EngineLayer
from prunec.runtime.engines.measuring import DeviceMeasurement, measure_on_device, node_times
from prunec.runtime.engines.onnxruntime import OnnxRuntimeEngine
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.shapes import SizeRange
from prunec.runtime.engines.tensorrt_run import TensorRTEngine
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target
from tests.engines.device import GPU, STATE, pretend_device
from tests.engines.fake_tensorrt import CHOSE, FOUND
from tests.runtime.nets import small

H100 = Target.parse("h100-2:4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export_onnx(small(sparse=True), path)
    return path


def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 3, 8, 8), dtype=np.float32)


def measured(model: Path, folder: Path, dense: Path | None, target: Target = H100) -> DeviceMeasurement:
    engine = build_engine(target, model, folder)
    return measure_on_device(target, engine, model, [images()], dense_onnx=dense, runs=5)


def test_an_engine_built_on_the_device_says_how(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [FOUND[10].format("node_a", n=1), CHOSE[10].format("node_a", n=1)]
    trt = pretend_device(monkeypatch, version="11.4.1.5", lines=lines)
    options = EngineOptions({"batch": SizeRange(1, 4, 16)}, timing_cache=tmp_path / "timings")
    info = build_engine(H100, model, tmp_path, options)
    assert (info.kind, info.path.name, info.builder) == ("tensorrt", "engine.plan", "tensorrt 11.4.1.5")
    assert (info.gpu, info.built_ahead_of_time, info.run_on_device) == (GPU, False, True)
    assert info.sparsity is not None
    assert info.sparsity.has_chosen("node_a")
    assert {name: str(sizes) for name, sizes in info.ranges.items()} == {"batch": "1:4:16"}
    assert trt.built[0].config.profiles == [{"x": ((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))}]
    assert (tmp_path / "timings").exists()


def test_an_engine_computes_what_the_model_does(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_device(monkeypatch)
    engine = build_engine(H100, model, tmp_path)
    with TensorRTEngine(engine.path) as loaded:
        outputs = loaded(images())
        assert loaded.timer(images())() == 1.0
    for actual, expected in zip(outputs, OnnxRuntimeEngine(model)(images()), strict=True):
        np.testing.assert_array_equal(actual, expected)


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
    assert found.latency is not None
    assert (found.latency.speedup, found.latency.dense.median, found.latency.runs) == (2.0, 2.0, 5)
    nodes = {layer.name for layer in check_sparsity(model)}
    assert found.dense_ms == dict.fromkeys(nodes, 2.0)
    assert found.sparse_ms == dict.fromkeys(nodes, 1.0)
    assert found.sparse_kernel == dict.fromkeys(nodes, True)
    assert (found.gpu, found.gpu_reason) == (STATE, "")


def test_without_a_dense_network_there_is_no_speedup(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_device(monkeypatch)
    found = measured(model, tmp_path, None)
    assert found.latency is None
    assert found.sparse_ms


def test_a_dense_target_has_one_time_per_layer(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = pretend_device(monkeypatch)
    found = measured(model, tmp_path, None, Target.parse("h100"))
    assert len(trt.built) == 1
    assert set(found.dense_ms.values()) == {2.0}
    assert found.sparse_ms == {}


def test_layers_that_share_an_engine_layer_have_no_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [layer.name for layer in check_sparsity(model)]
    pretend_device(monkeypatch, fused=nodes[:2])
    assert set(measured(model, tmp_path, None).sparse_ms) == set(nodes[2:])


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

    monkeypatch.setattr(measuring, "gpu_state", none)
    found = measured(model, tmp_path, None)
    assert found.gpu is None
    assert "pip install nvidia-ml-py" in found.gpu_reason


def test_an_engine_of_another_version_names_both_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_device(monkeypatch)
    (tmp_path / "engine.plan").write_bytes(b"of another version")
    with (
        pytest.raises(MissingDependencyError, match="prunec build BUNDLE") as caught,
        TensorRTEngine(tmp_path / "engine.plan", built="tensorrt 10.3.0 on NVIDIA A100"),
    ):
        pass
    assert caught.value.exit_code == 4
    assert "can't be loaded by tensorrt 10.13.0.35 on NVIDIA H100" in str(caught.value)
    assert "built by tensorrt 10.3.0 on NVIDIA A100" in str(caught.value)


def test_without_tensorrt_or_a_gpu_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"anything")
    with (
        pytest.raises(MissingDependencyError, match="tensorrt, which isn't installed, on a machine without a GPU"),
        TensorRTEngine(tmp_path / "engine.plan"),
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
        ("cpu", EngineOptions({"batch": SizeRange(1, 1, 1)}), "ONNX Runtime takes any size"),
        ("a100", EngineOptions(also_for=("h100",)), "no engine for NVIDIA H100 SXM can be built ahead"),
        ("a100-2:4", EngineOptions(also_for=("t4",)), "no sparse tensor cores"),
        ("a100", EngineOptions(also_for=("a1000",)), "Unknown device 'a1000'"),
    ],
)
def test_options_that_cannot_be(target: str, options: EngineOptions, message: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        build_engine(Target.parse(target), model, tmp_path, options)


def test_an_engine_info_is_ahead_of_time_where_it_names_capabilities() -> None:
    assert not EngineInfo("tensorrt", Path("e"), "tensorrt 10", run_on_device=True).built_ahead_of_time
