"""Compiles for a goal in time: where the cost model is from, the closed loop, resuming, plans, and what verify says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.bundle.bundle_names import COSTS, MODEL_ONNX, MODEL_PT2, PLAN
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.facts.settings import Settings
from prunec.compiler.machine.versions import installed_versions
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import summary_lines
from prunec.compiler.stages import cost_models, time_goals
from prunec.compiler.stages.driver import compile_model
from prunec.passes import Program, capture
from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.fitted import FEATURES, REGIMES, Blocks, FittedCosts
from prunec.passes.costs.layers import layers_of
from prunec.passes.errors import InputError, PrunecError, UsageError
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown, known
from prunec.passes.whole_file import write_whole
from prunec.runtime.costs.cost_file import costs_json
from prunec.runtime.latency import LatencyComparison, Percentiles
from prunec.runtime.processor import processor

FAST = Settings(latency_runs=10)
GOAL = "prune-filters{latency_speedup=1.6}"
#: Milliseconds of a multiply-accumulate and of an inference beside its layers.
PER_MAC, BESIDE = 1e-6, 0.02


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        layers = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        return nn.Sequential(*layers)

    blocks = block(1, 16, 1), block(16, 32, 2), block(32, 32, 1)
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval()
    return capture(net, (torch.randn(2, 1, 8, 8),))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 120), ("test", 40)):
        arrays |= {f"{part}_images": rng.integers(0, 255, (count, 8, 8), dtype=np.uint8)}
        arrays |= {f"{part}_labels": rng.integers(0, 4, count)}
    np.savez(folder / "data.npz", **arrays)
    return load_data(DataConfig(train="npz:data.npz", test="npz:data.npz"), folder, seed=0)


def law(program: Program, key: CostKey | None = None) -> FittedCosts:
    """A cost model whose milliseconds are MACs."""
    layers = layers_of(work_of(program))
    laws = np.zeros((len(REGIMES), len(layers), len(FEATURES)))
    laws[:, :, FEATURES.index("macs")] = PER_MAC
    here = key or CostKey("cpu", processor(), f"onnxruntime {installed_versions()['onnxruntime']}", 1, 1)
    return FittedCosts(here, {"layers": 0.04, "network": 0.02}, Blocks(1, 1, 1), layers, laws, (BESIDE, 1.0))


class Machine:
    """An engine whose time is a factor and a share of what the cost model says, without a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, beside_ms: float) -> None:
        self.measured = self.fitted = 0
        self._beside_ms = beside_ms
        monkeypatch.setattr(cost_models, "measure_costs", self._measure_costs)
        monkeypatch.setattr(time_goals, "compare_models", self._compare_models)

    def _measure_costs(self, program: Program, *_: object, **__: object) -> FittedCosts:
        self.fitted += 1
        return law(program)

    def _compare_models(self, _: object, __: object, dense: Path, compiled: Path, *___: object, **____: object) -> Any:
        self.measured += 1
        ms = [PER_MAC * _macs(path) + self._beside_ms for path in (dense, compiled)]
        both = [Percentiles(each, each, each) for each in ms]
        speedup = ms[0] / ms[1]
        return LatencyComparison(both[0], both[1], speedup, (0.999 * speedup, 1.001 * speedup), 10)


def _macs(path: Path) -> float:
    """Multiply-accumulates of the network in an ONNX file, of inputs of 8x8."""
    import onnx

    weights = [tuple(each.dims) for each in onnx.load(path).graph.initializer if len(each.dims) in (2, 4)]
    pixels = iter((64, 16, 16))
    return float(sum(np.prod(shape) * (next(pixels) if len(shape) == 4 else 1) for shape in weights))


def compiled(program: Program, folder: Path, pipeline: str = GOAL, name: str = "o", **options: Any) -> Report:
    settings = replace(FAST, **options.pop("settings", {}))
    return compile_model(program, "cpu", pipeline, output=folder / name, settings=settings, force=True, **options)


def checks(bundle: Path) -> dict[str, str]:
    found = verify_bundle(bundle, source=None, config=None, model=ModelOptions())
    return {check.name: f"{check.verdict}: {check.detail}" for check in found.checks}


