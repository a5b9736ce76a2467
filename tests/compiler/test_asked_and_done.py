"""A step that reaches less than half of what it was asked for fails; one that asks for nothing is a note."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from prunec.calibration.data import Data
from prunec.compiler.facts import Aim, StepInput
from prunec.compiler.facts.progress import Silent
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.settings import Settings
from prunec.compiler.gates.judging import judge, judged
from prunec.compiler.gates.own_gates import MinDonePercent
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.recovery.objective import Objective
from prunec.compiler.report.network_parts import AimPart, StepPart
from prunec.compiler.report.report import Report
from prunec.compiler.stages.driver import compile_model
from prunec.compiler.stages.step_runs import dense_fact, run_steps
from prunec.passes import Program, PruneFilters, Sparsify, capture
from prunec.passes.unknown import Unknown
from prunec.runtime.target import Target
from tests.compiler.sample_report import sample_report
from tests.plugins.install import installed

FAST = Settings(latency_runs=3, build_engine=False)


def network(*widths: int) -> Program:
    """Convolutions of these widths after an image of one channel, and a classifier of 4."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, width in zip((1, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4))
    return capture(nn.Sequential(*layers, *head), (torch.randn(2, 1, 8, 8),))


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def steps_of(program: Program, pipeline: str, data: Data | None = None) -> tuple[StepInput, list[str]]:
    """The state after a pipeline's steps, and what the user was told."""
    progress = Noting()
    asked = replace(FAST, progress=progress)
    request = Request(program, Target.parse("cpu"), parse_pipeline(pipeline), data, Objective(), asked)
    return run_steps(StepInput(program, request, 0, (dense_fact(request),)), request.pipeline), progress.notes


@pytest.mark.parametrize(
    ("options", "got", "reason"),
    [
        ({"ratio": 0.5}, 16, ""),
        ({"ratio": 0.5, "min_channels": 16}, 0, "min_channels=16 kept the others"),
        ({"ratio": 0.5, "min_channels": 12}, 8, "min_channels=12 kept the others"),
        ({"ratio": 0.1, "round_to": 8}, 0, "round_to=8 kept the others"),
        ({"ratio": {"0": 0.5}}, 8, ""),
        ({"ratio": {"6": 0.5}}, 0, "the layers that the ratios name can't be pruned"),
        ({"ratio": 0.5, "ignore": ("0",)}, 8, ""),
        ({"ratio": 0.5, "ignore": ("0",), "min_channels": 16}, 0, "min_channels=16 kept the others"),
    ],
)
def test_filters_asked_for_and_removed(options: dict[str, Any], got: int, reason: str) -> None:
    program = network(16, 16)
    result = PruneFilters(**options).run(program)
    aim = result.aim
    assert aim is not None
    removed = sum(group["width"] - group["kept"] for group in result.stats["groups"])
    assert (aim.what, aim.got, aim.reason) == ("filters removed", got, reason)
    assert aim.got == removed
    assert (aim.share >= 0.5) == (got >= 0.5 * aim.asked)
    assert aim.share < 0.5 or not reason or aim.got < aim.asked


@settings(max_examples=20)
@given(ratio=st.floats(0, 0.99), round_to=st.integers(1, 8), least=st.integers(1, 12))
def test_what_was_reached_is_what_is_gone(ratio: float, round_to: int, least: int) -> None:
    result = PruneFilters(ratio=ratio, round_to=round_to, min_channels=least).run(network(12))
    assert result.aim is not None
    assert result.aim.got == 12 - result.program.parameters()["0.weight"].shape[0]
    exact = PruneFilters(ratio=ratio).run(network(12))
    assert result.aim.asked == 12 - exact.program.parameters()["0.weight"].shape[0]
    assert (result.aim.asked == 0) == (ratio == 0)


@given(speedup=st.floats(1, 3))
@example(speedup=1 + 2**-52)  # less than the noise of the sums
@settings(max_examples=10)
def test_a_speedup_that_can_be_is_reached(speedup: float) -> None:
    aim = PruneFilters(speedup=speedup).run(network(12, 12)).aim
    assert aim is not None
    assert (aim.what, aim.reason) == ("MACs removed", "")
    assert aim.got >= aim.asked * (1 - 1e-9)


@pytest.mark.parametrize(
    ("widths", "ignore", "asked", "got"),
    [
        ((16, 16), (), 3, 2),  # of the first layer, which reads one channel, it is asked in vain
        ((16, 16), ("2",), 2, 1),
        ((6, 6), (), 3, 0),
        ((16, 16), ("*",), 1, 0),
        ((16, 16), ("2", "6"), 1, 0),
    ],
)
def test_layers_asked_for_and_made_two_four(
    widths: tuple[int, ...], ignore: tuple[str, ...], asked: int, got: int
) -> None:
    aim = Sparsify(ignore=ignore).run(network(*widths)).aim
    assert aim is not None
    assert (aim.what, aim.asked, aim.got) == ("layers made 2:4", asked, got)
    assert bool(aim.reason) == (got < asked)


