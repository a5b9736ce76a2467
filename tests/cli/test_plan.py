"""``prunec plan``: what it tells, the plan that it writes, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunec.calibration.user_code import import_callable
from prunec.compiler.facts.forecast import Forecast
from prunec.compiler.machine.versions import installed_versions
from prunec.passes import capture
from prunec.passes.allocation.goals import GOALS
from prunec.passes.applying import apply_plan
from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.fitted import FEATURES
from prunec.passes.plan import PruningPlan
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.whole_file import write_whole
from prunec.runtime.costs.cost_file import costs_json
from prunec.runtime.costs.roofline import RooflineCosts, roofline_costs
from prunec.runtime.processor import processor
from prunec.runtime.target import Target
from tests.cli.conftest import Outcome, Prunec, Refused
from tests.passes.costs.synthetic import engine

PLAN = ("plan", "model.pt", "--target")


def dense_module(project: Path) -> torch.nn.Module:
    module: torch.nn.Module = import_callable("model:network", project)()
    module.load_state_dict(torch.load(project / "model.pt", weights_only=True))
    return module.eval()


def forecast(prunec: Prunec, *arguments: object) -> dict[str, Any]:
    outcome = prunec(*PLAN, *arguments, "--json")
    assert outcome.code == 0, outcome.err
    document: dict[str, Any] = json.loads(outcome.out)
    return document


@pytest.fixture
def cost_file(project: Path) -> Callable[..., Path]:
    """Writes a cost model of the project's network, of this machine but for what is named, where work alone counts."""

    def write(**key: Any) -> Path:
        program = capture(dense_module(project), (torch.zeros(2, 1, 8, 8),))
        here = CostKey("cpu", processor(), f"onnxruntime {installed_versions()['onnxruntime']}", 1, 1)
        drawn = engine(work_of(program), seed=1)
        laws = np.where(np.array(FEATURES) == "one", 0.0, drawn.laws)
        model = replace(drawn, key=replace(here, **key), laws=laws, network=(0.0, 1.0))
        write_whole(project / "costs.json", costs_json(model))
        return project / "costs.json"

    return write


def test_of_a_device_that_is_not_here_all_times_are_predictions(project: Path, prunec: Prunec) -> None:
    found = forecast(prunec, "a100-2:4", "--speedup", 2, "-o", "plan.json", "--html", "plan.html")
    assert list(found) == [field.name for field in fields(Forecast)]
    assert found["cost_model"]["source"] == "roofline"
    assert found["measured"] is None
    assert "isn't here" in found["why_not_measured"]
    assert found["goals"] == {"speedup": 2.0}
    assert found["dense"]["macs"] >= 2 * found["pruned"]["macs"]
    assert found["two_four"]["pruned"] >= 1
    times = [found[which]["predicted_ms"] for which in ("dense", "pruned", "least")]
    times += [ms for layer in found["layers"] for ms in (layer["dense_ms"], layer["pruned_ms"])]
    assert all(float(f"{ms:.3g}") == ms for ms in times)
    assert [layer["layer"] for layer in found["layers"] if layer["layer"]] == ["0", "3", "7"]
    assert {limit["kind"] for limit in found["limits"]} >= {"launches", "memory", "compute"}
    assert found["curve"][0]["predicted_speedup"] == 1
    page = (project / "plan.html").read_text()
    assert "NVIDIA A100" in page
    assert "not measurements" in page


def test_the_plan_is_the_one_of_the_pass_and_applies(project: Path, prunec: Prunec) -> None:
    found = forecast(prunec, "a100", "--speedup", 2, "-o", "plan.json")
    plan = PruningPlan.read(project / "plan.json")
    example = (torch.zeros(2, 1, 8, 8),)
    program = capture(dense_module(project), example)
    costs = roofline_costs(Target.parse("a100"), 1)
    assert isinstance(costs, RooflineCosts)
    own = PruneFilters(speedup=2.0, round_to=4, min_channels=1).run(program, costs=costs)
    assert plan == own.plan
    assert {group["group"]: group["kept"] for group in found["groups"]} == {
        group["name"]: group["kept"] for group in own.stats["groups"]
    }
    module = dense_module(project)
    assert apply_plan(module, plan, example).checked
    assert sum(p.numel() for p in module.parameters()) == found["pruned"]["parameters"]


def test_compile_takes_the_plan(project: Path, prunec: Prunec) -> None:
    found = forecast(prunec, "a100", "--parameters", 1500, "-o", "plan.json")
    compiled = prunec(
        "compile", "model.pt", "-t", "a100", "--plan", "plan.json", "--epochs", 0, "--no-engine", "-o", "out"
    )
    assert compiled.code == 0, compiled.err
    assert (project / "out" / "plan.json").read_bytes() == (project / "plan.json").read_bytes()
    report = json.loads((project / "out" / "report.json").read_text())
    assert (report["macs"]["compiled"], report["parameters"]["compiled"]) == (
        found["pruned"]["macs"],
        found["pruned"]["parameters"],
    )


