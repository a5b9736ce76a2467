"""The whole way on a small network and small data: what compile writes, and what it says."""

import gc
import json
import tomllib
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.bundle.bundle_reader import read_bundle
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.facts.outcome import NO_CPU_LATENCY_ASKED
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import StepFact, StepInput
from prunec.compiler.pipeline.pipeline import Pipeline, Step, parse_pipeline
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.recovery.objective import Objective
from prunec.compiler.recovery.optimizer_kinds import OwnOptimizer
from prunec.compiler.recovery.recover import recover
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import HookFact, Recovered, Retraining
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.report.assemble import told_by_plug_ins
from prunec.compiler.report.engine_facts import latency_request
from prunec.compiler.report.engine_parts import LatencyRequestPart
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import report_line, summary_lines
from prunec.compiler.stages import measurement, recover_step
from prunec.compiler.stages.driver import compile_model
from prunec.compiler.stages.step_runs import dense_fact, run_steps
from prunec.passes import Program, capture
from prunec.passes.errors import NumericMismatchError, UnsupportedModelError, UsageError
from prunec.passes.plan import PruningPlan
from prunec.passes.rewrite import apply_plan_to_program
from prunec.passes.tensors import fingerprint
from prunec.passes.two_four import is_two_four
from prunec.passes.unknown import Unknown, known, reason_of
from prunec.runtime.target import Target
from tests.passes.test_rules import StandardisedConv
from tests.plugins.install import installed

