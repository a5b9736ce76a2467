"""Retraining on a GPU gives the same each time, goes on to the bit where it stopped, and learns what it learns here."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunec.calibration.data import Data
from prunec.compiler.facts.settings import Settings
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.recovery.recover import Recover, StateOptions
from prunec.compiler.recovery.scores import Scores
from prunec.compiler.stages.driver import compile_model
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.runtime.evaluate import top1
from tests.quarters import quarters
from tests.recovery.networks import run, same, state
from tests.recovery.regimes.regime_runs import LAST, REGIMES, trained
from tests.recovery.regimes.toys import plain
from tests.recovery.test_distributed import train

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]

#: What changes how a GPU computes.
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "channels last": {"channels_last": True},
    "clipped, in parts": {"clip_norm": 1.0, "accumulate": 2},
    "averaged": {"ema": 0.9, "keep": "last"},
    "distilled": {"distill": 2.0},
    "adamw": {"optimizer": "adamw", "schedule": "cosine:0.003"},
    "synchronised alone": {"sync_batchnorm": True},
}


class Interrupted(Exception):
    pass


def interrupt(record: Any, _: Program) -> None:
    if record.epoch == 2:
        raise Interrupted


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return quarters(tmp_path_factory.mktemp("data"), 600, 200, ("shift:1",))


@pytest.mark.parametrize("way", WAYS)
def test_it_learns_the_same_each_time_and_resumes_to_the_bit(way: str, data: Data, tmp_path: Path) -> None:
    options = replace(Recover(epochs=4, schedule="cosine:0.05", batch_size=32), **WAYS[way])
    program = plain()
    first, second = (run(program, data, options, teacher=program) for _ in range(2))
    assert first.curve[-1].test > first.curve[0].test - 0.05
    assert first.curve[-1].test > 0.6
    assert same(state(first.program), state(second.program))
    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=5)
    with pytest.raises(Interrupted):
        run(program, data, options, teacher=program, state=file, progress=interrupt)
    resumed = run(program, data, options, teacher=program, state=file)
    assert resumed.resumed
    assert same(state(first.program), state(resumed.program))
    assert {tensor.device.type for tensor in first.program.tensors().values()} == {"cpu"}


@pytest.mark.parametrize("hook", [*REGIMES, "quantize"])
def test_regimes_decide_the_same_each_time_and_resume_to_the_bit(hook: str, data: Data, tmp_path: Path) -> None:
    (loaded,), pruning = load_hooks(hook), REGIMES.get(hook)
    first, second = (trained(plain(), data, loaded, pruning) for _ in range(2))
    assert same(state(first.program), state(second.program))
    torch.testing.assert_close(dict(first.hooks[0].decided), dict(second.hooks[0].decided), rtol=0, atol=0)
    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=5)
    with pytest.raises(Interrupted):
        trained(plain(), data, loaded, pruning, state=file, progress=interrupt)
    resumed = trained(plain(), data, loaded, pruning, state=file)
    assert resumed.resumed
    assert same(state(first.program), state(resumed.program))


@pytest.mark.parametrize(("pool", "features"), [(nn.AdaptiveAvgPool2d(1), 8), (nn.AdaptiveAvgPool2d((2, 1)), 16)])
def test_pools_of_like_windows_learn_the_same_each_time(pool: nn.Module, features: int, data: Data) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(features, 4))
    program = capture(module, (torch.zeros(2, 1, 8, 8),))
    first, second = (run(program, data, Recover(epochs=2, schedule="constant:0.05", batch_size=32)) for _ in range(2))
    assert same(state(first.program), state(second.program))


def test_a_step_is_the_processor_s_but_for_rounding(data: Data) -> None:
    options = replace(LAST, epochs=1, schedule="constant:0.05")
    here = run(plain(), data, options).curve[0].train_loss
    assert here == pytest.approx(loss_on_the_processor(), rel=2e-2), "convolutions of a GPU round their factors to TF32"


def loss_on_the_processor() -> float:
    script = (
        "from pathlib import Path; from dataclasses import replace; import sys\n"
        "from tests.quarters import quarters; from tests.recovery.networks import run\n"
        "from tests.recovery.regimes.regime_runs import LAST; from tests.recovery.regimes.toys import plain\n"
        "import tempfile\n"
        "data = quarters(Path(tempfile.mkdtemp()), 600, 200, ('shift:1',))\n"
        "print(run(plain(), data, replace(LAST, epochs=1, schedule='constant:0.05')).curve[0].train_loss)\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(done.stdout)


def test_two_compiles_give_the_same_bytes(data: Data, tmp_path: Path) -> None:
    text = "prune-filters{ratio=0.5} sparsify recover{epochs=2,schedule=constant:0.05,batch_size=32}"
    settings = Settings(build_engine=False, latency_runs=3)
    for name in ("a", "b"):
        compile_model(plain(), "a100-2:4", text, data, tmp_path / f"{name}.bundle", settings=settings)
    for file in ("model.pt2", "model.onnx", "plan.json"):
        first, second = ((tmp_path / f"{name}.bundle" / file).read_bytes() for name in ("a", "b"))
        assert first == second, file


def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    quarters(tmp_path, 600, 200, ("shift:1",))
    count = torch.cuda.device_count() + 1
    options = {"schedule": "cosine:0.05", "batch_size": 540, "keep": "last", "epochs": 1}
    assert f"{count} processes on {socket.gethostname()} train on {count - 1} GPU" in train(
        count, tmp_path, options, False
    )


def test_scores_are_the_processor_s(data: Data) -> None:
    on_gpu, on_cpu = (Scores.of(plain(), data, top1, torch.device(name)) for name in ("cuda", "cpu"))
    assert np.mean(on_gpu.train == on_cpu.train) > 0.99
    assert np.mean(on_gpu.validation == on_cpu.validation) > 0.99
