"""Dense networks that a run trains itself: what is booked, kept, resumed and told, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunec.calibration.data import Data
from prunec.compiler.bundle.bundle_reader import read_bundle
from prunec.compiler.commands.verify_source import same_source
from prunec.compiler.facts.progress import Silent
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import StepInput
from prunec.compiler.fairness import report_card
from prunec.compiler.fairness.comparison_levels import compare_pair
from prunec.compiler.fairness.report_cards import arm_cards
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.recovery.objective import Objective
from prunec.compiler.recovery.schedules import parse_schedule, untrained
from prunec.compiler.report.ledger_part import LedgerEntryPart, chain
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import summary_rows
from prunec.compiler.stages.dense_trainings import implied
from prunec.compiler.stages.driver import compile_model
from prunec.compiler.stages.pretrain_step import Pretrained, pretrain
from prunec.passes import Program, capture
from prunec.passes.errors import UsageError
from prunec.passes.identity import weights_sha256
from prunec.passes.unknown import known
from prunec.runtime.target import Target
from tests.quarters import quarters

BATCH, TRAIN = 32, 86  # of 96 images a tenth, or more, validates
STEPS = TRAIN // BATCH
RECOVER = f"recover{{epochs=1,schedule=constant:0.02,batch_size={BATCH},probe=0}}"
REWIND = f"recover{{epochs=1,schedule=wr,early=pretrain,batch_size={BATCH},probe=0}}"
MASK = "sparsify{pattern=elements,ratio=0.5,allocation=global}"
SNIP = MASK.replace("ratio", "criterion=snip,samples=64,ratio")


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = (nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        return nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)).eval()


def program() -> Program:
    return capture(network(), (torch.zeros(2, 1, 8, 8),))


FAST = Settings(build_engine=False, latency_runs=3, module=network())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return quarters(tmp_path_factory.mktemp("quarters"), 96, 32)


def compiled(pipeline: str, data: Data | None, folder: Path, **changes: Any) -> Report:
    settings = replace(FAST, **changes)
    return compile_model(program(), "cpu", pipeline, data, folder / "b", settings=settings, force=True)


def line(report: Report) -> list[LedgerEntryPart]:
    return chain(known(report.ledger) or ())


def pretrained_by(epochs: int = 2, keep_step: int = STEPS) -> str:
    return f"pretrain{{epochs={epochs},schedule=constant:0.05,keep_step={keep_step}}}"


def test_a_run_trains_its_dense_network_and_goes_back_to_the_weights_of_a_step(data: Data, tmp_path: Path) -> None:
    assert len(data.train) // BATCH == STEPS
    report = compiled(f"{pretrained_by()} {MASK} {REWIND}", data, tmp_path, controls=("random",))
    assert report.passed
    first, mask, rewound = line(report)
    assert (first.stage, first.weights_in, first.weights_out) == ("pretraining", "random", report.model.source_sha256)
    assert (first.epochs, first.steps, first.samples) == (2, 2 * STEPS, 2 * STEPS * BATCH)
    macs = known(first.macs_per_sample)
    assert macs is not None
    assert (macs.forward, macs.backward, macs.teacher) == (report.macs.dense, 2 * report.macs.dense, 0)
    assert (first.options["keep_step"], first.options["batch_size"], first.data) == (STEPS, BATCH, data.sha256)
    assert rewound.options["early_sha256"] not in (first.weights_out, mask.weights_out, weights_sha256(program()))
    told = report.pretraining
    assert (told.by_this_run, told.epochs, told.kept_step, told.optimizer) == (True, 2, STEPS, "SGD")
    assert dict(summary_rows(report))["Dense network"].startswith("trained by this run from random weights, 2 epochs")
    assert [step.name.partition("{")[0] for step in known(report.steps) or ()] == ["dense", "sparsify", "recover"]
    assert "trained itself" in same_source(read_bundle(tmp_path / "b"), program())
    card = report_card(report, "a")
    assert (card.base, card.from_scratch, card.pretraining.epochs) == ("pretrained by the run", False, 2)
    (control,) = report.controls
    by_chance = chain(known(report.ledger) or (), "random")
    assert [entry.stage for entry in by_chance] == ["pretraining", "sparsify", "recover"]
    assert by_chance[1].options["criterion"] == "random"
    assert control.zero_fraction == report.parameters.zero_fraction


def pretrain_step(text: str, data: Data, **given: Any) -> tuple[Program, Program]:
    """The network that a step pretrain leaves of one start, and the one that it kept."""
    pipeline = parse_pipeline(f"{text} {MASK} {REWIND}")
    settings = implied(replace(FAST, resume=bool(given.pop("resume", False))), pipeline, has_data=True)
    settings = replace(settings, progress=given.pop("progress", settings.progress))
    request = Request(program(), Target.parse("cpu"), pipeline, data, Objective(), settings)
    output = pretrain(pipeline.steps[0].options, StepInput(program(), request, 0, (), **given))
    assert isinstance(output.fact, Pretrained)
    return output.program, output.fact.kept


def test_the_weights_of_a_step_are_kept(data: Data) -> None:
    """At one rate an epoch of two is an epoch of one."""
    whole, kept = pretrain_step(pretrained_by(), data)
    short, first = pretrain_step(pretrained_by(1, 0), data)
    assert weights_sha256(kept) == weights_sha256(short)
    assert weights_sha256(first) == weights_sha256(program())
    assert weights_sha256(whole) != weights_sha256(kept)


class Stopping(Silent):
    """Stops a compile behind its first epoch of training."""

    def step(self, done: int, total: int, note: str) -> None:
        if note.startswith("loss"):
            raise KeyboardInterrupt


def test_it_resumes_to_the_bit_with_the_weights_that_were_kept(data: Data, tmp_path: Path) -> None:
    whole = pretrain_step(pretrained_by(), data)
    with pytest.raises(KeyboardInterrupt):
        pretrain_step(pretrained_by(), data, state_folder=tmp_path, progress=Stopping())
    assert (tmp_path / "recover-pretrain.state").exists()
    resumed = pretrain_step(pretrained_by(), data, state_folder=tmp_path, resume=True)
    assert [*map(weights_sha256, resumed)] == [*map(weights_sha256, whole)]


def test_masks_of_random_weights_have_a_control_from_scratch(data: Data, tmp_path: Path) -> None:
    report = compiled(f"pretrain{{epochs=0}} {SNIP} {RECOVER}", data, tmp_path)
    (control,) = report.controls
    assert (control.name, control.epochs, control.schedule) == ("scratch-e", 1, "constant:0.02")
    assert control.zero_fraction == report.parameters.zero_fraction
    first, (drawn, _) = line(report)[0], chain(known(report.ledger) or (), "scratch-e")
    assert (first.epochs, first.samples, first.weights_in, first.seed) == (0, 0, "random", 0)
    assert drawn.weights_out != first.weights_out, "a control that starts from the same weights is none"
    assert dict(summary_rows(report))["Dense network"] == "random weights, drawn by this run"
    card, (arm,) = report_card(report, "snip"), arm_cards(report, "snip")
    assert (card.base, arm.base, card.from_scratch, arm.from_scratch) == ("random", "scratch", True, True)
    assert (arm.structure, arm.zero_fraction) == (card.structure, card.zero_fraction)
    assert compare_pair(card, arm).level == "S3.2", "the samples that were looked at count"


@pytest.mark.parametrize(
    ("pipeline", "controls"),
    [
        (f"{MASK} {RECOVER}", ("scratch-e",)),
        (f"prune-filters{{ratio=0.5}} {MASK} {RECOVER}", ("scratch-e",)),
        (f"{RECOVER} {MASK} {RECOVER}", ()),
        (f"prune-filters{{ratio=0.5}} {RECOVER}", ()),
        (MASK, ()),
    ],
)
def test_which_masks_are_made_at_initialisation(pipeline: str, controls: tuple[str, ...]) -> None:
    steps = parse_pipeline(pipeline)
    settings = Settings(pretraining=untrained())
    assert implied(settings, steps, has_data=True).controls == controls
    assert implied(settings, steps, has_data=False).controls == ()
    assert implied(Settings(), steps, has_data=True).controls == ()
    assert implied(replace(settings, controls=("scratch-e",)), steps, has_data=True).controls == ("scratch-e",)


@pytest.mark.parametrize(
    ("pipeline", "changes", "words"),
    [
        (f"pretrain{{epochs=0}} {MASK}", {"module": None}, "no factory builds it"),
        (
            f"{pretrained_by(keep_step=5)} {MASK} {RECOVER}",
            {},
            f"keep_step is 5, and the training has {2 * STEPS} steps",
        ),
        (
            f"{pretrained_by(keep_step=0)} {MASK} {REWIND}",
            {},
            "begin at epoch 1 of the dense training, and .* at epoch 0",
        ),
        (f"pretrain{{epochs=0}} {MASK} {REWIND}", {}, "derives from the dense network's own"),
        (f"{MASK} {REWIND}", {"pretraining": parse_schedule("constant:0.1", epochs=2)}, "'pretrain' isn't there"),
        (f"pretrain{{epochs=0}} {MASK} {RECOVER}", {"controls": ("scratch-b",)}, "Ask for scratch-e"),
        (
            f"{pretrained_by()} {MASK}",
            {"module": nn.Sequential(nn.Flatten(), nn.Linear(64, 4))},
            "builds another network",
        ),
    ],
)
def test_what_can_not_be_is_refused_before_any_training(
    pipeline: str, changes: dict[str, Any], words: str, data: Data, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        compiled(pipeline, data, tmp_path, **changes)
    assert caught.value.hint or "steps" in words
    assert not (tmp_path / "b.state").exists()


def test_without_data_there_is_no_pretraining(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"step pretrain\S* needs labelled training data"):
        compiled(f"{pretrained_by()} {MASK}", None, tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sparsify pretrain{epochs=0}", "pretrain after sparsify: it makes the network that all other steps work on"),
        ("repeat{n=2}(pretrain{epochs=0} sparsify)", "pretrain after pretrain"),
        ("pretrain{epochs=3}", "3 epochs have no schedule"),
        ("pretrain{epochs=0,schedule=constant:0.1}", "0 epochs have a schedule"),
        ("pretrain{epochs=0,keep_step=3}", "keep_step must be a number of steps of the run, got 3"),
        ("pretrain{epochs=-1}", "epochs must be at least 0"),
        ("pretrain{epochs=3,schedule=lrw}", "derives from the dense network's own"),
    ],
)
def test_pipelines_that_make_no_dense_network_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_pipeline(text)
