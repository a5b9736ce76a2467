"""Layers in higher precision for a limit of what INT8 loses, from the step to what verify finds of a bundle."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.calibration.data import Data
from prunec.calibration.quantization import settings as quantization_settings
from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.bundle.bundle_names import STORED_LAYERS
from prunec.compiler.bundle.bundle_reader import bundle_program
from prunec.compiler.facts.costs import Costs
from prunec.compiler.facts.layer_choice import LayerChoice
from prunec.compiler.facts.pass_facts import Calibrated
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import StepCost, StepFact, StepInput, StepOutput
from prunec.compiler.gates.doubts import CalibrationLimitMet
from prunec.compiler.gates.judging import judge
from prunec.compiler.machine.versions import installed_versions
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.recovery.objective import Objective
from prunec.compiler.report.layer_choice_part import LayerChoicePart
from prunec.compiler.report.layer_choice_words import trial_rows
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import report_line, summary_rows
from prunec.compiler.stages import mixed_precision
from prunec.compiler.stages.calibrate_step import calibrate
from prunec.compiler.stages.driver import compile_model
from prunec.compiler.stages.held_back import Judge
from prunec.compiler.stages.stored_choices import read_layers
from prunec.passes import Program, capture
from prunec.passes.base import Aim, PassResult
from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.fitted import FEATURES, REGIMES, Blocks, FittedCosts
from prunec.passes.costs.layers import layers_of
from prunec.passes.errors import InputError, NumericMismatchError, PrunecError, UsageError
from prunec.passes.feeding import runner
from prunec.passes.identity import weights_sha256
from prunec.passes.quantization.quantizers import is_quantized, quantizers
from prunec.passes.unknown import Unknown, known
from prunec.passes.whole_file import write_whole
from prunec.runtime.costs.cost_file import costs_json
from prunec.runtime.costs.roofline import RooflineCosts, roofline_costs
from prunec.runtime.evaluate import evaluate
from prunec.runtime.processor import processor
from prunec.runtime.target import Target
from tests.compiler.fragile import FRAGILE, made_fragile, toy_data, trained
from tests.compiler.test_int8 import failed
from tests.compiler.test_verify_bundle import at, seal

FAST = Settings(latency_runs=5)
LIMIT = "calibrate{max_drop_points=0.5}"
Compile = Callable[..., Report]
Step = Callable[..., StepOutput]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return toy_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def program(data: Data) -> Program:
    return made_fragile(trained(data))


@pytest.fixture(scope="module")
def limited(program: Program, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    output = tmp_path_factory.mktemp("limited") / "net.bundle"
    return compile_model(program, "cpu-int8", LIMIT, data, output, settings=FAST), output


@pytest.fixture
def compiled(program: Program, data: Data, tmp_path: Path) -> Compile:
    def compile_(pipeline: str, target: str = "l4-int8", name: str = "b", **settings: Any) -> Report:
        asked = replace(FAST, build_engine=False, **settings)
        return compile_model(program, target, pipeline, data, tmp_path / name, settings=asked, force=True)

    return compile_


@pytest.fixture(scope="module")
def step(program: Program, data: Data) -> Step:
    """The step alone."""

    def step_(text: str, target: str = "l4-int8", **given: Any) -> StepOutput:
        pipeline = parse_pipeline(text)
        settings = Settings(progress=given.pop("progress", FAST.progress))
        request = Request(program, Target.parse(target), pipeline, data, Objective(), settings)
        unknown = Unknown("not measured.")
        dense = StepFact(None, program.macs(), 0, unknown, unknown, (), weights_sha256(program))
        return calibrate(pipeline.steps[0].options, StepInput(program, request, 0, (dense,), **given))

    return step_


def chosen(output: StepOutput) -> LayerChoice:
    assert isinstance(output.fact, Calibrated)
    assert output.fact.choice is not None
    return output.fact.choice


def choice_of(report: Report) -> LayerChoicePart:
    part = known(report.calibration)
    assert part is not None
    choice = known(part.choice)
    assert choice is not None
    return choice


def reasons(report: Report) -> dict[str, str]:
    part = known(report.calibration)
    assert part is not None
    return {layer.layer: layer.reason for layer in part.layers if layer.precision != "int8"}


def test_exactly_the_layer_that_bears_no_int8_is_kept(limited: tuple[Report, Path]) -> None:
    choice = choice_of(limited[0])
    assert choice.kept == (FRAGILE,)
    assert reasons(limited[0]) == {FRAGILE: "kept by sensitivity"}
    assert (choice.is_met, choice.is_judged_again, choice.cost_source) == (True, False, None)
    before = known(choice.trials[0].lost)
    assert before is not None
    assert choice.lost <= 0.5 < 20 < before
    errors = {each.layer: known(each.error) for each in choice.sensitivities}
    assert errors.keys() == {"0", "2", "4", "8"}
    fragile = errors.pop(FRAGILE)
    assert fragile is not None
    assert fragile > 1000 * max(error or 0 for error in errors.values()) > 0
    steps = known(limited[0].steps)
    assert steps is not None
    aim = known(steps[-1].aim)
    assert aim is not None
    assert (aim.asked, aim.got, aim.reason) == (4, 3, "kept by sensitivity")


def test_it_is_judged_on_validation_data_which_the_ledger_has(
    limited: tuple[Report, Path], data: Data, program: Program
) -> None:
    report, folder = limited
    choice, quantized = choice_of(report), bundle_program(folder)
    assert is_quantized(quantized.graph)
    first, second = (evaluate(runner(each), data.validation.batches(64)) for each in (program, quantized))
    assert choice.lost == pytest.approx(100 * (first - second), abs=1e-6)
    assert choice.samples == len(data.validation) == 200
    ledger = {entry.stage: entry for entry in known(report.ledger) or ()}
    assert (ledger["sensitivity"].samples, ledger["sensitivity"].split) == (5 * 64, "training data")
    judged = ledger["mixed-precision"]
    assert (judged.samples, judged.split, judged.weights_out) == (
        200 * (1 + len(choice.trials)),
        "validation data",
        None,
    )
    assert judged.options["max_drop_points"] == 0.5


def test_terminal_and_page_tell_it(limited: tuple[Report, Path]) -> None:
    report, folder = limited
    rows = dict(summary_rows(report))
    assert rows["INT8"].endswith("of the MACs in fp32: 4 (kept by sensitivity)")
    assert rows["Mixed precision"].startswith("1 of 4 layers kept in higher precision for max_drop_points=0.5, met: ")
    assert f"{known(choice_of(report).trials[0].lost):.2f}" in rows["Mixed precision"]
    assert "INT8: 4 0.98, 8" in rows["Sensitivity"]
    assert "error per MAC, for lack of a cost model" in rows["Sensitivity"]
    page = (folder / "report.html").read_text()
    assert "Error alone" in page
    assert "kept by sensitivity" in page
    assert "Layers in higher precision" in page
    assert [(count, words) for count, words, _ in trial_rows(choice_of(report))] == [
        (0, ""),
        (2, "4, 8"),
        (1, "without 8"),
    ]


def test_verify_passes_and_the_report_is_read_again(limited: tuple[Report, Path]) -> None:
    assert failed(limited[1]) == {}
    assert Report.from_json(limited[0].to_json()) == limited[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("calibration.choice.lost", 0.25),
        ("calibration.choice.limit", 3.0),
        ("calibration.choice.is_met", False),
        ("calibration.choice.kept", ["0"]),
        ("calibration.choice.samples", 7),
        ("calibration.layers.2.reason", "kept by name"),
        ("calibration.choice.sensitivities.0.layer", "9"),
    ],
)
def test_what_is_not_so_is_found(limited: tuple[Report, Path], tmp_path: Path, path: str, value: object) -> None:
    folder = shutil.copytree(limited[1], tmp_path / "b")
    at(path, value)(folder)
    seal(folder)
    assert "report against the program" in failed(folder)


def test_nothing_is_kept_for_a_limit_that_is_met_without(step: Step) -> None:
    output = step("calibrate{max_drop_points=90}")
    choice = chosen(output)
    assert (choice.search.kept, choice.is_met, len(choice.search.trials)) == ((), True, 1)
    assert len(choice.search.sensitivities) == 4, "they are told all the same"
    assert output.aim == Aim("layers in INT8", 4, 4)


def test_nothing_is_kept_where_equalization_mends_the_layer(step: Step) -> None:
    assert chosen(step("calibrate{max_drop_points=0.5,equalize=true}")).search.kept == ()


@pytest.mark.parametrize("target", ["l4-int8", "cpu-int8"])
def test_errors_of_outputs_need_no_labels(step: Step, target: str) -> None:
    output = step("calibrate{max_output_error=0.001}", target)
    choice = chosen(output)
    assert (choice.search.kept, choice.loss.margin) == ((FRAGILE,), None)
    assert choice.loss.value <= 0.001
    booked = {work.stage: work.cost for work in output.beside}
    samples = 200 * 2 * len(choice.search.trials)  # both networks run each time
    assert booked["mixed-precision"] == StepCost(samples=samples, split="validation data"), (
        "both networks run each time"
    )


def test_outputs_that_can_t_be_compared_are_told(
    compiled: Compile, step: Step, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured, infinite = Judge._output_error, [True]
    monkeypatch.setattr(Judge, "_output_error", lambda *given: math.inf if infinite else measured(*given))
    with pytest.raises(NumericMismatchError, match="max_output_error can't be judged"):
        step("calibrate{max_output_error=0.001}")
    monkeypatch.setattr(
        Judge, "_output_error", lambda *given: math.inf if infinite and infinite.pop() else measured(*given)
    )
    report = compiled("calibrate{max_output_error=0.001}")
    choice = choice_of(report)
    assert (choice.kept, choice.is_met) == ((FRAGILE,), True)
    assert isinstance(choice.trials[0].lost, Unknown)
    assert "outputs that can't be compared with none kept" in dict(summary_rows(report))["Mixed precision"]
    assert Report.from_json(report.to_json()) == report
    assert failed(tmp_path / "b") == {}


def test_no_more_than_all_layers_are_kept_and_the_compile_says_so(compiled: Compile, tmp_path: Path) -> None:
    report = compiled("calibrate{max_output_error=0}")
    choice = choice_of(report)
    assert (set(choice.kept), choice.lost, choice.is_met) == ({"0", "2", "4", "8"}, 0, True)
    assert report.exit_code == 7
    assert "min_done_percent" in {gate.name for gate in report.gates if gate.verdict == "failed"}
    assert not is_quantized(bundle_program(tmp_path / "b").graph)
    assert failed(tmp_path / "b").keys() == {"outcome"}


@pytest.mark.parametrize("rounding", ["corrected", pytest.param("learned", marks=pytest.mark.long)])
def test_what_is_rounded_otherwise_is_judged_again(step: Step, rounding: str) -> None:
    output = step(f"calibrate{{max_drop_points=0.5,samples=64,rounding={rounding}}}")
    choice = chosen(output)
    assert (choice.search.kept, choice.is_judged_again, choice.is_met) == ((FRAGILE,), True, True)
    booked = {work.stage: work.cost for work in output.beside}
    samples = 200 * (2 + len(choice.search.trials))
    assert booked["mixed-precision"] == StepCost(samples=samples, split="validation data")


class Notes(type(FAST.progress)):  # type: ignore[misc]
    """Keeps what is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []
        self.steps: list[tuple[str, int, int, str]] = []

    def stage(self, title: str) -> None:
        self.stages.append(title)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, done: int, total: int, note: str) -> None:
        self.steps.append((self.stages[-1], done, total, note))


