"""Building through TensorRT 10 and 11, with a fake of each: neither library has built anything here."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from onnx import TensorProto, helper, save

from prunec.passes.errors import MissingDependencyError, UnsupportedModelError
from prunec.runtime.engines.tensorrt_build import BuiltPlan, build_plan
from tests.engines.fake_tensorrt import CHOSE, FOUND, fake_tensorrt

SHAPES = {"x": ((1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8))}


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the fake reads of it are its inputs."""
    monkeypatch.chdir(tmp_path)
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])
    save(helper.make_model(helper.make_graph([], "g", [info], [])), "m.onnx")


def build(trt: ModuleType, sparse: bool = True, timing_cache: Path | None = None) -> BuiltPlan:
    return build_plan(trt, Path("m.onnx"), sparse=sparse, ranges={}, timing_cache=timing_cache)


@pytest.mark.parametrize(("version", "flags"), [("10.13.0.35", 2), ("11.4.1.5", 0)])
def test_networks_are_strongly_typed_in_both_versions(version: str, flags: int) -> None:
    trt = fake_tensorrt(version)
    plan = build(trt)
    assert plan.builder == f"tensorrt {version}"
    assert trt.built[0].network.flags == flags
    assert trt.built[0].config.flags == {"SPARSE_WEIGHTS"}
    assert trt.built[0].config.profiles == [SHAPES]
    assert trt.built[0].config.profiling_verbosity == "detailed"


def test_the_fake_can_be_looked_for_like_an_installed_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch._dynamo does, whose first import would fail otherwise, and with it every later capture."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("10.3.0"))
    assert find_spec("tensorrt") is not None


def test_dense_engines_get_no_sparse_flag() -> None:
    trt = fake_tensorrt("10.3.0")
    build(trt, sparse=False)
    assert trt.built[0].config.flags == set()


def test_the_builders_word_on_sparsity_is_kept() -> None:
    said = build(fake_tensorrt("10.3.0", lines=[FOUND[10].format("a, b", n=2), CHOSE[10].format("b", n=1)])).sparsity
    assert said is not None
    assert (said.tried, said.chosen) == (("a", "b"), ("b",))
    assert build(fake_tensorrt("10.3.0")).sparsity is None


def test_the_timing_cache_is_read_and_written(tmp_path: Path) -> None:
    cache = tmp_path / "timings"
    for expected in (b"+", b"++"):
        build(fake_tensorrt("10.3.0"), timing_cache=cache)
        assert cache.read_bytes() == expected


def test_a_timing_cache_of_another_gpu_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "timings").write_bytes(b"of another GPU")
    build(fake_tensorrt("10.3.0"), timing_cache=tmp_path / "timings")
    assert (tmp_path / "timings").read_bytes() == b"+"


def test_a_failed_build_says_why_in_the_librarys_words() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"tensorrt 11.4.0 can't build m.onnx: no implementation for node_7"
    ):
        build(fake_tensorrt("11.4.0", fails="no implementation for node_7"))


def test_tensorrt_itself_builds_nothing_ahead_of_time() -> None:
    with pytest.raises(MissingDependencyError, match=r"ahead of time for compute capability 8\.0"):
        build_plan(fake_tensorrt("10.3.0"), Path("m.onnx"), sparse=True, ranges={}, compute_capabilities=[(8, 0)])