def test_a_model_measured_here_is_corrected_and_stands_in_bundle_and_report(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, beside_ms=0.08)
    report = compiled(program, tmp_path)
    pruning, costs = known(report.pruning), report.costs
    assert pruning is not None
    assert pruning.timed is not None
    assert costs is not None
    assert 2 <= machine.measured == len(pruning.timed.tries) <= 3
    first, taken = pruning.timed.tries[0], pruning.timed.tries[pruning.timed.chosen]
    assert known(first.measured_speedup) < 1.5  # type: ignore[operator]
    assert known(taken.measured_speedup) == pytest.approx(1.6, rel=0.04)
    assert (costs.source, costs.from_file, costs.error["network"]) == ("measured", False, 0.02)
    latency = known(report.latency)
    assert latency is not None
    assert latency.asked_speedup == 1.6
    assert latency.predicted_speedup == pytest.approx(taken.predicted_speedup)
    text = "\n".join(summary_lines(report))
    assert "the widths depend on this measurement" in text
    assert f"{known(first.measured_speedup):.2f}x measured" in text
    found = checks(tmp_path / "o")
    assert found["costs.json"].startswith("passed: the cost model that the report tells of; it predicts")
    assert not [name for name, words in found.items() if words.startswith("failed")], found
    assert Report.from_json(report.to_json()) == report


def test_a_model_from_a_file_is_not_corrected_and_gives_the_same_bytes(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, beside_ms=0.08)
    write_whole(tmp_path / "costs.json", costs_json(law(program)))
    reports = [
        compiled(program, tmp_path, name=name, settings={"cost_model": tmp_path / "costs.json"}) for name in "ab"
    ]
    assert (machine.fitted, machine.measured) == (0, 0)
    for name in (PLAN, COSTS, MODEL_PT2, MODEL_ONNX):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / COSTS).read_bytes() == (tmp_path / "costs.json").read_bytes()
    assert reports[0].deterministic_part() == reports[1].deterministic_part()
    pruning = known(reports[0].pruning)
    assert pruning is not None
    assert pruning.timed is not None
    (tried,) = pruning.timed.tries
    assert isinstance(tried.measured_ms, Unknown)
    assert "cost model from a file" in tried.measured_ms.reason
    assert "the widths follow from the file" in "\n".join(summary_lines(reports[0]))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"batch": 8}, "batch"),
        ({"threads": 4}, "threads"),
        ({"hardware": "abacus"}, "hardware"),
        ({"engine": "x 1"}, "x 1"),
    ],
)
def test_a_model_of_something_else_is_refused(
    program: Program, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    model = law(program)
    write_whole(tmp_path / "c.json", costs_json(replace(model, key=replace(model.key, **changed))))
    with pytest.raises(UsageError, match=words):
        compiled(program, tmp_path, settings={"cost_model": tmp_path / "c.json"})
    assert not (tmp_path / "o").exists()


def test_files_of_no_use_are_refused_before_any_work(program: Program, tmp_path: Path) -> None:
    write_whole(tmp_path / "c.json", costs_json(law(program)))
    with pytest.raises(UsageError, match="no step of the pipeline chooses widths"):
        compiled(program, tmp_path, "prune-filters{ratio=0.5}", settings={"cost_model": tmp_path / "c.json"})
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(InputError, match=r"none\.json"):
        compiled(program, tmp_path, settings={"cost_model": tmp_path / "none.json"})
    with pytest.raises(InputError, match="is no file"):
        compiled(program, tmp_path, f"prune-filters{{plan={tmp_path / 'absent.json'}}}")


def test_a_device_that_is_not_here_is_predicted_and_nothing_is_corrected(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, beside_ms=0.08)
    settings = replace(FAST, build_engine=False)
    report = compile_model(
        program, "a100-dense", "prune-filters{latency_speedup=1,speedup=1.5}", output=tmp_path / "o", settings=settings
    )
    assert (machine.fitted, machine.measured) == (0, 0)
    assert report.costs is not None
    assert report.costs.source == "roofline"
    assert "a prediction" in "\n".join(summary_lines(report))
    assert not (tmp_path / "o" / COSTS).exists()
    assert checks(tmp_path / "o")["costs.json"].startswith("passed: none")


def test_a_plan_is_applied_in_place_of_a_choice(program: Program, tmp_path: Path) -> None:
    first = compiled(program, tmp_path, "prune-filters{ratio=0.5,criterion=random,seed=3}", "first")
    report = compiled(program, tmp_path, f"prune-filters{{plan={tmp_path / 'first' / PLAN}}}", "second")
    assert (tmp_path / "first" / PLAN).read_bytes() == (tmp_path / "second" / PLAN).read_bytes()
    assert report.model.compiled_sha256 == first.model.compiled_sha256
    pruning = known(report.pruning)
    assert pruning is not None
    assert (pruning.method, pruning.criterion, pruning.timed) == ("plan", "plan", None)
    found = checks(tmp_path / "second")
    assert not [name for name, words in found.items() if words.startswith("failed")], found


def test_a_plan_of_another_network_and_one_beside_goals_are_refused(program: Program, tmp_path: Path) -> None:
    other = capture(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)).eval(), (torch.randn(2, 1, 8, 8),))
    plan = PruneFilters(ratio=0.5).run(other).plan
    assert plan is not None
    (tmp_path / PLAN).write_text(plan.to_json())
    with pytest.raises(InputError, match="plan doesn't fit"):
        compiled(program, tmp_path, f"prune-filters{{plan={tmp_path / PLAN}}}")
    for beside in ("ratio=0.5", "speedup=2", "latency_ms=1"):
        with pytest.raises(UsageError, match="or a plan"):
            compiled(program, tmp_path, f"prune-filters{{plan={tmp_path / PLAN},{beside}}}")


