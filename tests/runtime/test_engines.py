"""Engines: which builder a target gets here, and real TensorRT-RTX builds on the CPU."""

import re
from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

from prunec.passes.errors import InputError, MissingDependencyError, UnsupportedModelError
from prunec.runtime.devices import DEVICES
from prunec.runtime.engines import EngineOptions, OnnxRuntimeSession, choose_engine, nvidia, tensorrt, tensorrt_rtx
from prunec.runtime.engines.catalogue import load_engine, preferred_engine
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.tensorrt_build import build_plan
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_fp16
from prunec.runtime.target import Target
from tests.engines.device import build_engine
from tests.runtime.nets import small

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    export_onnx(small(sparse=True), folder / "fp32.onnx")
    to_fp16(folder / "fp32.onnx", folder / "fp16.onnx")
    return folder


@pytest.mark.parametrize("target", ["a100-2:4", "a100-dense-fp32", "t4", "rtx30-2:4", "l4-2:4", "rtx50-2:4"])
def test_ahead_of_time_engines_for_all_five_capabilities(models: Path, tmp_path: Path, target: str) -> None:
    parsed = Target.parse(target)
    info = build_engine(parsed, models / f"{parsed.precision}.onnx", tmp_path)
    assert (info.kind, info.path.name) == ("tensorrt_rtx", "engine.rtx")
    assert (info.built_ahead_of_time, info.run_on_device) == (True, False)
    assert info.path.stat().st_size > 10_000
    assert any("TensorRT itself can't load it" in note for note in info.notes)
    assert any("support matrix" in note for note in info.notes) == (parsed.device == "a100")
    assert any("sparse" in note for note in info.notes) == parsed.sparse


def test_one_plan_for_several_capabilities(models: Path) -> None:
    capabilities = [(8, 0), (8, 9)]
    built = build_plan("tensorrt_rtx", models / "fp16.onnx", sparse=True, ranges={}, compute_capabilities=capabilities)
    assert b"accelerators={sm80 sm89 }" in bytes(built.plan)


@pytest.mark.parametrize("device", ["h100", "h200", "b200", "orin", "thor"])
def test_devices_that_must_build_themselves(device: str) -> None:
    with pytest.raises(MissingDependencyError, match="prunec build BUNDLE") as caught:
        choose_engine(Target.parse(device), EngineOptions())
    assert DEVICES[device].title in str(caught.value)


def test_without_tensorrt_rtx_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_rtx, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install tensorrt-rtx-cu12"):
        choose_engine(Target.parse("l4"), EngineOptions())


def test_with_the_device_and_tensorrt_at_hand_tensorrt_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(nvidia, "has_device", lambda target: True)
    assert choose_engine(Target.parse("h100-2:4"), EngineOptions()).name == "tensorrt"


def test_every_kind_is_what_the_catalogue_says() -> None:
    kinds = {name: load_engine(name) for name in ENGINES.own}
    assert {name: kind.name for name, kind in kinds.items()} == dict(zip(kinds, kinds, strict=True))
    files = [kind.file_name for kind in kinds.values() if kind.file_name is not None]
    assert len(set(files)) == len(files)
    for device in DEVICES.values():
        target = Target.parse(device.name)
        assert [name for name, kind in kinds.items() if kind.serves(target)] == list(device.engines)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("l4", EngineOptions(engine="tensorrt"), "on the device only (NVIDIA L4), which isn't here"),
        ("a100", EngineOptions(also_for=("l4",), engine="tensorrt"), "for a100-dense-fp16 and l4 needs TensorRT-RTX"),
        ("h100", EngineOptions(also_for=("l4",)), "TensorRT-RTX doesn't build for it ahead of time"),
    ],
)
def test_why_nothing_builds_here(target: str, options: EngineOptions, words: str) -> None:
    parsed = Target.parse(target)
    with pytest.raises(MissingDependencyError, match=re.escape(words)):
        choose_engine(parsed, options)
    assert preferred_engine(parsed, options).name == "tensorrt"


def test_with_the_device_but_no_tensorrt_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    monkeypatch.setattr(nvidia, "has_device", lambda target: True)
    with pytest.raises(MissingDependencyError, match=r"pip install 'prunec\[tensorrt\]'"):
        choose_engine(Target.parse("h100"), EngineOptions(engine="tensorrt"))
    assert choose_engine(Target.parse("l4"), EngineOptions()).name == "tensorrt_rtx"


def test_a_model_that_the_library_refuses_gives_its_own_words(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="odd", domain="somewhere")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("somewhere", 1)]
    save(
        helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]), opset_imports=opsets), tmp_path / "m"
    )
    with pytest.raises(UnsupportedModelError, match="NoSuchOperator"):
        build_engine(Target.parse("l4"), tmp_path / "m", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_onnx_runtime_refuses_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="can't load"):
        OnnxRuntimeSession(tmp_path / "m.onnx")


def test_the_cpu_engine_is_the_onnx_file(models: Path, tmp_path: Path) -> None:
    info = build_engine(Target.parse("cpu"), models / "fp32.onnx", tmp_path)
    assert (info.kind, info.path, info.run_on_device) == ("onnxruntime", models / "fp32.onnx", True)
