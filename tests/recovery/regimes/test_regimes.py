"""What all regimes share: pipelines, resuming, determinism, several processes, cuts that lose nothing, and refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.facts.settings import Settings
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.recovery.recover import DenseNetwork, Objective, Recover, Recovered, StateOptions, recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.stages.driver import compile_model
from prunec.passes.errors import InputError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown
from prunec.runtime.evaluate import top1
from tests.recovery.launching import run_together
from tests.recovery.networks import same, state
from tests.recovery.regimes.networks import Concatenated, Gated, Unscaled
from tests.recovery.regimes.regime_runs import GLOBAL, LAST, REGIMES, UNIFORM, difference, pruned, trained
from tests.recovery.regimes.toys import IMAGE, PRUNING, plain, prepare, residual
from tests.recovery.test_distributed import train

#: What a compile need not measure here.
FAST = Settings(build_engine=False, latency_runs=3, pretraining=parse_schedule("constant:0.05", epochs=5))
TRAINING = "schedule=constant:0.05,batch_size=32,probe=0"


def compiled(program: Program, text: str, data: Data | None, folder: Path, settings: Settings = FAST) -> Any:
    """The report of a pipeline."""
    return compile_model(program, "cpu", text, data, folder / "out.bundle", settings=settings)


def pipeline(hook: str, prune: str = "prune-filters{ratio=0.5,criterion=learned}") -> str:
    return (
        f'recover{{epochs=2,keep=last,hooks="{hook}",{TRAINING}}} {prune} '
        f"recover{{epochs=1,{TRAINING}}} re-estimate-batchnorm"
    )


@pytest.mark.parametrize("hook", REGIMES)
def test_a_pipeline_trains_prunes_and_reports(hook: str, data: Data, tmp_path: Path) -> None:
    allocation, name = REGIMES[hook].allocation, hook.partition("{")[0]
    text = pipeline(hook, f"prune-filters{{ratio=0.5,criterion=learned,allocation={allocation}}}")
    report = compiled(plain(), text, data, tmp_path)
    assert not isinstance(report.pruning, Unknown)
    assert report.pruning.criterion == "learned"
    if allocation == "auto":
        assert [group.kept for group in report.pruning.groups] == [4, 4]
    assert report.extensions[name]
    assert hook in report.pipeline
    assert report.macs.compiled < 0.6 * report.macs.dense
    assert [entry.stage for entry in report.ledger] == [
        "pretraining", "recover", "prune-filters", "recover", "re-estimate-batchnorm",
    ]  # fmt: skip
    assert name in str(report.ledger[1].options)


@pytest.mark.parametrize("hook", ["sfp", "greg-1", "network-slimming{penalty=0.01}", "gal"])
def test_one_ratio_with_a_global_choice_leaves_the_macs_of_that_ratio(hook: str, data: Data, tmp_path: Path) -> None:
    asked = "prune-filters{ratio=0.5,allocation=global,criterion=learned}"
    report = compiled(plain(), pipeline(hook, asked), data, tmp_path)
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


@pytest.mark.parametrize("hook", REGIMES)
def test_it_goes_on_to_the_bit_and_runs_alike_again(hook: str, data: Data, tmp_path: Path) -> None:
    (declared,), pruning = load_hooks(hook), REGIMES[hook]
    options, calls = replace(LAST, epochs=2), 0

    class Stopped(Exception):
        pass

    def run(stop_at: int, **others: Any) -> Recovered:
        nonlocal calls
        calls = 0

        def metric(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise Stopped
            return top1(outputs, labels)

        metric.__qualname__ = "metric"
        return trained(plain(), data, declared, pruning, options, objective=Objective(metric=metric), **others)

    whole, again = run(0), run(0)
    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=4)
    with pytest.raises(InputError, match="metric"):
        run(26, state=file)  # within the second epoch
    resumed = run(0, state=file)
    assert resumed.resumed
    for other in (resumed, again):
        assert same(state(whole.program), state(other.program))
        before, after = whole.hooks[0], other.hooks[0]
        assert (before.samples, before.macs, before.figures) == (after.samples, after.macs, after.figures)
        torch.testing.assert_close(dict(before.decided), dict(after.decided), rtol=0, atol=0)


@pytest.mark.parametrize("hook", REGIMES)
def test_it_changes_the_training(hook: str, data: Data) -> None:
    (declared,), options = load_hooks(hook), replace(LAST, epochs=2)
    runs = [
        trained(plain(), data, declared, REGIMES[hook], options),
        recover(plain(), options, data, dense=DenseNetwork(plain())),
    ]
    assert not same(state(runs[0].program), state(runs[1].program))


@pytest.mark.parametrize(
    ("network", "hook", "pruning"),
    [
        *((network, "cnn-fcf", UNIFORM) for network in (Concatenated, Unscaled, Gated)),
        *((network, "gal", GLOBAL) for network in (Concatenated, Unscaled, Gated)),
        *((Gated, hook, GLOBAL) for hook in ("cnn-fcf", "dcp", "resrep")),
    ],
)
def test_what_is_gone_is_cut_without_loss_and_nothing_gone_is_kept(
    network: Any, hook: str, pruning: PruneFilters, data: Data
) -> None:
    torch.manual_seed(0)
    program = capture(network().eval(), IMAGE)
    result = trained(program, data, load_hooks(hook)[0], pruning, replace(LAST, epochs=1))
    behind = pruned(result, pruning)
    assert difference(behind.program, result.program) < 1e-10
    figures: Any = result.hooks[0].figures
    without = {"resrep": "macs_without_masked", "gal": "macs_without_zeros"}
    if hook in without:
        assert figures[without[hook]] == behind.program.macs() < program.macs()
    gone = figures.get("gone", figures.get("zeros"))
    if gone is not None:
        assert gone == sum(row["width"] - row["kept"] for row in behind.stats["groups"])
        assert figures.get("masked", gone) == gone
        assert figures.get("gone_by_the_lasso_alone", 0) == 0


def test_a_state_of_another_pruning_is_refused(data: Data, tmp_path: Path) -> None:
    file, options = StateOptions(tmp_path / "state.pt", resume=True), replace(LAST, epochs=1)
    prepare(plain(), data, *load_hooks("sfp"), state=file, options=options)
    with pytest.raises(InputError, match=r"pruning was prune-filters\{ratio=0.5"):
        prepare(plain(), data, *load_hooks("sfp"), state=file, options=options, pruning=replace(PRUNING, ratio=0.25))


@pytest.mark.parametrize("hook", ["sfp", "greg-1", "ssl{structure=shape}"])
def test_two_processes_ready_a_network_as_one_does(hook: str, data: Data, tmp_path: Path) -> None:
    options = {"schedule": "cosine:0.05", "batch_size": 540, "keep": "last", "epochs": 6, "hooks": hook}
    alone, together = (train(count, tmp_path, options, False) for count in (1, 2))
    assert isinstance(alone, dict), alone
    assert isinstance(together, dict), together
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for name, tensor in alone["tensors"].items():
        assert torch.allclose(tensor, together["tensors"][name], rtol=1e-3, atol=1e-5), name


def test_two_processes_decide_alike(data: Data, tmp_path: Path) -> None:
    """Every process decides the same by every regime, which the script checks."""
    output, module = tmp_path / "decided.pt", "tests.recovery.regimes.distributed_regimes"
    failure = run_together(2, module, [str(tmp_path), str(output)])
    assert not failure, failure
    told = torch.load(output)
    assert told["processes"] == 2
    assert told["decided"].keys() == REGIMES.keys()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recover{epochs=1,keep=last,hooks=sfp}", "nothing is pruned behind recover"),
        (pipeline("sfp").replace("keep=last", "keep=best"), "sfp readies the weights of the last step"),
        (pipeline("resrep").replace("keep=last", "keep=best"), "resrep readies the weights of the last step"),
        (pipeline("resrep"), "resrep ranks the filters of all layers together"),
        (pipeline("gal"), "gal ranks the filters of all layers together"),
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
    assert not (tmp_path / "out.bundle").exists()


def test_without_data_there_is_no_training(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"step recover\S* needs labelled training data, and there is no training data"
    ):
        compiled(plain(), pipeline("sfp"), None, tmp_path)


@pytest.mark.parametrize("hook", [hook for hook in REGIMES if "{" not in hook])
def test_filters_are_readied_for_prune_filters_and_what_it_can_say_beforehand(hook: str, data: Data) -> None:
    (declared,) = load_hooks(hook)
    with pytest.raises(UsageError, match=f"the training hook {hook} readies filters .* none stands behind it"):
        trained(plain(), data, declared, None)
    timed: Any = PruneFilters(latency_speedup=1.5, criterion="learned", seed=0)
    with pytest.raises(UsageError, match="prune-filters has a goal in time"):
        trained(plain(), data, declared, timed)


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