PIPELINE = (
    "prune-filters{ratio=0.5,round_to=4} permute{seconds=2} sparsify "
    "recover{epochs=3,schedule=constant:0.05,batch_size=32}"
)
FAST = Settings(latency_runs=10, cpu_latency=True)
UNCHECKED = replace(FAST, verify_each=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """300 + 100 grey images of 8x8 whose class is the bright quadrant."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 4, count)
        images = rng.integers(0, 60, (count, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 120
        return images.astype(np.uint8), labels

    train, test = split(300), split(100)
    np.savez(
        folder / "data.npz", train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1]
    )
    return load_data(DataConfig(train="npz:data.npz", test="npz:data.npz"), folder, seed=0)


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    return capture(network, (torch.randn(2, 1, 8, 8),))


@pytest.fixture(scope="module")
def compiled(program: Program, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    output = tmp_path_factory.mktemp("out") / "net.bundle"
    return compile_model(program, "a100-2:4", PIPELINE, data, output, settings=FAST), output


def test_the_bundle_holds_every_promised_file_and_is_intact(compiled: tuple[Report, Path]) -> None:
    report, output = compiled
    expected = {
        "model.onnx", "model.fp16.onnx", "model.pt2", "engine.rtx", "plan.json", "recipe.toml", "report.json",
        "report.html", "layers.csv", "manifest.json",
    }  # fmt: skip
    assert {path.name for path in output.iterdir()} == expected
    bundle = read_bundle(output)
    assert bundle.check_hashes() == []
    assert bundle.report == report
    assert report.passed


@pytest.mark.usefixtures("exported_anew")
def test_compiles_of_several_threads_give_what_one_gives(program: Program, data: Data, tmp_path: Path) -> None:
    def compiled_by_a_thread(number: int) -> bytes:
        output = tmp_path / f"{number}.bundle"
        pipeline = "prune-filters{ratio=0.5} recover{epochs=1,schedule=constant:0.05}"
        assert compile_model(program, "cpu", pipeline, data, output, settings=FAST).passed
        return (output / "model.onnx").read_bytes()

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(compiled_by_a_thread, range(3)))) == 1


def test_recovery_learns_what_pruning_lost(compiled: tuple[Report, Path]) -> None:
    accuracy = compiled[0].accuracy
    assert not isinstance(accuracy.recovered, Unknown)
    assert accuracy.recovered > 0.9
    assert accuracy.exported == pytest.approx(accuracy.recovered, abs=0.02)
    assert isinstance(accuracy.engine, Unknown)


def test_every_eligible_layer_is_two_four_in_the_saved_program_and_the_onnx(compiled: tuple[Report, Path]) -> None:
    report, output = compiled
    layers = {layer.name: layer.sparsity for layer in report.layers}
    assert {name for name, entry in layers.items() if entry is not None and entry.valid} == {"3", "7"}
    assert layers["0"] is not None
    assert "input channels" in layers["0"].reason
    saved = Program.load(output / "model.pt2")
    assert set(saved.masks) == {"3.weight", "7.weight"}
    assert all(is_two_four(saved.parameters()[name]) for name in saved.masks)
    onnx.checker.check_model(output / "model.fp16.onnx", full_check=True)


def test_permutation_is_reported_layer_by_layer(compiled: tuple[Report, Path]) -> None:
    report, folder = compiled
    assert report.permutation is not None
    assert report.permutation.refused == {}
    sparse = [
        layer.sparsity for layer in report.layers if not isinstance(layer.sparsity, Unknown) and layer.sparsity.eligible
    ]
    assert sparse
    for layer in sparse:
        assert layer.retained_magnitude is not None
        assert layer.retained_unpermuted is not None
        assert not isinstance(layer.efficacy, Unknown)
        assert layer.retained_magnitude >= layer.retained_unpermuted - 1e-3
    assert "retained_unpermuted" in (folder / "layers.csv").read_text().splitlines()[0]


def test_plan_replays_on_the_dense_program(compiled: tuple[Report, Path], program: Program) -> None:
    report, output = compiled
    plan = PruningPlan.from_json((output / "plan.json").read_text())
    assert apply_plan_to_program(program, plan).macs() == report.macs.compiled


def test_latency_is_measured_on_this_cpu_and_null_for_the_device(compiled: tuple[Report, Path]) -> None:
    report, _ = compiled
    assert isinstance(report.latency, Unknown)
    assert report.latency_cpu is not None
    assert (
        report.latency_cpu.speedup_interval[0] <= report.latency_cpu.speedup <= report.latency_cpu.speedup_interval[1]
    )
    assert "latency" in report.reasons


def test_this_cpu_is_not_timed_for_another_device_unless_it_is_asked_for(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(*_: object) -> None:
        raise AssertionError("this CPU was timed")

    monkeypatch.setattr(measurement, "_latency_on_cpu", timed)
    settings = replace(FAST, build_engine=False, cpu_latency=False, latency_batch=3)
    report = compile_model(program, "a100-dense", "prune-filters{ratio=0.5}", None, tmp_path / "b", settings=settings)
    assert report.latency_cpu == NO_CPU_LATENCY_ASKED
    assert "--cpu-latency" in report.reasons["latency_cpu"]
    assert "measured" not in report_line(report)
    assert latency_request(report) == LatencyRequestPart(batch=3, runs=10, threads=1), "what `prunec build` will take"
    assert any("not measured" in line for line in summary_lines(report) if line.startswith("Measured speed-up"))


@pytest.mark.usefixtures("exported_anew")
def test_same_inputs_give_the_same_bytes(program: Program, data: Data, tmp_path: Path) -> None:
    settings = replace(FAST, build_engine=False)
    target, names = "a100-dense", ("a", "b")
    reports = [compile_model(program, target, PIPELINE, data, tmp_path / name, settings=settings) for name in names]
    for name in ("model.onnx", "model.pt2", "plan.json", "recipe.toml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert reports[0].deterministic_part() == reports[1].deterministic_part()


def test_without_data_there_is_no_accuracy_and_the_report_says_why(program: Program, tmp_path: Path) -> None:
    given, settings = program.clone().train(), replace(FAST, seed=7)
    report = compile_model(given, "cpu", "prune-filters{ratio=0.5}", None, tmp_path / "b", settings=settings)
    assert report.passed
    assert isinstance(report.accuracy.dense, Unknown)
    assert report.reasons["accuracy"]
    assert isinstance(report.recovery, Unknown)
    recipe = tomllib.loads((tmp_path / "b" / "recipe.toml").read_text())["recipe"]
    assert recipe == {"seed": 7, "pipeline": report.pipeline}
    assert given.training, "the program that was given stays as it was"
    assert fingerprint(given.tensors()) == fingerprint(program.tensors())


@pytest.mark.parametrize("epochs", [None, 3])
def test_the_dense_training_is_reported_where_it_is_known(program: Program, tmp_path: Path, epochs: int | None) -> None:
    settings = Settings(latency_runs=10, pretraining=parse_schedule("constant:0.1", epochs=epochs))
    report = compile_model(program, "cpu", "prune-filters{ratio=0.5}", None, tmp_path / "b", settings=settings)
    assert known(report.pretraining.epochs) == epochs
    assert known(report.pretraining.learning_rates) == (((0.0, 0.1),) if epochs else None)
    assert ("pretraining" in report.reasons) == (epochs is None)


def test_an_optimizer_of_one_s_own_is_named_in_the_pipeline_and_passed_beside_it(
    program: Program, data: Data, tmp_path: Path
) -> None:
    pipeline = 'recover{epochs=1,schedule="constant:0.01",optimizer="mine:own"}'
    settings = Settings(latency_runs=10, optimizers={"mine:own": lambda groups: torch.optim.SGD(groups, 0.1)})
    report = compile_model(program, "cpu", pipeline, data, tmp_path / "b", settings=settings)
    assert not isinstance(report.recovery, Unknown)
    assert report.recovery.optimizer == "mine:own"
    options = Recover(epochs=1, schedule="constant:0.01", optimizer=OwnOptimizer("mine:own", torch.optim.SGD))
    unnamed = Pipeline((Step("recover", options),))
    for steps, others in ((pipeline, Settings()), (unnamed, settings)):
        with pytest.raises(UsageError, match="mine:own' isn't there"):
            compile_model(program, "cpu", steps, data, tmp_path / "c", settings=others)


def test_a_network_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 16, 3), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.conv(x + torch.randn_like(x))).mean((2, 3)))

    noisy = capture(Noisy(), (torch.randn(2, 1, 8, 8),))
    with pytest.raises(UnsupportedModelError, match="another output each time"):
        compile_model(noisy, "cpu", "prune-filters{ratio=0.5}", None, tmp_path / "b", settings=FAST)


def test_recovery_without_data_is_refused_before_anything_is_written(program: Program, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training data"):
        compile_model(program, "cpu", "recover{epochs=1}", None, tmp_path / "b", settings=FAST)
    assert list(tmp_path.iterdir()) == []


def test_missed_accuracy_gate_fails_with_its_code_and_keeps_the_bundle(
    program: Program, data: Data, tmp_path: Path
) -> None:
    settings = Settings(latency_runs=10, max_drop_points=-100.0)
    report = compile_model(program, "cpu", "prune-filters{ratio=0.5}", data, tmp_path / "b", settings=settings)
    assert (report.status, report.exit_code) == ("FAILED", 5)
    assert json.loads((tmp_path / "b" / "report.json").read_text())["exit_code"] == 5


def test_a_target_that_needs_its_device_fails_with_code_4_and_names_the_next_command(
    program: Program, tmp_path: Path
) -> None:
    report = compile_model(program, "h100-2:4", "sparsify", None, tmp_path / "b", settings=FAST)
    assert (report.status, report.exit_code) == ("FAILED", 4)
    assert "prunec build" in report.reasons["engine"]
    asked = Settings(latency_runs=10, build_engine=False)
    assert compile_model(program, "h100-2:4", "sparsify", None, tmp_path / "c", settings=asked).exit_code == 0


def test_two_rounds_of_pruning_compose_into_one_plan(program: Program, tmp_path: Path) -> None:
    pipeline = "prune-filters{ratio=0.25} prune-filters{ratio=0.25}"
    report = compile_model(program, "cpu", pipeline, None, tmp_path / "b", settings=FAST)
    assert report.pruning is not None
    assert report.pruning.schedule == "2 rounds"
    assert [(group.width, group.kept) for group in report.pruning.groups] == [(16, 9), (16, 9)]
    plan = PruningPlan.from_json((tmp_path / "b" / "plan.json").read_text())
    replayed = apply_plan_to_program(program, plan)
    compiled = Program.load(tmp_path / "b" / "model.pt2")
    assert all(torch.equal(tensor, replayed.tensors()[name]) for name, tensor in compiled.tensors().items())


def test_folded_weights_are_pruned_exactly_and_replayed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.ReLU(), StandardisedConv(16, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )  # fmt: skip
    program = capture(network, (torch.randn(2, 3, 8, 8),))
    pipeline = 'fold-parameters prune-filters{ratio=0.5,inexact_groups="freeze"}'
    report = compile_model(program, "cpu", pipeline, None, tmp_path / "b", settings=FAST)
    assert report.pruning is not None
    assert [(group.width, group.kept) for group in report.pruning.groups] == [(16, 8), (8, 4)]
    program.save(tmp_path / "dense.pt2")
    found = verify_bundle(tmp_path / "b", source=tmp_path / "dense.pt2", config=None, model=ModelOptions(trust=True))
    assert [check for check in found.checks if check.verdict == "failed"] == []
    assert any("oracle" in check.detail for check in found.checks)


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_masks_by_what_layers_see(program: Program, data: Data, tmp_path: Path, criterion: str) -> None:
    pipeline = f"permute{{seconds=1}} sparsify{{criterion={criterion},samples=64}}"
    report = compile_model(program, "a100-2:4", pipeline, data, tmp_path / "b", settings=FAST)
    assert report.exit_code == 0
    assert all(x.sparsity.valid for x in report.layers if not isinstance(x.sparsity, Unknown) and x.sparsity.eligible)
    with pytest.raises(UsageError, match="no training data"):
        compile_model(program, "a100-2:4", pipeline, None, tmp_path / "c", settings=FAST)


@pytest.mark.parametrize("criterion", ["taylor", "skeletonization", "snip", "magnitude-activation"])
def test_filters_by_what_the_data_say(program: Program, data: Data, tmp_path: Path, criterion: str) -> None:
    pipeline = f"prune-filters{{ratio=0.5,criterion={criterion},samples=64}}"
    report = compile_model(program, "cpu", pipeline, data, tmp_path / "b", settings=FAST)
    assert report.pruning is not None
    assert (report.pruning.criterion, report.pruning.samples) == (criterion, 64)
    again = compile_model(program, "cpu", pipeline, data, tmp_path / "d", settings=FAST)
    assert again.deterministic_part() == report.deterministic_part()
    with pytest.raises(UsageError, match=r"needs (labelled|inputs) .*no training data"):
        compile_model(program, "cpu", pipeline, None, tmp_path / "c", settings=FAST)
    assert not (tmp_path / "c").exists()


def test_batch_norms_measured_anew_are_a_stage_of_their_own(program: Program, data: Data, tmp_path: Path) -> None:
    pipeline = "prune-filters{ratio=0.5} re-estimate-batchnorm{samples=64} recover{epochs=1,schedule=constant:0.01}"
    report = compile_model(program, "cpu", pipeline, data, tmp_path / "b", settings=FAST)
    assert not isinstance(report.accuracy.reestimated, Unknown)
    assert [step.name.partition("{")[0] for step in report.steps] == [
        "dense", "prune-filters", "re-estimate-batchnorm", "recover",
    ]  # fmt: skip
    assert report.steps[2].accuracy == report.accuracy.reestimated
    assert "new batch norms" in (tmp_path / "b" / "report.html").read_text()
    again = compile_model(program, "cpu", pipeline, data, tmp_path / "c", settings=FAST)
    assert again.deterministic_part() == report.deterministic_part()


def test_batch_norms_are_not_measured_before_what_changes_their_inputs(
    program: Program, data: Data, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="what it changes is what"):
        compile_model(program, "cpu", "re-estimate-batchnorm prune-filters{ratio=0.5}", data, tmp_path / "b")
    with pytest.raises(UsageError, match="no training data"):
        compile_model(program, "cpu", "re-estimate-batchnorm", None, tmp_path / "b")


@pytest.fixture
def odd_steps(tmp_path: Path) -> Iterator[None]:
    steps = {"odd": "STEP", "labelled": "LABELLED", "needy": "NEEDY"}
    with installed(tmp_path, "prunec.steps", **{name: f"tests.plugins.odd_step:{at}" for name, at in steps.items()}):
        yield


@pytest.mark.usefixtures("odd_steps")
@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("nothing", "it gave back a NoneType, expected a StepOutput"),
        ("no-program", "its program is a GraphModule, expected a Program"),
        ("no-mapping", "its figures are a int, expected a mapping"),
        ("no-cost", "its cost is a int, expected a StepCost"),
        ("negative-cost", "a cost must be a number of at least 0, got -1"),
        ("no-aim", "its aim is a int, expected an Aim"),
        ("no-note", "its note is a int, expected text"),
        ("no-options", "its options are a dict, expected a frozen dataclass"),
        ("exit", "SystemExit: 0"),
        ("training", "is in training form"),
        ("other-network", r"has the layers \['linear'\], expected \['conv2d', 'conv2d', 'linear'\]"),
        ("other-outputs", r"has the output shapes \[\(.*,\)\], expected \[\(., 4\)\]"),
    ],
)
def test_a_plug_in_is_blamed_for_what_it_gives_back(program: Program, tmp_path: Path, does: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"The step 'odd' of plugged failed: .*{words}"):
        compile_model(program, "cpu", f"odd{{does={does}}}", None, tmp_path / "b", settings=FAST)


@pytest.mark.usefixtures("odd_steps")
def test_a_plug_in_is_blamed_for_needs_that_there_are_not(program: Program, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The step 'needy' of plugged failed: ValueError: needs True; expected one of"):
        compile_model(program, "cpu", "needy{does=x}", None, tmp_path / "b", settings=FAST)


@pytest.mark.usefixtures("odd_steps")
def test_a_plug_in_that_writes_in_place_reaches_no_one_else(program: Program, data: Data, tmp_path: Path) -> None:
    before = fingerprint(program.tensors())
    report = compile_model(program, "cpu", "odd{does=in-place}", data, tmp_path / "b", settings=UNCHECKED)
    assert fingerprint(program.tensors()) == before
    assert report.steps[1].accuracy == report.accuracy.exported  # type: ignore[union-attr]
    settings = replace(FAST, verify_each=True)
    for does, words in (("in-place", "changed the program that went into it"), ("no-plan", "odd gave no plan")):
        with pytest.raises(NumericMismatchError, match=words):
            compile_model(program, "cpu", f"odd{{does={does}}}", data, tmp_path / "c", settings=settings)


@pytest.mark.usefixtures("odd_steps")
def test_accuracy_after_a_plug_in_has_its_row_and_the_label_of_an_own_step(
    program: Program, data: Data, tmp_path: Path
) -> None:
    pipeline = "odd{does=in-place} labelled{does=in-place}"
    report = compile_model(program, "cpu", pipeline, data, tmp_path / "b", settings=UNCHECKED)
    dense, odd, labelled = (step.accuracy for step in report.steps)  # type: ignore[union-attr]
    assert report.accuracy.dense == dense == labelled == report.accuracy.pruned
    assert not isinstance(odd, Unknown)


@pytest.mark.usefixtures("odd_steps")
def test_what_plug_ins_tell_stands_in_the_report_step_by_step(program: Program, tmp_path: Path) -> None:
    pipeline = "odd{does=one} odd{does=scalars} labelled{does=two} odd{does=unknown}"
    report = compile_model(program, "cpu", pipeline, None, tmp_path / "b", settings=FAST)
    assert list(report.extensions) == ["odd", "odd#2", "labelled", "odd#3"]
    assert (report.extensions["odd"], report.extensions["odd#2"]["one"]) == ({"told": "one"}, 1.5)
    assert read_bundle(tmp_path / "b").report == report
    page = (tmp_path / "b" / "report.html").read_text()
    assert "watts not known" in page
    assert "no meter." in page
    assert not any("Unknown(" in text for text in (page, "".join(summary_lines(report))))


def test_hooks_and_steps_of_one_name_are_told_apart() -> None:
    hook = HookFact("odd", "odd", 0, 0, 0, {"by": "hook"}, {})
    retraining = Retraining(**dict.fromkeys(field.name for field in fields(Retraining)) | {"hooks": (hook, hook)})
    step = SimpleNamespace(name="odd")
    facts: dict[str, Any] = {"macs": 0, "nonzero_weights": 0, "predicted_ms": 0.0, "accuracy": 0.0, "entries": ()}
    told = StepFact(step, **facts, weights="", figures={"by": "step"})  # type: ignore[arg-type]
    history = [told, StepFact(None, **facts, weights="", fact=retraining)]
    assert list(told_by_plug_ins(history)) == ["odd", "odd#2", "odd#3"]


def test_no_program_is_kept_in_the_facts_of_steps(program: Program, data: Data, tmp_path: Path) -> None:
    kept: list[weakref.ref[Program]] = []

    def watched(*arguments: Any, **options: Any) -> Recovered:
        result = recover(*arguments, **options)
        kept.append(weakref.ref(result.program))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recover_step, "recover", watched)
        start = StepInput(program, Request(program, Target.parse("cpu"), Pipeline(), data, Objective(), FAST), 0, ())
        pipeline = "repeat{n=2}(recover{epochs=1,schedule=constant:0.01})"
        end = run_steps(replace(start, history=(dense_fact(start.request),)), parse_pipeline(pipeline))
    gc.collect()
    # Each retraining and then its probe; the last retraining's is the result.
    assert [reference() is None for reference in kept] == [True, True, False, True]
    assert len(end.before(Retraining)) == 2


@pytest.mark.parametrize(("own_seed", "matters"), [(",seed=5", False), ("", True)])
def test_a_deviation_over_seeds_needs_something_that_depends_on_them(
    program: Program, data: Data, tmp_path: Path, own_seed: str, matters: bool
) -> None:
    pipeline = f"prune-filters{{ratio=0.5,criterion=random{own_seed}}}"
    settings = replace(FAST, seeds=3)
    summary = compile_model(program, "cpu", pipeline, data, tmp_path / "b", settings=settings).runs_summary
    assert isinstance(summary.mean, float)
    assert ("all seeds gave the same weights" in reason_of(summary.standard_deviation)) is not matters