RETRAINED = f"{GOAL} recover{{epochs=2,schedule=constant:0.01,batch_size=20}}"


def test_a_resumed_compile_takes_the_stored_widths(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, beside_ms=0.08)
    whole = compiled(program, tmp_path, RETRAINED, "whole", data=data)
    done = machine.fitted, machine.measured

    class StoppedError(PrunecError):
        """The compile is stopped while it trains."""

    class Stops(type(FAST.progress)):  # type: ignore[misc]
        def step(self, done: int, total: int, note: str) -> None:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        compiled(program, tmp_path, RETRAINED, "o", data=data, settings={"progress": Stops()})
    state = tmp_path / "o.state"
    assert [path.name.partition("-")[0] for path in sorted(state.iterdir())] == ["costs", "plan", "recover"]
    machine._beside_ms = 0.3  # another moment, in which other widths would be chosen
    again = compiled(program, tmp_path, RETRAINED, "o", data=data, settings={"resume": True})
    assert (machine.fitted, machine.measured) == (2 * done[0], 2 * done[1]), "nothing was measured anew"
    assert (tmp_path / "o" / PLAN).read_bytes() == (tmp_path / "whole" / PLAN).read_bytes()
    assert (tmp_path / "o" / COSTS).read_bytes() == (tmp_path / "whole" / COSTS).read_bytes()
    assert again.deterministic_part() == whole.deterministic_part()
    assert not state.exists()
    assert "widths that it had chosen before" in "\n".join(summary_lines(again))


def test_what_another_recipe_has_stored_is_not_taken(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, beside_ms=0.08)
    compiled(program, tmp_path)
    done = machine.measured
    state = tmp_path / "o.state"
    state.mkdir()
    (state / "plan-0123456789abcdef.json").write_text("{}")
    compiled(program, tmp_path, settings={"resume": True})
    assert machine.measured == 2 * done
    assert not state.exists()


def test_further_seeds_and_control_arms_take_the_widths_of_the_compile(
    program: Program, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, beside_ms=0.08)
    report = compiled(program, tmp_path, RETRAINED, data=data, settings={"seeds": 2, "controls": ("random",)})
    pruning = known(report.pruning)
    assert pruning is not None
    assert pruning.timed is not None
    assert machine.measured == len(pruning.timed.tries)
    assert [control.macs for control in report.controls] == [report.macs.compiled]


def test_a_random_arm_of_a_plan_keeps_its_widths(program: Program, data: Data, tmp_path: Path) -> None:
    compiled(program, tmp_path, "prune-filters{ratio=0.5}", "first")
    pipeline = f"prune-filters{{plan={tmp_path / 'first' / PLAN}}} {RETRAINED.partition(' ')[2]}"
    report = compiled(program, tmp_path, pipeline, data=data, settings={"controls": ("random",)})
    assert [control.macs for control in report.controls] == [report.macs.compiled]
