"""What holds of every regime: a pipeline with it, resumption to the bit, the same twice, processes alike."""

import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.facts.settings import Settings
from prunec.compiler.recovery.hooks import HOOKS, load_hooks
from prunec.compiler.recovery.recover import DenseNetwork, EpochRecord, Objective, Recovered, StateOptions, recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.report.report import Report
from prunec.compiler.stages.driver import compile_model
from prunec.passes.errors import InputError, UsageError
from prunec.passes.places import METHOD
from prunec.passes.program import Program
from prunec.runtime.evaluate import top1
from tests.recovery.networks import same, state
from tests.recovery.regimes.regime_runs import LAST, REGIMES, net

FAST: dict[str, Any] = {
    "build_engine": False, "latency_runs": 3, "pretraining": parse_schedule("constant:0.05", epochs=5),
}  # fmt: skip
TRAIN = "epochs=2,schedule=cosine:0.05,batch_size=32,probe=0"


@pytest.mark.parametrize("name", REGIMES)
def test_a_pipeline_with_it(name: str, data: Data, tmp_path: Path) -> None:
    text, pruning = REGIMES[name]
    allocation = "" if pruning.allocation == "auto" else f",allocation={pruning.allocation}"
    pipeline = (
        f'recover{{{TRAIN},keep=last,hooks="{text}"}} prune-filters{{ratio=0.5,criterion=learned{allocation}}} '
        f"recover{{{TRAIN}}}"
    )
    report = compile_model(net(), "cpu", pipeline, data, tmp_path / "b", settings=Settings(**FAST))
    assert isinstance(report, Report)
    assert report.passed
    assert report.macs.compiled <= 0.5 * report.macs.dense
    entries: Any = report.ledger
    assert [entry.stage for entry in entries] == ["pretraining", "recover", "prune-filters", "recover"]
    assert name in str(entries[1].options)
    assert name in str(report.extensions)


@pytest.mark.parametrize("name", REGIMES)
def test_it_resumes_to_the_bit(name: str, data: Data, tmp_path: Path) -> None:
    text, pruning = REGIMES[name]
    options = replace(LAST, epochs=3, hooks=text)

    class Stopped(Exception):
        pass

    def stop(record: EpochRecord, _: Program) -> None:
        if record.epoch == 2:
            raise Stopped

    def run(**others: Any) -> Recovered:
        return recover(net(), options, data, dense=DenseNetwork(net(), pruning=pruning), **others)

    whole = run()
    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=5)
    with pytest.raises(Stopped):
        run(state=file, progress=stop)
    resumed = run(state=file)
    assert resumed.resumed
    assert same(state(whole.program), state(resumed.program)), "the same twice, and stopped in between"
    before, after = whole.hooks[0], resumed.hooks[0]
    torch.testing.assert_close(dict(before.decided), dict(after.decided), rtol=0, atol=0)
    assert (before.samples, before.macs, before.figures) == (after.samples, after.macs, after.figures)


@pytest.mark.parametrize("name", REGIMES)
def test_it_goes_on_within_an_epoch(name: str, data: Data, tmp_path: Path) -> None:
    text, pruning = REGIMES[name]
    options = replace(LAST, epochs=2, hooks=text)
    calls = 0

    class Stopped(Exception):
        pass

    def run(stop_at: int, **others: Any) -> Recovered:
        def metric(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise Stopped
            return top1(outputs, labels)

        metric.__qualname__ = "metric"
        return recover(
            net(), options, data, objective=Objective(metric=metric), dense=DenseNetwork(net(), pruning=pruning),
            **others,
        )  # fmt: skip

    whole = run(0)
    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=4)
    calls = 0
    with pytest.raises(InputError, match="metric"):
        run(11, state=file)
    calls = 0
    resumed = run(0, state=file)
    assert resumed.resumed
    assert same(state(whole.program), state(resumed.program))
    torch.testing.assert_close(dict(whole.hooks[0].decided), dict(resumed.hooks[0].decided), rtol=0, atol=0)


@pytest.mark.parametrize("name", REGIMES)
def test_its_options_state_their_places(name: str) -> None:
    (hook,) = load_hooks(REGIMES[name][0])
    assert hook.prepares_pruning
    names = [field.name for field in fields(hook)]
    assert type(hook).places == dict.fromkeys(names, METHOD)  # type: ignore[attr-defined]


def test_all_are_in_the_catalogue() -> None:
    assert REGIMES.keys() <= set(HOOKS.names())


@pytest.mark.parametrize("name", ["resrep", "gal"])
def test_widths_of_single_groups_are_refused_before_any_work(name: str, data: Data, tmp_path: Path) -> None:
    pipeline = (
        f"recover{{{TRAIN},keep=last,hooks={name}}} prune-filters{{ratio=0.5,criterion=learned}} recover{{{TRAIN}}}"
    )
    with pytest.raises(UsageError, match=f"{name} ranks the filters of all layers together"):
        compile_model(net(), "cpu", pipeline, data, tmp_path / "b", settings=Settings(**FAST))
    assert not (tmp_path / "b").exists()


def test_weights_of_another_step_is_refused_before_any_work(data: Data, tmp_path: Path) -> None:
    pipeline = f'recover{{{TRAIN},hooks="resrep"}} prune-filters{{ratio=0.5,criterion=learned,allocation=global}} '
    pipeline += f"recover{{{TRAIN}}}"
    with pytest.raises(UsageError, match="resrep readies the weights of the last step for pruning"):
        compile_model(net(), "cpu", pipeline, data, tmp_path / "b", settings=Settings(**FAST))
    assert not (tmp_path / "b").exists()


def test_two_processes_decide_alike(data: Data, tmp_path: Path) -> None:
    """Every process decides the same, which the script checks."""
    output, root = tmp_path / "decided.pt", Path(__file__).parents[3]
    script = [str(root / "tests/recovery/regimes/distributed_regimes.py"), str(tmp_path), str(output)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = torch.load(output)
    assert told["processes"] == 2
    assert told["decided"].keys() == REGIMES.keys()
