"""Native code that dies costs its own results: the bundle is written, holds the weights, and says what died of what."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.calibration import DataConfig, load_data
from prunec.compiler import Objective, Program, Report, Settings, capture, compile_model
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.project.project import ModelOptions
from prunec.passes.errors import NativeCrashError
from prunec.passes.unknown import Unknown
from prunec.runtime import children
from prunec.runtime.engines import EngineInfo, EngineKind, EngineOptions, Session
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_fp16
from prunec.runtime.target import Target
from tests.plugins.install import installed
from tests.runtime import native
from tests.runtime.nets import small

DEATHS = {"deadly-builder": "built an engine of model.onnx", "deadly-runner": "ran engine.deadly"}


class DeadlyBuilder(EngineKind):
    """Dies when it builds."""

    name, title, file_name = "deadly-builder", "the deadly builder", "engine.deadly"

    def serves(self, target: Target) -> bool:
        return True

    def build(self, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
        os.kill(os.getpid(), signal.SIGABRT)
        raise AssertionError

    def open(self, engine: EngineInfo, threads: int = 1) -> Session:
        return DeadlySession()


class DeadlyRunner(DeadlyBuilder):
    """Builds, and dies when it runs."""

    name, title = "deadly-runner", "the deadly runner"

    def build(self, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
        path = folder / "engine.deadly"
        path.write_text("engine")
        return EngineInfo(self.name, path, "deadly 1", run_on_device=True)


class DeadlySession(Session):
    """Its session."""

    def __call__(self, *inputs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGABRT)


@pytest.fixture
def deadly(tmp_path: Path) -> Iterator[None]:
    kinds = {"deadly-builder": f"{__name__}:DeadlyBuilder", "deadly-runner": f"{__name__}:DeadlyRunner"}
    with installed(tmp_path / "site", ENGINES.group, **kinds):
        yield


@pytest.mark.parametrize("engine", DEATHS)
@pytest.mark.usefixtures("deadly")
def test_an_engine_that_dies_is_none_and_costs_no_weights(engine: str, tmp_path: Path) -> None:
    output = tmp_path / "m.bundle"
    settings = Settings(engine_options=EngineOptions(engine=engine), latency_runs=2)
    report = compile_model(small(), "cpu", "prune-filters{ratio=0.5}", output=output, settings=settings)
    assert (report.status, report.exit_code) == ("FAILED", 4)
    assert isinstance(report.engine, Unknown)
    assert "died of SIGABRT" in report.engine.reason
    assert DEATHS[engine] in report.engine.reason
    assert Program.load(output / "model.pt2").parameter_count() == report.parameters.compiled
    assert not (output / "engine.deadly").exists()
    assert report.numerics.onnx_vs_torch_max_relative_error < 1e-4  # type: ignore[operator]


class Reader(nn.Module):
    """A recurrent network with a linear layer over its steps, of which ONNX Runtime 1.32 dies in float16."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
        self.rnn, self.out = kind(16, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.rnn(self.conv(x).mean(2).transpose(1, 2))[0])


def reader(kind: type[nn.RNNBase] = nn.LSTM) -> Program:
    torch.manual_seed(0)
    return capture(Reader(kind), (torch.randn(2, 1, 8, 12),))


def score(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.mean(1).argmax(1) == labels).float()


def compiled_reader(output: Path) -> Report:
    generator, folder = np.random.default_rng(0), output.parent
    images, labels = generator.integers(0, 256, (40, 8, 12), dtype=np.uint8), np.arange(40) % 3
    half = {"train_images": images, "train_labels": labels, "test_images": images[:20], "test_labels": labels[:20]}
    np.savez(folder / "d.npz", **half)
    source = DataConfig(train="npz:d.npz", test="npz:d.npz", mean=(0.5,), std=(0.5,))
    return compile_model(
        reader(),
        "l4",
        "prune-filters{ratio=0.5}",
        load_data(source, folder, 0),
        output,
        objective=Objective(metric=score, metric_name="score"),
        settings=Settings(build_engine=False, latency_runs=2, allow_implausible=True),
    )


def test_a_float16_file_that_kills_onnx_runtime_costs_its_accuracy_alone(tmp_path: Path) -> None:
    output = tmp_path / "m.bundle"
    report = compiled_reader(output)
    assert (report.status, report.exit_code) == ("PASSED", 0)
    exported = report.accuracy.exported
    if isinstance(exported, Unknown):
        assert "died of SIG" in exported.reason
        assert "ONNX Runtime" in exported.reason
        assert "model.fp16.onnx" in exported.reason
    else:  # a version of ONNX Runtime that can
        assert exported == pytest.approx(report.accuracy.pruned, abs=0.2)
    model = ModelOptions()
    verified = verify_bundle(output, source=None, config=None, model=model)
    assert verified.exit_code == 0


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks_in_float16_end_no_process_but_the_child(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    export_onnx(reader(kind), tmp_path / "m.onnx")
    to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx")
    images = torch.randn(2, 1, 8, 12).numpy()
    before = children.call("it ran", native.pid_and_group)
    try:
        with open_onnx(tmp_path / "h.onnx") as session:
            outputs = session(images)
    except NativeCrashError as error:
        assert "ONNX Runtime" in error.message
        assert children.call("it ran", native.pid_and_group) != before
    else:
        assert outputs[0].shape == (2, 12, 3)
