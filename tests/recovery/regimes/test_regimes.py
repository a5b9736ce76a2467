"""What all regimes share: pipelines through `compile_model`, resuming, determinism, several processes, and refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.facts.settings import Settings
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.recovery.recover import Recover, StateOptions
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.stages.driver import compile_model
from prunec.passes.errors import InputError, UsageError
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown
from tests.recovery.networks import same, state
from tests.recovery.regimes.toys import OPTIONS, PRUNING, plain, prepare, residual
from tests.recovery.test_distributed import train

#: Every regime that readies filters.
REGIMES = ["greg-1", "greg-2", "network-slimming{penalty=0.01}", "sfp", "ssl{penalty=0.01}", "ssl{structure=channel}"]


#: What a compile need not measure here.
FAST = Settings(build_engine=False, latency_runs=3, pretraining=parse_schedule("constant:0.05", epochs=5))


def compiled(program: Program, text: str, data: Data | None, folder: Path, settings: Settings = FAST) -> Any:
    """The report of a pipeline."""
    return compile_model(program, "cpu", text, data, folder / "out.bundle", settings=settings)


def pipeline(hook: str, prune: str = "prune-filters{ratio=0.5,criterion=learned}") -> str:
    training = "schedule=constant:0.05,batch_size=32,probe=0"
    return (
        f'recover{{epochs=2,keep=last,hooks="{hook}",{training}}} {prune} '
        f"recover{{epochs=1,{training}}} re-estimate-batchnorm"
    )


@pytest.mark.parametrize("hook", REGIMES)
def test_a_pipeline_trains_prunes_and_reports(hook: str, data: Data, tmp_path: Path) -> None:
    report = compiled(plain(), pipeline(hook), data, tmp_path)
    assert not isinstance(report.pruning, Unknown)
    assert report.pruning.criterion == "learned"
    assert [group.kept for group in report.pruning.groups] == [4, 4]
    name = hook.partition("{")[0]
    assert report.extensions[name]
    assert hook in report.pipeline
    assert report.macs.compiled < 0.6 * report.macs.dense


@pytest.mark.parametrize("hook", ["sfp", "greg-1", "network-slimming{penalty=0.01}"])
def test_one_ratio_with_a_global_choice_leaves_the_macs_of_that_ratio(hook: str, data: Data, tmp_path: Path) -> None:
    asked = "prune-filters{ratio=0.5,allocation=global,criterion=learned}"
    text = pipeline(hook, asked)
    report = compiled(plain(), text, data, tmp_path)
    uniform = PruneFilters(ratio=0.5).run(plain()).program.macs()
    assert 0.5 * uniform < report.macs.compiled <= uniform


def test_shrunk_branches_go_in_a_pipeline(data: Data, tmp_path: Path) -> None:
    text = pipeline("ssl{structure=depth,penalty=0.05}", "prune-filters{speedup=1.5,depth=true,criterion=l2}")
    report = compiled(residual(), text, data, tmp_path)
    assert report.extensions["ssl"]["groups"] == 2
    assert report.macs.compiled <= report.macs.dense / 1.5


def test_columns_that_were_shrunk_are_masked_in_a_pipeline(data: Data, tmp_path: Path) -> None:
    text = pipeline("ssl{structure=shape,penalty=0.05}", "sparsify{pattern=columns,ratio=0.5}")
    report = compiled(plain(), text, data, tmp_path)
    assert report.extensions["ssl"]["groups"] == 9 + 72
    assert report.parameters.zero_fraction > 0.3


class Stopped(Exception):
    pass


@pytest.mark.parametrize("hook", REGIMES)
def test_it_resumes_to_the_bit_and_runs_alike_again(hook: str, data: Data, tmp_path: Path) -> None:
    options, hooks = replace(OPTIONS, schedule="cosine:0.05"), load_hooks(hook)
    whole = prepare(plain(), data, *hooks, options=options)

    def stop(record: EpochRecord, _: Program) -> None:
        if record.epoch == 2:
            raise Stopped

    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=5)
    with pytest.raises(Stopped):
        prepare(plain(), data, *hooks, options=options, state=file, progress=stop)
    resumed = prepare(plain(), data, *hooks, options=options, state=file)
    assert resumed.resumed
    again = prepare(plain(), data, *hooks, options=options)
    for other in (resumed, again):
        assert same(state(whole.program), state(other.program))
        assert whole.hooks[0].figures == other.hooks[0].figures
        torch.testing.assert_close(dict(whole.hooks[0].decided), dict(other.hooks[0].decided), rtol=0, atol=0)


@pytest.mark.parametrize("hook", REGIMES)
def test_it_changes_the_training(hook: str, data: Data) -> None:
    assert not same(state(prepare(plain(), data, *load_hooks(hook)).program), state(prepare(plain(), data).program))


def test_a_state_of_another_pruning_is_refused(data: Data, tmp_path: Path) -> None:
    file = StateOptions(tmp_path / "state.pt", resume=True)
    prepare(plain(), data, *load_hooks("sfp"), state=file)
    with pytest.raises(InputError, match=r"pruning was prune-filters\{ratio=0.5"):
        prepare(plain(), data, *load_hooks("sfp"), state=file, pruning=replace(PRUNING, ratio=0.25))


@pytest.mark.parametrize("hook", ["sfp", "greg-1", "ssl{structure=shape}"])
def test_two_processes_ready_a_network_as_one_does(hook: str, data: Data, tmp_path: Path) -> None:
    options = {"schedule": "cosine:0.05", "batch_size": 540, "keep": "last", "epochs": 6, "hooks": hook}
    alone, together = (train(count, tmp_path, options, False) for count in (1, 2))
    assert isinstance(alone, dict), alone
    assert isinstance(together, dict), together
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for name, tensor in alone["tensors"].items():
        assert torch.allclose(tensor, together["tensors"][name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recover{epochs=1,keep=last,hooks=sfp}", "nothing is pruned behind recover"),
        (pipeline("sfp").replace("keep=last", "keep=best"), "readies the weights of the last step"),
        (
            "prune-filters{ratio=0.5,criterion=learned}",
            "looks at what the hooks of the training before it decided, and",
        ),
        (pipeline("sfp{criterion=learned}"), "doesn't score units by their weights alone"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(text: str, words: str, data: Data, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        compiled(plain(), text, data, tmp_path)


def test_without_data_there_is_no_training(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"step recover\S* needs labelled training data, and there is no training data"
    ):
        compiled(plain(), pipeline("sfp"), None, tmp_path)


@pytest.mark.parametrize("hook", [hook for hook in REGIMES if "{" not in hook])
def test_filters_are_readied_for_prune_filters_and_what_it_can_say_beforehand(hook: str, data: Data) -> None:
    with pytest.raises(UsageError, match=f"the training hook {hook} readies filters .* none stands behind it"):
        prepare(plain(), data, *load_hooks(hook), pruning=None)
    timed: Any = PruneFilters(latency_speedup=1.5, criterion="learned", seed=0)
    with pytest.raises(UsageError, match="prune-filters has a goal in time"):
        prepare(plain(), data, *load_hooks(hook), pruning=timed)


def test_weights_of_other_steps_are_refused() -> None:
    for changes in ({"keep": "best"}, {"ema": 0.9}):
        with pytest.raises(UsageError, match="the training hook greg-1 readies the weights of the last step"):
            Recover(**{"epochs": 1, "keep": "last", "hooks": "greg-1", **changes})


def test_control_arms_are_not_readied(data: Data, tmp_path: Path) -> None:
    """What a regime shrank would be left in a network that is pruned by chance."""
    settings = replace(FAST, controls=("dense", "random"))
    report = compiled(plain(), pipeline("greg-1"), data, tmp_path, settings)
    assert [(control.name, control.zero_fraction) for control in report.controls] == [("dense", 0.0), ("random", 0.0)]
    assert [entry.run for entry in report.ledger if "hooks.0" in entry.options] == [""]
