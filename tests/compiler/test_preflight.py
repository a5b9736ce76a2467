"""What follows all steps is tried before the first epoch, with the network that they will leave, untrained."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.calibration import Data, DataConfig, load_data
from prunec.compiler import Objective, Program, Settings, capture, compile_model
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import StepInput
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.stages import preflight, recover_step
from prunec.compiler.stages.step_runs import dense_fact
from prunec.passes import PruneFilters
from prunec.passes.errors import PrunecError, UnsupportedModelError
from prunec.passes.unknown import Unknown
from prunec.runtime.engines import EngineInfo, EngineKind, EngineOptions, Session
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.target import Target
from tests.plugins.install import installed

TRAINED = "recover{epochs=1,schedule=constant:0.01}"
QUICK = Settings(latency_runs=2, allow_implausible=True, build_engine=False)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.second(self.first(x).relu()).relu().mean((2, 3)))
        return y


class WithoutOnnxForm(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + torch.linalg.eigvalsh(y[:, :, None] * y[:, None])


class Refusing(EngineKind):
    """Its parser refuses every model."""

    name, title, file_name = "refusing", "the refusing library", "engine.none"

    def serves(self, target: Target) -> bool:
        return True

    def parse(self, onnx_path: Path, options: EngineOptions) -> str:
        raise UnsupportedModelError(f"{onnx_path.name} is refused.")

    def build(self, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
        raise AssertionError

    def open(self, engine: EngineInfo, threads: int = 1) -> Session:
        raise AssertionError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 4
    np.savez(folder / "d.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return load_data(DataConfig(train="npz:d.npz", test="npz:d.npz", mean=(0.5,), std=(0.5,)), folder, 0)


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    return capture(Net(), (torch.randn(2, 1, 8, 8),))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test where anything is trained."""

    def train(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr(recover_step, "recover", train)
    yield


def given(program: Program, data: Data, target: str, pipeline: str, settings: Settings = QUICK) -> StepInput:
    request = Request(program, Target.parse(target), parse_pipeline(pipeline), data, Objective(), settings)
    return StepInput(program, request, 0, (dense_fact(request),))


def tried(start: StepInput, after: int) -> Any:
    return preflight.preflight(start, start.request.pipeline.steps[after:])


@pytest.mark.usefixtures("untrained")
def test_an_operator_without_onnx_form_ends_the_compile_before_the_first_epoch(data: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    odd = capture(WithoutOnnxForm(), (torch.randn(2, 1, 8, 8),))
    with pytest.raises(UnsupportedModelError, match="can't be exported to ONNX"):
        compile_model(odd, "cpu", f"prune-filters{{ratio=0.5}} {TRAINED}", data, tmp_path / "b", settings=QUICK)


@pytest.mark.usefixtures("untrained")
def test_a_weight_beyond_float16_ends_it_too(program: Program, data: Data, tmp_path: Path) -> None:
    large = program.clone()
    with torch.no_grad():
        large.parameters()["last.weight"][0] = 1e5
    with pytest.raises(PrunecError, match="beyond float16"):
        compile_model(large, "l4", f"prune-filters{{ratio=0.5}} {TRAINED}", data, tmp_path / "b", settings=QUICK)


def test_so_does_the_builders_parser(program: Program, data: Data, tmp_path: Path) -> None:
    options = EngineOptions(engine="refusing")
    settings = replace(QUICK, build_engine=True, engine_options=options)
    with (
        installed(tmp_path / "site", ENGINES.group, refusing=f"{__name__}:Refusing"),
        pytest.raises(UnsupportedModelError, match="is refused"),
    ):
        tried(given(program, data, "cpu", TRAINED, settings), 1)


def test_where_training_comes_first_the_network_that_it_will_be_goes_through(program: Program, data: Data) -> None:
    pruning = "prune-filters{ratio=0.5,criterion=random}"
    first = tried(given(program, data, "l4-2:4-bf16", f"{TRAINED} {pruning} sparsify {TRAINED}"), 1)
    assert first.macs == PruneFilters(ratio=0.5, criterion="l1").run(program).program.macs() < program.macs()
    assert first.structure.endswith(str(sorted(("first.weight", "last.weight", "second.weight"))[1:]))
    assert first.difference_from_torch < 1e-4
    assert isinstance(first.parsed_by, Unknown)
    assert isinstance(first.accuracy, Unknown)  # in bfloat16


def test_outputs_that_are_zero_before_the_training_are_no_failure(data: Data) -> None:
    """The largest filters are dead, which magnitude keeps; the pipeline's own criterion may keep others."""
    torch.manual_seed(0)
    network = Net()
    with torch.no_grad():
        network.last.bias.zero_()
        network.second.weight[:8] *= 10
        network.second.bias[:8] = -1e4
        network.last.weight[:, :8] *= 10
    pipeline = f"{TRAINED} prune-filters{{ratio=0.5}} {TRAINED}"
    start = given(capture(network, (torch.randn(2, 1, 8, 8),)), data, "cpu", pipeline)
    difference = tried(start, 1).difference_from_torch
    assert isinstance(difference, Unknown)
    assert "every one is empty, zero or not finite" in difference.reason


def test_what_passed_is_not_tried_again(program: Program, data: Data) -> None:
    start = given(program, data, "cpu", f"{TRAINED} prune-filters{{ratio=0.5}} {TRAINED}")
    first = tried(start, 1)
    fact = replace(start.history[0], preflight=first)
    pruned = PruneFilters(ratio=0.5).run(program).program
    later = replace(start, program=pruned, history=(*start.history, fact))
    assert tried(later, 3) is None
    other = PruneFilters(ratio=0.25).run(program).program
    assert tried(replace(later, program=other), 3).macs == other.macs()
    assert tried(replace(start, arm="random"), 1) is None


def test_the_report_tells_it(program: Program, data: Data, tmp_path: Path) -> None:
    pipeline = f"prune-filters{{ratio=0.5}} {TRAINED}"
    report = compile_model(program, "cpu", pipeline, data, tmp_path / "b", settings=QUICK)
    assert not isinstance(report.steps, Unknown)
    pruned, trained = report.steps[1:]
    assert pruned.preflight is None
    assert trained.preflight.macs == report.macs.compiled  # type: ignore[union-attr]
    assert 0 <= trained.preflight.accuracy <= 1  # type: ignore[union-attr, operator]