def test_without_a_goal_the_recipe_decides(project: Path, prunec: Prunec) -> None:
    by_ratio = forecast(prunec, "a100")
    assert (by_ratio["goals"], by_ratio["allocation"]) == ({}, "ratio")
    assert [group["kept"] for group in by_ratio["groups"]] == [8, 8]
    (project / "prunec.toml").write_text('[model]\nfactory = "model:network"\ninput = [1, 8, 8]\n')
    assert forecast(prunec, "a100")["goals"] == {"speedup": 2.0}
    assert forecast(prunec, "a100", "--pipeline", "prune-filters{parameters=1000}")["goals"] == {"parameters": 1000}


def test_with_a_cost_model_of_this_machine_times_are_measured(
    project: Path, prunec: Prunec, cost_file: Callable[..., Path]
) -> None:
    arguments = ("cpu", "--cost-model", cost_file(), "--latency-speedup", 1.2)
    found = forecast(prunec, *arguments)
    assert (found["cost_model"]["source"], found["cost_model"]["from_file"]) == ("measured", True)
    assert found["predicted_speedup"] >= 1.2
    assert found["measured"]["speedup"] == pytest.approx(found["measured"]["dense_ms"] / found["measured"]["pruned_ms"])
    assert found["why_not_measured"] == ""
    assert (found["two_four"], found["layers"][0]["bound"]) == (None, None)
    kept = [point["importance_kept"] for point in found["curve"]]
    assert kept == sorted(kept, reverse=True)


def test_the_terminal_tells_it_in_80_columns(project: Path, prunec: Prunec) -> None:
    outcome = prunec(*PLAN, "a100-2:4", "--speedup", 2, "-o", "plan.json", "--html", "plan.html")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in project.glob("plan.*")} == {"plan.json", "plan.html"}
    assert all(len(line) <= 80 for line in tables(outcome)), outcome.out
    for words in ("speedup=2 (uniform)", "not measurements", "Not measured:", "what limits it", "Plan: plan.json"):
        assert words in outcome.out


def tables(outcome: Outcome) -> list[str]:
    """Lines of tables, which are indented."""
    return [line for line in outcome.out.splitlines() if line.startswith("  ")]


@pytest.mark.long
def test_on_this_cpu_the_cost_model_is_measured(project: Path, prunec: Prunec) -> None:
    outcome = prunec(*PLAN, "cpu", "--speedup", 2, "--json")
    assert outcome.code == 0, outcome.err
    assert "--cost-model costs.json makes that seconds" in outcome.err
    assert "Note: variant" not in outcome.err
    assert "] variant 1" in outcome.err
    found = json.loads(outcome.out)
    assert (found["cost_model"]["source"], found["cost_model"]["from_file"]) == ("measured", False)
    assert found["cost_model"]["error"].keys() == {"layers", "network"}
    assert found["measured"] is not None


def test_where_two_four_brings_nothing_that_is_said(project: Path, prunec: Prunec) -> None:
    found = forecast(prunec, "t4", "--speedup", 2)
    assert found["two_four"] is None
    assert found["why_no_two_four"].startswith("2:4 brings nothing here: ")
    assert found["why_no_two_four"].endswith(" has no sparse tensor cores.")


def test_where_nothing_tells_times_what_needs_none_is_planned(project: Path, prunec: Prunec, refused: Refused) -> None:
    arguments = ("orin-2:4", "--speedup", 2, "-o", "plan.json", "--html", "plan.html")
    found = forecast(prunec, *arguments)
    assert found["dense"]["macs"] >= 2 * found["pruned"]["macs"]
    assert PruningPlan.read(project / "plan.json").kept
    assert (found["cost_model"], found["predicted_speedup"], found["limits"], found["curve"]) == (None, None, [], [])
    assert {layer["dense_ms"] for layer in found["layers"]} == {found["dense"]["predicted_ms"]} == {None}
    assert found["why_no_times"].startswith("no source gives the peak rate")
    assert found["why_no_two_four"] == f"What 2:4 brings is not known: {found['why_no_times']}"
    outcome = prunec(*PLAN, *arguments)
    assert outcome.code == 0, outcome.err
    assert f"Times are not known: {found['why_no_times']}" in " ".join(outcome.out.split())
    assert found["why_no_times"] in (project / "plan.html").read_text()
    refused(2, "Nothing tells the times of layers", arguments=(*PLAN, "orin-2:4", "--latency-speedup", 1.2))


