"""Layers of low rank through a whole compile: report, page, tables, verify, replay, the user's own module."""

import copy
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunec.compiler.bundle.bundle_reader import bundle_program, read_bundle
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.commands.verify_source import replay
from prunec.compiler.facts.settings import Settings
from prunec.compiler.fairness import report_card
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.pipeline.recipe import from_recipe
from prunec.compiler.project.project import ModelOptions
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import summary_rows
from prunec.compiler.stages.driver import compile_model
from prunec.compiler.stages.low_rank_checks import check_decompositions
from prunec.passes import Program, PruningPlan, apply_plan, capture
from prunec.passes.errors import NumericMismatchError, PrunecError, UsageError
from prunec.passes.factors import factor_names
from prunec.passes.oracle import relative_error
from prunec.passes.unknown import Unknown, known
from prunec.runtime.target import Target
from tests.architectures.redraw import redraw_
from tests.compiler.test_verify_bundle import seal
from tests.methods.toy import toy
from tests.quarters import quarters

SETTINGS = Settings(latency_runs=3, cpu_latency=False, build_engine=False, verify_each=True)
JOINT = "prune-filters{speedup=2.0,criterion=cc,allocation=joint,min_channels=4,round_to=4}"


def module() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 4),
    )  # fmt: skip
    return redraw_(network.eval(), seed=0)


