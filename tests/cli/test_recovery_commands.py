"""Retraining from the command line: default schedule, rewinding, resume, control arms, seeds, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prunec.compiler.cli.main import run
from prunec.compiler.recovery.recover import StateOptions, recover
from tests.cli.conftest import Prunec

COMPILE = ("compile", "model.pt", "--target", "cpu")
PRETRAINING = 'pretraining = {epochs = 4, schedule = "step:0=0.1,2=0.01"}'


def edit(project: Path, *replacements: tuple[str, str]) -> None:
    config = project / "prunec.toml"
    text = config.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)


def report(folder: Path | str = "model.cpu.bundle") -> Any:
    return json.loads((Path(folder) / "report.json").read_text())


def test_without_a_schedule_the_pruning_ratio_chooses_and_the_report_says_why(prunec: Prunec, project: Path) -> None:
    edit(project, ('schedule = "constant:0.05"\n', ""), ("[data]", f"{PRETRAINING}\n[data]"))
    outcome = prunec(*COMPILE)
    assert outcome.code == 0
    recovery = report()["recovery"]
    assert recovery["schedule"] == "clr:0.1", "more than 65 % of the MACs are gone"
    assert "1 times 0.1, the highest rate of the dense training" in recovery["schedule_reason"]
    assert report()["pruning"]["base"] == "pretrained"
    diagnosis = recovery["diagnosis"]
    assert diagnosis["evidence"]["probe_epochs"] == 1
    assert set(diagnosis) == {"verdict", "evidence", "advice"}
    page = Path("model.cpu.bundle/report.html").read_text()
    assert recovery["schedule_reason"] in page
    assert f"{diagnosis['verdict']}: " in page
    assert f"1 epochs of clr:0.1 ({recovery['schedule_reason']})" in outcome.out
    assert f"{diagnosis['verdict']}: " in outcome.out


def test_random_weights_are_said_to_be_random(prunec: Prunec, project: Path) -> None:
    edit(project, ("[data]", "pretraining = {epochs = 0}\n[data]"))
    assert prunec(*COMPILE).code == 0
    assert report()["pruning"]["base"] == "random"
    told = {"epochs": 0.0, "learning_rates": [], "optimizer": None, "by_this_run": False, "kept_step": None}
    assert report()["pretraining"] == told


PRUNING = "[recipe.prune-filters]\nratio = 0.5\nround_to = 4\nmin_channels = 1"
PRETRAIN = '[recipe.pretrain]\nepochs = 1\nschedule = "constant:0.1"'


def test_a_ticket_has_its_dense_network_trained_by_the_table(prunec: Prunec, project: Path) -> None:
    edit(project, (PRUNING, PRETRAIN))
    outcome = prunec(*COMPILE, "--method", "lottery-ticket", "--ratio", "0.2", "--no-engine")
    assert outcome.code == 0, outcome.err
    assert report()["pretraining"]["by_this_run"] is True
    assert report()["plausibility"] is None, "its own data are those that it was trained on"
    assert report()["recovery"]["early"] == "pretrain"
    assert report()["recovery"]["learning_rates"] == [[0.0, 0.1]]


def test_random_weights_to_mask_are_drawn_from_the_factory(prunec: Prunec, project: Path) -> None:
    edit(project, (PRUNING, PRETRAIN))
    snip = prunec(*COMPILE, "--method", "snip", "--dry-run")
    assert "pretrain{epochs=0} sparsify{" in snip.out
    assert "the control arm scratch-e runs, too" in snip.out + snip.err
    edit(project, ('factory = "model:network"', ""))
    outcome = prunec(*COMPILE, "--method", "snip", "--dry-run")
    assert (outcome.code, "no factory builds it" in outcome.err) == (2, True)


@pytest.mark.parametrize("schedule", ["ft", "lrw"])
def test_schedules_that_derive_from_the_dense_training_need_it(prunec: Prunec, project: Path, schedule: str) -> None:
    edit(project, ("constant:0.05", schedule))
    outcome = prunec(*COMPILE)
    assert outcome.code == 2
    assert "pretraining" in outcome.err
    edit(project, ("[data]", f"{PRETRAINING}\n[data]"))
    assert prunec(*COMPILE).code == 0
    assert report()["recovery"]["learning_rates"] == [[0.0, 0.01]]


def test_weight_rewinding_starts_from_the_early_weights(prunec: Prunec, project: Path) -> None:
    early = torch.load("model.pt")
    early = {name: tensor * 1.5 if tensor.is_floating_point() else tensor for name, tensor in early.items()}
    torch.save(early, "early.pt")
    edit(project, ("[data]", f"{PRETRAINING}\n[data]"), ('"constant:0.05"', '"wr"\nearly = "early.pt"'))
    assert prunec(*COMPILE).code == 0
    assert report()["recovery"]["early"] == "early.pt"
    rewound = Path("model.cpu.bundle/model.pt2").read_bytes()
    edit(project, ('"wr"\nearly = "early.pt"', '"lrw"'))
    assert prunec(*COMPILE, "--force").code == 0
    assert Path("model.cpu.bundle/model.pt2").read_bytes() != rewound


@pytest.mark.parametrize(
    ("schedule", "code", "words"),
    [
        ('"wr"', 2, "early must be given for the schedule wr"),
        ('"lrw"\nearly = "model.pt"', 2, "early must be given for the schedule wr"),
        ('"wr"\nearly = "missing.pt"', 9, "missing.pt"),
        ('"wr"\nearly = "other.pt"', 9, "other.pt"),
        ('"P3F1,1e-2"', 2, "pruned at epoch 3 of its dense training, and this checkpoint was trained for 4 epochs"),
        ('"step:0=0.1,5=0.01"', 2, "never reaches"),
    ],
)
def test_what_no_retraining_can_follow_is_refused(
    prunec: Prunec, project: Path, schedule: str, code: int, words: str
) -> None:
    torch.save({"weight": torch.zeros(3)}, "other.pt")
    edit(project, ("[data]", f"{PRETRAINING}\n[data]"), ('"constant:0.05"', schedule))
    outcome = prunec(*COMPILE)
    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert not list(project.glob("*.bundle*"))


@pytest.mark.usefixtures("exported_anew")
def test_resume_goes_on_with_the_same_recipe_only(
    prunec: Prunec, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prunec(*COMPILE, "--epochs", "3", "-o", "whole").code == 0
    with monkeypatch.context() as patch:
        patch.setattr("prunec.compiler.stages.recover_step.recover", _stopping_after(2))
        interrupted = prunec(*COMPILE, "--epochs", "3")
    assert interrupted.code == 130, interrupted.err
    assert "1/3" in interrupted.err
    assert Path("model.cpu.bundle.state/recover-0.state").is_file()
    refused = prunec(*COMPILE, "--epochs", "4", "--resume")
    assert refused.code == 9
    assert "epochs was 3 and is 4" in refused.err
    assert prunec(*COMPILE, "--epochs", "3", "--resume").code == 0
    assert not Path("model.cpu.bundle.state").exists()
    assert report()["recovery"]["resumed"]
    for name in ("model.onnx", "model.pt2"):
        assert (Path("whole") / name).read_bytes() == (Path("model.cpu.bundle") / name).read_bytes()


def _stopping_after(epochs: int) -> Any:
    def stop(*arguments: Any, progress: Any, **others: Any) -> Any:
        def watch(record: Any, program: Any) -> None:
            progress(record, program)
            if record.epoch == epochs:
                raise KeyboardInterrupt

        assert isinstance(others["state"], StateOptions)
        return recover(*arguments, progress=watch, **others)

    return stop


def test_a_divergence_keeps_the_last_good_state(prunec: Prunec, project: Path) -> None:
    edit(project, ('"constant:0.05"', '"step:0=0.05,1=1e9"'))
    outcome = prunec(*COMPILE, "--epochs", "3")
    assert outcome.code == 11
    assert "epoch 2 of 3, step" in outcome.err
    assert "learning rate 1e+09" in outcome.err
    state = torch.load("model.cpu.bundle.state/recover-0.state")["state"]
    assert len(state["curve"]) == 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["tensors"].values())
    assert "recover-0.state" in outcome.err


def test_control_arms_and_seeds_are_reported(prunec: Prunec, project: Path) -> None:
    edit(project, ("[data]", f"{PRETRAINING}\n[data]"))
    arms = ("scratch-e", "scratch-b", "dense", "random")
    outcome = prunec(*COMPILE, "--seeds", "3", *(word for arm in arms for word in ("--control", arm)))
    assert outcome.code == 0, outcome.err
    found = report()
    controls = {control["name"]: control for control in found["controls"]}
    assert tuple(controls) == arms
    speedup = found["macs"]["speedup"]
    assert controls["scratch-e"]["epochs"] == 4 + 1
    assert controls["scratch-b"]["epochs"] == round(4 * speedup) + 1
    assert controls["scratch-e"]["schedule"] == "step:0=0.1,2.5=0.01"
    assert controls["dense"]["epochs"] == controls["random"]["epochs"] == 1
    assert all(0 <= control["accuracy"] <= 1 for control in controls.values())
    assert [control["note"] for control in controls.values()] == [""] * 4
    page = Path("model.cpu.bundle/report.html").read_text()
    assert all(f"Control {arm}" in page for arm in arms)
    assert all(f"Control {arm}" in outcome.out for arm in arms)
    assert "top1 by seed" in outcome.out
    assert [run["seed"] for run in found["runs"]] == [0, 1, 2]
    accuracies = [run["accuracy"] for run in found["runs"]]
    assert found["runs_summary"]["mean"] == pytest.approx(sum(accuracies) / 3)
    assert found["runs_summary"]["standard_deviation"] >= 0
    alone = prunec(*COMPILE, "--seed", "1", "-o", "alone")
    assert alone.code == 0
    assert report("alone")["accuracy"]["recovered"] == accuracies[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--control", "scratch"), "no control arm 'scratch'"),
        (("--control", "scratch-e"), "pretraining"),
        (("--control", "dense", "--epochs", "0"), "need a recovery"),
    ],
)
def test_controls_that_can_t_be_run_are_refused(
    prunec: Prunec, project: Path, flags: tuple[str, ...], words: str
) -> None:
    outcome = prunec(*COMPILE, *flags)
    assert outcome.code == 2
    assert words in outcome.err
    assert not list(project.glob("*.bundle*"))


def test_tensorboard_gets_the_curve(prunec: Prunec, project: Path) -> None:
    assert prunec(*COMPILE, "--epochs", "2", "--tensorboard", "board").code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator("board")
    events.Reload()
    curve = report()["recovery"]["curve"]
    written = [event.value for event in events.Scalars("metric/validation")]
    assert written == pytest.approx([point["validation"] for point in curve])


def test_a_probe_shows_a_learning_rate_that_is_far_too_small(prunec: Prunec, project: Path) -> None:
    edit(
        project, ('"constant:0.05"', '"constant:1e-5"\nprobe = 6\nmomentum = 0.9'), ("[data]", f"{PRETRAINING}\n[data]")
    )
    outcome = prunec(*COMPILE, "--epochs", "2")
    assert outcome.code == 0
    diagnosis = report()["recovery"]["diagnosis"]
    assert diagnosis["verdict"] == "under-trained"
    assert diagnosis["evidence"]["probe_learning_rate"] == pytest.approx(0.02), "a fifth of the dense training's 0.1"
    assert diagnosis["advice"][0].startswith("decay the learning rate to zero: recover{epochs=2,")
    page = Path("model.cpu.bundle/report.html").read_text()
    for advice in diagnosis["advice"]:
        assert advice in page.replace("&#34;", '"')
        assert advice in outcome.out


def test_without_a_probe_nothing_is_blamed_on_pruning(prunec: Prunec, project: Path) -> None:
    edit(project, ('"constant:0.05"', '"constant:0.05"\nprobe = 0'))
    assert prunec(*COMPILE, "--epochs", "2").code == 0
    diagnosis = report()["recovery"]["diagnosis"]
    assert diagnosis["verdict"] in ("not known", "converged")
    assert diagnosis["evidence"]["probe_gain"] is None
    assert report()["reasons"]["recovery.diagnosis.evidence.probe_gain"] == "no probe was run."


def test_two_processes_write_one_bundle(project: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "prunec.compiler", *COMPILE, "--epochs", "2", "--control", "dense"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PASSED |") == 1
    assert report()["recovery"]["processes"] == 2
    assert done.stderr.count("load the data") == 1
    assert not list(project.glob("*.state"))
    assert run(["verify", "model.cpu.bundle"]) == 0