def test_the_measurement_in_the_end_can_be_left_out(prunec: Prunec, cost_file: Callable[..., Path]) -> None:
    found = forecast(prunec, "cpu", "--cost-model", cost_file(), "--speedup", 2, "--no-measure")
    assert (found["measured"], found["why_not_measured"]) == (None, "it was left out (--no-measure).")
    assert found["predicted_speedup"] > 1


def test_a_cost_model_of_another_machine_is_refused(refused: Refused, cost_file: Callable[..., Path]) -> None:
    costs = cost_file(hardware="another processor")
    refused(2, "another processor", arguments=(*PLAN, "cpu", "--cost-model", costs, "--latency-speedup", 1.2))


def test_what_is_out_of_reach_is_said_with_the_most_that_is_possible(refused: Refused) -> None:
    arguments = (*PLAN, "a100", "--latency-speedup", 50, "-o", "plan.json", "--html", "plan.html")
    refused(2, "can't be reached", "the largest is 1.0", arguments=arguments)
    refused(2, "can't be reached", "the least is", arguments=(*PLAN, "a100", "--parameters", 1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--latency-speedup", 0.5), "latency_speedup 0.5"),
        (("--pipeline", "recover{epochs=1}"), "prunes no filters"),
        (("--pipeline", "repeat{n=2}(prune-filters{ratio=0.2})"), "filters 2 times"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    refused: Refused, arguments: tuple[Any, ...], words: tuple[str, ...]
) -> None:
    refused(2, *words, arguments=(*PLAN, "a100", *arguments))


def test_places_that_cannot_be_written_are_refused(refused: Refused) -> None:
    refused(10, "--output nowhere/plan.json", arguments=(*PLAN, "a100", "-o", "nowhere/plan.json"))


def test_criteria_that_look_at_data_are_given_them(project: Path, prunec: Prunec) -> None:
    pipeline = ("--pipeline", "prune-filters{speedup=1.5,criterion=taylor}")
    found = forecast(prunec, "a100", *pipeline)
    (project / "prunec.toml").write_text('[model]\nfactory = "model:network"\ninput = [1, 8, 8]\n')
    without = prunec(*PLAN, "a100", *pipeline)
    assert "taylor" in found["step"]
    assert 0 < found["importance_kept"] < 1
    assert without.code == 2
    assert "there is no training data" in without.err


RESIDUAL = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.last(torch.relu(self.first(x))))

def network():
    blocks = [Block() for _ in range(4)]
    return nn.Sequential(nn.Conv2d(1, 16, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
"""


def test_branches_that_go_are_told(project: Path, prunec: Prunec) -> None:
    (project / "residual.py").write_text(RESIDUAL)
    torch.manual_seed(0)
    torch.save(import_callable("residual:network", project)().state_dict(), project / "model.pt")
    pipeline = "prune-filters{latency_speedup=1.6,depth=true,round_to=4}"
    found = forecast(prunec, "a100", "--model", "residual:network", "--pipeline", pipeline, "-o", "plan.json")
    branches = found["removed_branches"]
    assert branches
    assert [branch.name for branch in PruningPlan.read(project / "plan.json").removed_branches] == branches
    assert found["predicted_speedup"] >= 1.6
    gone = [layer for layer in found["layers"] if layer["pruned_channels"] == [0, 0] and layer["layer"]]
    assert {layer["layer"] for layer in gone} >= set(branches)
    assert {layer["pruned_ms"] for layer in gone} == {0}
    total = sum(layer["pruned_ms"] for layer in found["layers"])
    assert total == pytest.approx(found["pruned"]["predicted_ms"], rel=0.02)
    curve, least = found["curve"], found["least"]["predicted_ms"]
    assert (curve[0]["predicted_speedup"], curve[0]["importance_kept"]) == (1, 1)
    assert curve[-1]["predicted_ms"] == pytest.approx(least, rel=0.02)
    assert curve[-1]["predicted_speedup"] >= found["predicted_speedup"] >= curve[1]["predicted_speedup"]
    assert all(curve[-1]["importance_kept"] <= point["importance_kept"] < 1 for point in curve[1:])


def test_compile_and_plan_have_the_same_goals(project: Path, prunec: Prunec) -> None:
    flags = {f"--{goal.replace('_', '-')}": goal for goal in GOALS}
    given = [text for flag in flags for text in (flag, 2)]
    shown = prunec("compile", "model.pt", "-t", "a100", *given, "--dry-run")
    assert shown.code == 0, shown.err
    assert all(flag in shown.out for flag in flags)
    assert all(flag in prunec(command, "--help").out for flag in flags for command in ("plan", "compile"))


def test_the_help_names_the_goals_and_what_the_plan_is_for(prunec: Prunec) -> None:
    text = prunec("plan", "--help").out
    for words in ("--latency-speedup", "--latency-ms", "--size-mb", "--cost-model", "--html", "compile --plan"):
        assert words in text