def dense() -> Program:
    return capture(module(), (torch.randn(2, 3, 8, 8),))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of a decomposition behind a pruning, masked to 2:4, and of a joint choice."""
    folder = tmp_path_factory.mktemp("bundles")
    pipelines = {
        "one": ("a100-2:4", "prune-filters{ratio=0.25,round_to=4} permute{seconds=1} decompose{speedup=1.6,round_to=4} "
                "sparsify"),
        "alone": ("cpu", "decompose{rank={3=8,7=6}}"),
        "joint": ("cpu", JOINT),
    }  # fmt: skip
    for name, (target, pipeline) in pipelines.items():
        report = compile_model(dense(), target, pipeline, output=folder / name, settings=SETTINGS)
        assert report.passed, name
    return {name: folder / name for name in pipelines}


def failures(bundle: Path) -> list[str]:
    checks = verify_bundle(bundle, source=None, config=None, model=ModelOptions()).checks
    return [f"{check.name}: {check.detail}" for check in checks if check.verdict == "failed"]


@pytest.mark.parametrize("name", ["one", "alone", "joint"])
def test_a_bundle_tells_of_ranks_and_can_be_verified(name: str, bundles: dict[str, Path]) -> None:
    bundle = bundles[name]
    report, plan = read_bundle(bundle).report, PruningPlan.from_json((bundle / "plan.json").read_text())
    assert plan.ranks
    told = {row.name: row.rank for row in report.layers if row.rank is not None}
    assert told == {weight.rpartition(".")[0]: rank for weight, rank in plan.ranks.items()}
    program = bundle_program(bundle)
    assert [row.name for row in report.compiled_layers] == [layer.name for layer in program.layers()]
    assert report.macs.compiled == program.macs() < report.macs.dense
    for row in report.layers:
        if row.factor_of is not None:
            assert row.shape == () and row.name.startswith(f"{row.factor_of}.")
            assert isinstance(row.sparsity, Unknown) or row.sparsity.eligible in (True, False)
    part, oracle = known(report.low_rank), known(report.oracle)
    assert part is not None and {layer.layer: layer.rank for layer in part.layers} == told
    assert oracle is not None and known(oracle.masked_max_relative_error) is not None
    groups = known(report.compression_groups) or ()
    assert ("low-rank decomposition" in groups, "pruning" in groups) == (True, name != "alone")
    assert any(label == "Low rank" for label, _ in summary_rows(report))
    assert Report.from_json(report.to_json()) == report
    rows = {row["name"]: row for row in csv.DictReader((bundle / "layers.csv").read_text().splitlines())}
    assert rows["3"]["rank"] == str(plan.ranks.get("3.weight", ""))
    page = (bundle / "report.html").read_text()
    assert all(f"decomposed, of rank {rank}" in page for rank in plan.ranks.values())
    assert failures(bundle) == []
    assert "layers decomposed; oracle" in replay(read_bundle(bundle), dense(), program)


def test_accuracy_and_the_row_of_the_step_are_those_of_a_step_that_changes_the_network(
    bundles: dict[str, Path],
) -> None:
    report = read_bundle(bundles["one"]).report
    steps = known(report.steps)
    assert steps is not None
    assert steps[3].name.startswith("decompose{speedup=1.6") and steps[3].macs < steps[2].macs
    ledger = known(report.ledger)
    assert ledger is not None
    entry = next(entry for entry in ledger if entry.stage == "decompose")
    assert entry.removed and entry.options["speedup"] == 1.6
    assert report_card(report, "a").structure == "filters, 2:4, ranks of layers"
    sparsity = {row.name: known(row.sparsity) for row in report.compiled_layers}
    factor = sparsity["3.0"]
    assert factor is not None and factor.valid
    assert factor.permutation_gain == Unknown("no order of its channels was searched for.")


def test_the_plan_makes_of_the_module_what_the_bundle_computes(bundles: dict[str, Path]) -> None:
    x = torch.randn(3, 3, 8, 8)
    for name in ("alone", "joint"):
        own = copy.deepcopy(module())
        assert apply_plan(own, PruningPlan.from_json((bundles[name] / "plan.json").read_text()), (x,)).checked
        program = bundle_program(bundles[name])
        with torch.no_grad():
            assert relative_error(own(x), program(x)) < 1e-5
        assert dict(own.named_parameters()).keys() == program.parameters().keys()


def tampered(bundle: Path, folder: Path, **ranks: Any) -> Path:
    copied = folder / "tampered"
    shutil.copytree(bundle, copied)
    plan = json.loads((copied / "plan.json").read_text())
    plan["ranks"] |= {f"{name}.weight": rank for name, rank in ranks.items()}
    (copied / "plan.json").write_text(json.dumps(plan))
    seal(copied)
    return copied


def test_another_rank_in_the_plan_is_found(bundles: dict[str, Path], tmp_path: Path) -> None:
    copied = tampered(bundles["alone"], tmp_path, **{"3": 9})
    assert any("rank" in words for words in failures(copied))
    with pytest.raises(NumericMismatchError, match="parameters differ in shape"):
        replay(read_bundle(copied), dense(), bundle_program(copied))


def test_other_factors_than_those_of_the_source_are_found(bundles: dict[str, Path]) -> None:
    bundle, program = read_bundle(bundles["alone"]), bundle_program(bundles["alone"]).clone()
    assert "2 layers decomposed" in replay(bundle, dense(), program)
    with torch.no_grad():
        program.tensors()[factor_names("3.weight")[0]].mul_(1.01)
    with pytest.raises(NumericMismatchError, match=r"factors of 3\.weight have another product"):
        replay(bundle, dense(), program)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("decompose{speedup=1.5} prune-filters{ratio=0.5}", "Put prune-filters before decompose"),
        ("decompose{speedup=1.5} permute", "Put permute before decompose"),
        ("sparsify decompose{speedup=1.5}", "a layer whose weight is masked stays whole"),
        ("calibrate decompose{speedup=1.5}", "ranges are those of the network"),
    ],
)
def test_orders_that_make_no_sense(pipeline: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_pipeline(pipeline)


@pytest.mark.parametrize("later", ["permute", "prune-filters{ratio=0.5}", "decompose{speedup=1.5}"])
def test_nothing_is_cut_behind_a_joint_choice(later: str) -> None:
    with pytest.raises(UsageError, match="which decomposes layers"):
        check_decompositions(parse_pipeline(f"{JOINT} {later}"))
    check_decompositions(parse_pipeline(f"{JOINT} sparsify"))
    with pytest.raises(UsageError, match="decompose behind decompose"):
        check_decompositions(parse_pipeline("decompose{speedup=1.5} decompose{rank=3}"))


def test_a_recipe_with_a_table_decomposes_before_it_masks() -> None:
    target = Target.parse("a100-2:4")
    pipeline = from_recipe({"decompose": {"ratio": 0.5}}, target, has_data=True)
    assert [step.name for step in pipeline.steps] == ["prune-filters", "permute", "decompose", "sparsify", "recover"]
    assert pipeline.steps[2].options.round_to == target.channel_multiple
    named = from_recipe({"decompose": {"rank": {"3": 5}}}, target)
    assert named.steps[2].options.round_to == 1


def test_what_decomposes_nothing_is_told_as_not_done(tmp_path: Path) -> None:
    report = compile_model(dense(), "cpu", "decompose{rank=1000}", output=tmp_path / "b", settings=SETTINGS)
    assert report.exit_code == 7
    assert isinstance(report.low_rank, Unknown) or not report.low_rank.layers
    with pytest.raises(PrunecError, match="can't be reached"):
        compile_model(dense(), "cpu", "decompose{speedup=900.0}", output=tmp_path / "c", settings=SETTINGS)


@pytest.mark.long
@pytest.mark.parametrize("steps", [JOINT, "prune-filters{ratio=0.25} decompose{ratio=0.4}"])
def test_control_arms_and_further_seeds_have_the_same_widths_and_ranks(steps: str, tmp_path: Path) -> None:
    trained = parse_schedule("step:0=0.01,2=0.001", epochs=4)
    settings = Settings(
        latency_runs=3, build_engine=False, controls=("random", "scratch-e"), seeds=2, pretraining=trained,
        pretraining_optimizer="sgd",
    )  # fmt: skip
    pipeline = f"{steps} recover{{epochs=1,schedule=constant:0.01,batch_size=32,probe=0}}"
    data = quarters(tmp_path, 128, 32)
    report = compile_model(toy(), "cpu", pipeline, data, tmp_path / "bundle", settings=settings)
    assert report.passed
    assert [control.macs for control in report.controls] == [report.macs.compiled] * 2
    assert len(report.runs) == 2
