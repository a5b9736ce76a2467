"""Compiling and building where the device is, with a fake of TensorRT and of Polygraphy's runner."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.bundle.bundle_reader import read_bundle
from prunec.compiler.commands.build_bundle import DenseCheckpoint, build_bundle
from prunec.compiler.commands.profile_latency import combinations_of, profile_path
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.drawing.report_page import sparse_kernel_words
from prunec.compiler.facts.progress import Silent
from prunec.compiler.facts.settings import Settings
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.report.report import Report
from prunec.compiler.stages.driver import compile_model
from prunec.passes import Program, capture
from prunec.passes.errors import InputError, NumericMismatchError
from prunec.passes.unknown import Unknown
from prunec.runtime.engines import EngineOptions, SizeRange, nvidia
from tests.compiler.sample_report import layers
from tests.engines.device import GPU, pretend_device
from tests.engines.fake_tensorrt import CHOSE, FOUND, FakeRunner

PIPELINE = "prune-filters{ratio=0.5,round_to=4} permute{seconds=1} sparsify"
FAST = Settings(latency_runs=5, allow_implausible=True, engine_options=EngineOptions({"batch": SizeRange(1, 2, 4)}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its project: network, pickled, and data."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (60, 8, 8)).astype(np.uint8), rng.integers(0, 4, 60)
    np.savez(folder / "data.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    (folder / "prunec.toml").write_text(
        '[model]\ninput = [[1, 8, 8]]\n[data]\ntrain = "npz:data.npz"\ntest = "npz:data.npz"\n'
    )
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    torch.save(network, folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return load_data(DataConfig(train="npz:data.npz", test="npz:data.npz"), folder, seed=0)


@pytest.fixture(scope="module")
def program(folder: Path) -> Program:
    return capture(torch.load(folder / "model.pt", weights_only=False), (torch.randn(2, 1, 8, 8),))


def compiled(program: Program, data: Data, output: Path, settings: Settings = FAST) -> Report:
    return compile_model(program, "h100-2:4-fp16", PIPELINE, data, output, settings=settings)


def test_compile_on_the_device_fills_the_truth_table(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = FOUND[10].format("node_conv2d_1 + node_relu_1", n=1), CHOSE[10].format("node_conv2d_1 + node_relu_1", n=1)
    pretend_device(monkeypatch, lines=chosen)
    report = compiled(program, data, tmp_path / "b", replace(FAST, min_speedup=1.5, max_drop_points=100))
    assert report.passed
    assert not isinstance(report.engine, Unknown)
    assert (report.engine.kind, report.engine.gpu, report.engine.run_on_device) == ("tensorrt", GPU, True)
    assert report.engine.dimensions == {"batch": "1:2:4"}
    assert not isinstance(report.latency, Unknown)
    assert (report.latency.speedup, report.latency.threads) == (2.0, None)
    assert report.accuracy.engine == report.accuracy.exported
    assert {gate.name: gate.verdict for gate in report.gates}["min_speedup"] == "passed"
    assert not isinstance(report.environment.gpu_state, Unknown)
    assert report.environment.gpu_state.clocks_held_by == ("SwPowerCap",)
    rows = {layer.name: layer for layer in report.layers}
    assert [rows[name].onnx_nodes for name in ("0", "2", "6")] == [
        ("node_conv2d",),
        ("node_conv2d_1",),
        ("node_linear",),
    ]
    for row in rows.values():
        assert (row.dense_ms, row.sparse_ms, row.gain) == (2.0, 1.0, 2.0)
        assert not isinstance(row.predicted_ms, Unknown)
    found = {name: row.sparsity.found_by_builder for name, row in rows.items() if not isinstance(row.sparsity, Unknown)}
    assert found == {"0": False, "2": True, "6": False}
    text = (tmp_path / "b" / "layers.csv").read_text().splitlines()
    assert ",true,true,2.0,1.0,2.0," in text[2]
    assert verify_bundle(tmp_path / "b", source=None, config=None, model=ModelOptions()).exit_code == 0


def test_steps_say_what_each_contributed(program: Program, data: Data, tmp_path: Path) -> None:
    report = compile_model(program, "a100-2:4", PIPELINE, data, tmp_path / "b", settings=FAST)
    steps = {step.name.partition("{")[0]: step for step in report.steps}
    assert list(steps) == ["dense", "prune-filters", "permute", "sparsify"]
    assert steps["dense"].macs == report.macs.dense
    assert steps["prune-filters"].macs == steps["sparsify"].macs == report.macs.compiled
    assert steps["sparsify"].nonzero_weights < steps["permute"].nonzero_weights < steps["dense"].nonzero_weights
    predicted = [step.predicted_ms for step in report.steps]
    assert predicted == sorted(predicted, reverse=True)
    assert steps["dense"].accuracy == report.accuracy.dense
    assert steps["sparsify"].accuracy == report.accuracy.sparse
    assert isinstance(steps["permute"].accuracy, Unknown)


def test_build_finishes_a_bundle_on_the_device(
    program: Program, data: Data, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(FAST, min_speedup=1.5, max_drop_points=100, allow_unknown=True)
    without = compiled(program, data, tmp_path / "b", settings)
    assert without.exit_code == 4
    assert isinstance(without.engine, Unknown)
    assert all(isinstance(layer.dense_ms, Unknown) for layer in without.layers)
    trt = pretend_device(monkeypatch, lines=[FOUND[10].format("node_conv2d_1", n=1), CHOSE[10].format("", n=0)])
    source = DenseCheckpoint(folder / "model.pt", None, ModelOptions(trust=True))
    report = build_bundle(tmp_path / "b", source=source, timing_cache=tmp_path / "timings", progress=Silent())
    assert report.passed
    assert trt.built[0].config.profiles == [{"input": ((1, 1, 8, 8), (2, 1, 8, 8), (4, 1, 8, 8))}]
    assert (tmp_path / "timings").exists()
    assert not isinstance(report.latency, Unknown)
    assert not isinstance(report.accuracy.engine, Unknown)
    assert [gate.verdict for gate in report.gates] == ["passed"] * 5
    sparsity = report.layers[1].sparsity
    assert sparsity is not None
    assert (sparsity.found_by_builder, sparsity.chosen_by_builder, report.layers[1].gain) == (True, False, 2.0)
    bundle = read_bundle(tmp_path / "b")
    assert bundle.check_hashes() == []
    assert bundle.report == report
    assert {path.name for path in (tmp_path / "b").iterdir()} >= {"engine.plan", "model.fp16.onnx"}
    assert not (tmp_path / "b" / "dense").exists()


def test_without_the_source_the_speedup_gate_stays_unknown_and_fails(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:  # a bundle of an earlier version, which compiled what can't pass
        patched.setattr("prunec.compiler.stages.driver.check_here", lambda *_: None)
        compiled(program, data, tmp_path / "b", replace(FAST, min_speedup=1.5))
    pretend_device(monkeypatch)
    report = build_bundle(tmp_path / "b", progress=Silent())
    assert (report.exit_code, report.status) == (6, "FAILED")
    assert "--source" in report.reasons["latency"]
    assert report.layers[1].gain == 2.0
    assert not isinstance(report.engine, Unknown)


def test_an_unknown_gate_that_was_allowed_stays_allowed(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(FAST, min_speedup=1.5, allow_unknown=True)
    assert compiled(program, data, tmp_path / "b", settings).exit_code == 4
    pretend_device(monkeypatch)
    assert build_bundle(tmp_path / "b", progress=Silent()).passed


def test_another_source_is_refused_and_the_bundle_intact(
    program: Program, data: Data, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(program, data, tmp_path / "b")
    before = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    torch.manual_seed(1)
    torch.save(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 4)), folder / "other.pt")
    pretend_device(monkeypatch)
    with pytest.raises(InputError, match="the bundle's source"):
        build_bundle(
            tmp_path / "b",
            source=DenseCheckpoint(folder / "other.pt", None, ModelOptions(trust=True)),
            progress=Silent(),
        )
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before


def test_an_engine_that_computes_something_else_is_refused(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(program, data, tmp_path / "b")
    before = sorted(path.name for path in (tmp_path / "b").iterdir())
    pretend_device(monkeypatch)
    infer = FakeRunner.infer
    monkeypatch.setattr(FakeRunner, "infer", lambda *a, **k: {n: 1.1 * v for n, v in infer(*a, **k).items()})
    with pytest.raises(NumericMismatchError, match="The engine differs from torch"):
        build_bundle(tmp_path / "b", progress=Silent())
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == before


def test_a_full_disk_during_the_build_leaves_the_bundle_as_it_was(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunec.passes.errors import EnvironmentFailure

    compiled(program, data, tmp_path / "b")
    before = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    pretend_device(monkeypatch)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nvidia, "build_plan", full)
    with pytest.raises(EnvironmentFailure) as caught:
        build_bundle(tmp_path / "b", progress=Silent())
    assert caught.value.exit_code == 10
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_bfloat16_bundles_hold_their_model_and_say_what_is_unknown(
    program: Program, data: Data, tmp_path: Path
) -> None:
    report = compile_model(program, "a100-2:4-bf16", PIPELINE, data, tmp_path / "b", settings=FAST)
    assert report.passed
    assert not isinstance(report.engine, Unknown)
    assert isinstance(report.accuracy.exported, Unknown)
    assert "bfloat16" in report.reasons["accuracy.exported"]
    assert (tmp_path / "b" / "model.bf16.onnx").exists()
    assert [layer.sparsity.valid for layer in report.layers if not isinstance(layer.sparsity, Unknown)] == [
        False,
        True,
        True,
    ]
    assert verify_bundle(tmp_path / "b", source=None, config=None, model=ModelOptions()).exit_code == 0


def test_one_engine_for_several_devices(program: Program, tmp_path: Path) -> None:
    options = EngineOptions(also_for=("l4", "rtx40", "t4"))
    settings = Settings(latency_runs=5, engine_options=options)
    report = compile_model(program, "a100", "prune-filters{ratio=0.5}", None, tmp_path / "b", settings=settings)
    assert not isinstance(report.engine, Unknown)
    assert report.engine.compute_capabilities == ("8.0", "8.9", "7.5")
    assert report.engine_request.also_for == ("l4", "rtx40", "t4")
    document = json.loads((tmp_path / "b" / "report.json").read_text())
    assert document["engine"]["compute_capabilities"] == ["8.0", "8.9", "7.5"]
    plan = (tmp_path / "b" / "engine.rtx").read_bytes()
    assert all(f"sm{capability}".encode() in plan for capability in (75, 80, 89))


@pytest.mark.parametrize(
    ("found", "chosen", "words"),
    [
        (None, None, "\u2013"),
        (None, True, "chosen"),
        (None, False, "not chosen"),
        (True, True, "chosen"),
        (True, False, "tried, not chosen"),
        (False, False, "not tried"),
    ],
)
def test_words_for_what_the_builder_did(found: bool | None, chosen: bool | None, words: str) -> None:
    layer = next(layer for layer in layers() if not isinstance(layer.sparsity, Unknown) and layer.sparsity.eligible)
    assert not isinstance(layer.sparsity, Unknown)
    sparsity = layer.sparsity.model_copy(update={"found_by_builder": found, "chosen_by_builder": chosen})
    assert sparse_kernel_words(layer.model_copy(update={"sparsity": sparsity})) == words
    assert sparse_kernel_words(layers()[0]) == ""


def test_an_engine_is_profiled_where_it_runs(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_device(monkeypatch, fused=("node_conv2d", "node_conv2d_1"))
    compiled(program, data, tmp_path / "b")
    nothing, asked = ModelOptions(None, None, False, ""), combinations_of([1, 4], [1], runs=4, seed=0)
    found = profile_path(tmp_path / "b" / "engine.plan", asked, config=None, model=nothing, sessions=2)
    assert (found.engine, found.target) == ("TensorRT", "h100-2:4-fp16")
    for combination in found.combinations:
        assert len(combination.sessions_ms) == 2
        assert not isinstance(combination.operators, Unknown)
        assert not isinstance(combination.layers, Unknown)
        told = {time.layer: time.latency_ms for time in combination.operators}
        assert set(told) == {"6"}, "the others are computed together"
        layers = {layer.name: layer for layer in combination.layers}
        assert {name: layer.measured_ms for name, layer in layers.items() if name in told} == told
        assert layers["2"].measured_ms is None
        assert all(layer.predicted_ms for layer in layers.values() if layer.name)
    with pytest.raises(InputError, match="takes batches of 1 to 4, got 8"):
        profile_path(
            tmp_path / "b" / "engine.plan", combinations_of([8], [1], 4, 0), config=None, model=nothing, sessions=2
        )