def test_depthwise_convolutions_are_not_asked_for_two_four() -> None:
    separable = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=8))
    aim = Sparsify().run(capture(separable, (torch.randn(2, 4, 8, 8),))).aim
    assert aim == Aim("layers made 2:4", 1, 1)


def report_of(*aims: AimPart | Unknown | None) -> Report:
    fields = {"macs": 1, "nonzero_weights": 1, "predicted_ms": 1.0, "accuracy": 0.5}
    return sample_report(steps=tuple(StepPart(name="x", aim=aim, **fields) for aim in aims))


@pytest.mark.parametrize(
    ("asked", "got", "verdict"),
    [(8, 8, "passed"), (8, 4, "passed"), (8, 3, "failed"), (8, 0, "failed"), (0, 0, "passed"), (8, 99, "passed")],
)
def test_less_than_half_fails_by_the_sparsity_gate(asked: int, got: int, verdict: str) -> None:
    report = report_of(None, *(AimPart(what="x", asked=a, got=g, reason="") for a, g in ((4, 4), (asked, got))))
    found = judged(report, [MinDonePercent()], allow_unknown=False)
    assert found.gates[0].verdict == verdict
    assert found.exit_code == (0 if verdict == "passed" else 7)
    assert judged(report, [MinDonePercent(0)], allow_unknown=False).exit_code == 0


def test_reports_of_older_versions_do_not_know() -> None:
    assert judge(MinDonePercent(), sample_report()).verdict == "unknown"
    assert judge(MinDonePercent(), report_of(None)).verdict == "passed"


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("prune-filters{ratio=0}", "asked for no filters removed: the network stays as it was"),
        ("prune-filters{speedup=1}", "asked for no MACs removed"),
        ("permute{seconds=1}", "no order of channels was found"),
        ("fold-parameters", "nothing was folded"),
        ("prune-filters{ratio=0.5,min_channels=16}", "0 of 16 filters removed (min_channels=16 kept the others)"),
        ("sparsify{ignore=[*]}", "0 of 1 layers made 2:4 (left dense by the option ignore)"),
    ],
)
def test_the_user_is_told_at_once(pipeline: str, words: str) -> None:
    after, notes = steps_of(network(16, 16) if "permute" not in pipeline else network(4, 4), pipeline)
    assert len(notes) == 1
    assert notes[0].startswith(f"{pipeline.split('{', maxsplit=1)[0]}")
    assert words in notes[0]
    assert after.history[-1].note in notes[0]
    assert steps_of(network(16, 16), "prune-filters{ratio=0.5}")[1] == []


def test_a_compile_that_prunes_nothing_fails_unless_that_is_allowed(tmp_path: Path) -> None:
    pipeline = "prune-filters{ratio=0.5,min_channels=16}"
    report = compile_model(network(16, 16), "cpu", pipeline, output=tmp_path / "a", settings=FAST)
    assert (report.status, report.exit_code) == ("FAILED", 7)
    assert [gate.name for gate in report.gates if gate.verdict == "failed"] == ["min_done_percent"]
    assert Report.from_json((tmp_path / "a" / "report.json").read_text()) == report
    allowed = replace(FAST, allow_noop=True)
    report = compile_model(network(16, 16), "cpu", pipeline, output=tmp_path / "b", settings=allowed)
    assert (report.exit_code, report.gates[-1].limit, report.gates[-1].value) == (0, 0, 0)


@pytest.fixture
def odd_step(tmp_path: Path) -> Any:
    with installed(tmp_path, "prunec.steps", odd="tests.plugins.odd_step:STEP"):
        yield


@pytest.mark.usefixtures("odd_step")
def test_a_plug_in_that_does_less_than_half_fails_too(tmp_path: Path) -> None:
    report = compile_model(network(8), "cpu", "odd{does=a-third}", output=tmp_path / "a", settings=FAST)
    assert report.exit_code == 7
    assert isinstance(report.steps, tuple)
    assert report.steps[1].aim == AimPart(what="layers painted", asked=3, got=1, reason="there was no paint")


@pytest.mark.parametrize("amounts", [(-1, 0), (1, float("nan")), (float("inf"), 1)])
def test_amounts_are_numbers(amounts: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="amounts must be numbers"):
        Aim("things", *amounts)