def test_progress_is_told_by_layers_and_by_trials(step: Step) -> None:
    progress = Notes()
    choice = chosen(step(LIMIT, progress=progress))
    alone, trials = "what INT8 of each layer alone changes", "layers in higher precision for max_drop_points=0.5"
    assert [step[1:3] for step in progress.steps if step[0] == alone] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    told = [step for step in progress.steps if step[0] == trials]
    assert len(told) == len(choice.search.trials)
    assert all(done <= total for _, done, total, _ in told)


def test_a_rounding_that_misses_the_limit_is_told(
    compiled: Compile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ruined(reference: Program, quantized: Program, inputs: object) -> PassResult:
        changed = quantized.clone()
        with torch.no_grad():
            changed.tensors()["8.bias"][0] += 100
        return PassResult(changed, True)

    monkeypatch.setattr(quantization_settings, "correct_biases", ruined)
    progress = Notes()
    report = compiled("calibrate{max_drop_points=0.5,rounding=corrected}", progress=progress)
    choice = choice_of(report)
    assert not choice.is_met
    assert choice.lost > 20
    (note,) = progress.notes
    assert "max_drop_points=0.5 isn't met" in note
    assert "with rounding=corrected" in note
    (warning,) = [each for each in known(report.warnings) or () if "calibrate" in each]
    assert "points lost, max_drop_points=0.5 asked for" in warning
    assert "calibrate: " in report_line(report)
    assert "NOT met" in dict(summary_rows(report))["Mixed precision"]
    assert failed(tmp_path / "b") == {}
    assert judge(CalibrationLimitMet(), report, allow_unknown=True).verdict == "failed"


class Attending(nn.Module):
    """A product of two activations, of which one has a column far larger than the others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)
        with torch.no_grad():
            self.q.weight[0] *= 3000
            self.k.weight[0] /= 3000
            self.k.bias[0] /= 3000

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, 2)
        return (self.q(rows) @ self.k(rows).transpose(1, 2)).flatten(1)


def test_a_limit_that_layers_can_t_meet_is_said_to_be_missed(data: Data, tmp_path: Path) -> None:
    program = capture(Attending().eval(), (torch.randn(2, 1, 8, 8),))
    progress = Notes()
    settings = replace(FAST, build_engine=False, progress=progress)
    report = compile_model(
        program, "l4-int8", "calibrate{max_output_error=1e-4}", data, tmp_path / "b", settings=settings
    )
    choice = choice_of(report)
    assert (set(choice.kept), choice.is_met) == ({"q", "k"}, False)
    assert "even with every layer in higher precision, since products of activations stay on grids" in progress.notes[0]
    assert report.exit_code == 7, "no layer is in INT8"
    assert any("max_output_error=0.0001 asked for" in each for each in known(report.warnings) or ())
    assert failed(tmp_path / "b").keys() == {"outcome"}


def test_the_choice_is_the_same_each_time(step: Step, limited: tuple[Report, Path]) -> None:
    choices = [chosen(step(LIMIT, "cpu-int8")) for _ in range(2)]
    assert choices[0] == choices[1]
    assert LayerChoicePart.of_choice(choices[0]) == choice_of(limited[0])


def law(program: Program, ms: dict[str, float]) -> FittedCosts:
    """A cost model with a fixed time for every layer."""
    layers = layers_of(work_of(program))
    laws = np.zeros((len(REGIMES), len(layers), len(FEATURES)))
    laws[:, :, FEATURES.index("one")] = [ms.get(layer.name, 0.0) for layer in layers]
    here = CostKey("cpu-int8", processor(), f"onnxruntime {installed_versions()['onnxruntime']}", 1, 1)
    return FittedCosts(here, {"layers": 0.04, "network": 0.02}, Blocks(1, 1, 1), layers, laws, (0.0, 1.0), 2.0)


def test_a_cost_model_decides_the_order(compiled: Compile, program: Program, tmp_path: Path) -> None:
    times = {"0": 1e-3, "2": 1e-2, "4": 1e5, "8": 1e-1}
    write_whole(tmp_path / "costs.json", costs_json(law(program, times)))
    report = compiled(LIMIT, "cpu-int8", cost_model=tmp_path / "costs.json")
    choice = choice_of(report)
    assert {each.layer: each.cost for each in choice.sensitivities} == pytest.approx(
        {name: 2 * ms for name, ms in times.items()}
    ), "milliseconds in floating point"
    assert choice.cost_source == "measured"
    assert choice.trials[1].kept[0] == "0", "cheap layers are kept first"
    assert FRAGILE not in choice.trials[1].kept
    assert choice.kept == (FRAGILE,), "those that weren't needed are quantized after all"
    rows = dict(summary_rows(report))
    assert "error per measured millisecond" in rows["Sensitivity"]
    assert "the layers in higher precision follow from the file" in rows["Cost model"]
    assert failed(tmp_path / "b") == {}


def test_predicted_milliseconds_are_costs_where_a_goal_in_time_has_them(step: Step) -> None:
    roofline = roofline_costs(Target.parse("l4-int8"), batch=1)
    assert isinstance(roofline, RooflineCosts)
    search = chosen(step(LIMIT, costs=Costs(roofline))).search
    assert (search.cost_source, search.kept) == ("roofline", (FRAGILE,))
    assert all(0 < each.cost < 1 for each in search.sensitivities)


def test_a_resumed_compile_keeps_the_layers_that_it_chose(
    compiled: Compile, limited: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class StoppedError(PrunecError):
        """The compile is stopped after the choice."""

    class Stops(Notes):
        def stage(self, title: str) -> None:
            if title == "export":
                raise StoppedError("stopped")

        def step(self, done: int, total: int, note: str) -> None: ...

    with pytest.raises(StoppedError):
        compiled(LIMIT, "cpu-int8", progress=Stops())
    (stored,) = (tmp_path / "b.state").iterdir()
    assert stored.match(STORED_LAYERS.format("*"))

    def chosen_anew(*_: object, **__: object) -> None:
        raise AssertionError("it was stored")

    monkeypatch.setattr(mixed_precision, "fewest_kept", chosen_anew)
    monkeypatch.setattr(mixed_precision, "sensitivities", chosen_anew)
    with pytest.raises(AssertionError, match="it was stored"):
        compiled("calibrate{max_drop_points=0.4}", "cpu-int8", resume=True)
    again = compiled(LIMIT, "cpu-int8", resume=True)
    assert known(again.calibration) == known(limited[0].calibration)
    assert again.model.compiled_sha256 == limited[0].model.compiled_sha256
    assert not (tmp_path / "b.state").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"kept": ["a"]}', "[" * 9000])
def test_a_damaged_choice_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "layers-0.json"
    path.write_text(content)
    with pytest.raises(InputError, match="can't be read as layers in higher precision"):
        read_layers(path)


def test_a_choice_that_was_not_tried_is_refused(tmp_path: Path) -> None:
    search = {"cost_source": None, "images": 1, "samples": 1, "sensitivities": [], "trials": [], "kept": ["a"]}
    path = tmp_path / "layers-0.json"
    path.write_text(str(search).replace("'", '"').replace("None", "null"))
    with pytest.raises(InputError, match="was not tried"):
        read_layers(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_drop_points": 1.0, "max_output_error": 1.0}, "both given"),
        ({"max_drop_points": -0.1}, "max_drop_points must be a number of at least 0"),
        ({"max_output_error": float("inf")}, "max_output_error must be"),
        ({"max_output_error": float("nan")}, "max_output_error must be"),
    ],
)
def test_limits_that_can_t_be_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Calibrate(**options)  # type: ignore[arg-type]


def test_a_limit_without_samples_to_judge_on_is_refused_early(program: Program, data: Data, tmp_path: Path) -> None:
    empty = replace(data, validation=replace(data.validation, positions=torch.zeros(0, dtype=torch.int64)))  # type: ignore[type-var]
    with pytest.raises(UsageError, match="judged on validation data, and there are none"):
        compile_model(program, "l4-int8", LIMIT, empty, tmp_path / "b", settings=FAST)
    with pytest.raises(UsageError, match="needs labelled training data"):
        compile_model(program, "l4-int8", LIMIT, None, tmp_path / "b", settings=FAST)
    assert not (tmp_path / "b").exists()


def test_what_a_kept_layer_reads_is_on_no_grid(limited: tuple[Report, Path]) -> None:
    graph = bundle_program(limited[1]).graph
    on_grids = {quantizer.source.name for quantizer in quantizers(graph)}
    kept = next(node for node in graph.nodes if "4.weight" in map(str, (each.target for each in node.all_input_nodes)))
    assert not on_grids & {node.name for node in kept.all_input_nodes}
    assert not any("fake_quantize" in str(node.target) for node in kept.all_input_nodes)
