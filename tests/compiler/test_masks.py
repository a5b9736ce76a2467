"""Masks of any pattern through a whole compile: they hold, the report tells of them, what makes no sense is refused."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.bundle.bundle_reader import bundle_program, read_bundle
from prunec.compiler.bundle.manifest import describe_folder
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.commands.verify_masks import mask_claims
from prunec.compiler.facts.settings import Settings
from prunec.compiler.fairness import report_card
from prunec.compiler.gates.judging import judged
from prunec.compiler.pipeline.own_steps import steps_of_recipe
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import report_line, summary_rows
from prunec.compiler.stages import recover_step
from prunec.compiler.stages.driver import compile_model
from prunec.compiler.stages.request_checks import check_patterns
from prunec.passes import Program, capture
from prunec.passes.errors import SparsityGateError, UsageError
from prunec.passes.patterns.unit_masks import holds_mask
from prunec.passes.unknown import Unknown, known
from prunec.runtime.target import Target

FAST = Settings(latency_runs=3, cpu_latency=False)
TRAIN = "recover{epochs=1,schedule=constant:0.02,batch_size=32,probe=0}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """120 + 60 grey images of 8x8 whose class is the bright quadrant."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 4, count)
        images = rng.integers(0, 60, (count, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[4 * (label // 2) :][:4, 4 * (label % 2) :][:, :4] += 120
        return images.astype(np.uint8), labels

    train, test = split(120), split(60)
    np.savez(
        folder / "data.npz", train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1]
    )
    return load_data(DataConfig(train="npz:data.npz", test="npz:data.npz"), folder, seed=0)


def network(seed: int = 0) -> Program:
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    return capture(layers.eval(), (torch.randn(2, 1, 8, 8),))


@pytest.fixture(scope="module")
def compiled(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    output = tmp_path_factory.mktemp("out") / "net.bundle"
    pipeline = f"sparsify{{pattern=elements,ratio=0.7,allocation=global}} {TRAIN}"
    return compile_model(network(), "cpu", pipeline, data, output, settings=FAST), output


def test_masks_hold_through_training_and_in_the_exported_model(compiled: tuple[Report, Path]) -> None:
    report, output = compiled
    assert report.passed
    saved = Program.load(output / "model.pt2")
    tensors = saved.tensors()
    assert saved.masks.keys() == {"0.weight", "3.weight", "7.weight"}
    for name, mask in saved.masks.items():
        assert holds_mask(tensors[name], mask, saved.pattern_of(name))
    weights = {w.name: numpy_helper.to_array(w) for w in onnx.load(output / "model.onnx").graph.initializer}
    for name, mask in saved.masks.items():
        exported = weights[name] if weights[name].shape == mask.shape else weights[name].T
        assert not exported[~mask.numpy()].any(), name


def test_the_report_tells_what_was_masked_and_that_nothing_is_faster(compiled: tuple[Report, Path]) -> None:
    report, _ = compiled
    (part,) = known(report.masking) or ()
    weights = 72 + 576 + 128
    assert (part.pattern, part.criterion, part.allocation) == ("elements", "magnitude", "global")
    assert (part.weights, part.masked) == (weights, -(-weights * 7 // 10))
    assert part.asked_share == pytest.approx(0.7)
    assert part.masked_share == part.masked / weights
    assert part.speed == "theoretical"
    (warning,) = known(report.warnings) or ()
    assert "masks of elements make nothing faster on cpu, their gain is theoretical: kernels multiply" in warning
    assert "but: masks of elements" in report_line(report)
    assert any(
        label == "Masks" and value.startswith("elements by magnitude: 70") for label, value in summary_rows(report)
    )
    assert report_card(report, "a").structure == "elements"
    assert judged(report, [], allow_unknown=False, strict=True).exit_code == SparsityGateError.exit_code
    assert Report.from_json(report.to_json()) == report


def test_verify_counts_the_masks_again(compiled: tuple[Report, Path]) -> None:
    found = verify_bundle(compiled[1], source=None, config=None, model=ModelOptions())
    assert {check.name: check.verdict for check in found.checks if check.verdict == "failed"} == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [("masked", 1), ("masked_share", 0.5), ("asked_share", 0.5), ("pattern", "rows"), ("speed", "sparse tensor cores")],
)
def test_verify_sees_what_is_told_otherwise(
    compiled: tuple[Report, Path], tmp_path: Path, field: str, value: object
) -> None:
    folder = shutil.copytree(compiled[1], tmp_path / "b")
    document = json.loads((folder / "report.json").read_text())
    document["masking"][0][field] = value
    (folder / "report.json").write_text(json.dumps(document))
    (folder / "manifest.json").write_text(describe_folder(folder, 0).to_json())
    bundle = read_bundle(folder)
    claims = list(mask_claims(bundle.report, bundle_program(folder)))
    assert any(not claim.holds for claim in claims)
    assert all(claim.holds for claim in mask_claims(compiled[0], bundle_program(folder)))


def test_a_compile_that_is_strict_is_refused_before_any_work(tmp_path: Path) -> None:
    settings = replace(FAST, strict=True)
    with pytest.raises(SparsityGateError, match="no target has kernels for rows"):
        compile_model(network(), "cpu", "sparsify{pattern=rows,ratio=0.5}", None, tmp_path / "b", settings=settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pattern", ["rows", "channels", "columns", "block:4x4"])
def test_every_pattern_compiles(pattern: str, tmp_path: Path) -> None:
    pipeline = f"sparsify{{pattern={pattern},ratio=0.5}}"
    report = compile_model(
        network(), "a100-dense", pipeline, None, tmp_path / "b", settings=replace(FAST, build_engine=False)
    )
    assert report.passed
    (part,) = known(report.masking) or ()
    assert part.masked_share == pytest.approx(0.5, abs=0.1)
    assert len(known(report.warnings) or ()) == 1
    found = verify_bundle(tmp_path / "b", source=None, config=None, model=ModelOptions())
    assert [check for check in found.checks if check.verdict == "failed"] == []


def test_two_four_without_sparse_kernels_is_theoretical(tmp_path: Path) -> None:
    settings = replace(FAST, build_engine=False)
    reports = {
        target: compile_model(network(), target, "sparsify", None, tmp_path / target, settings=settings)
        for target in ("a100-dense", "a100-2:4")
    }
    speeds = {target: (known(report.masking) or ())[0].speed for target, report in reports.items()}
    assert speeds == {"a100-dense": "theoretical", "a100-2:4": "sparse tensor cores"}
    assert {target: len(known(report.warnings) or ()) for target, report in reports.items()} == {
        "a100-dense": 1,
        "a100-2:4": 0,
    }


def test_other_masks_run_no_sparse_kernels(tmp_path: Path) -> None:
    """A prediction that counts masks as 2:4 would be of half the multiplications."""
    settings = replace(FAST, build_engine=False)
    pipeline = "sparsify{ignore=[3]} sparsify{pattern=elements,ratio=0.9,ignore=[0,7]}"
    report = compile_model(network(), "a100-2:4", pipeline, None, tmp_path / "b", settings=settings)
    assert [part.pattern for part in known(report.masking) or ()] == ["2:4", "elements"]
    valid = {row.name: s.valid for row in report.layers if not isinstance(s := row.sparsity, Unknown)}
    assert valid["7"]
    found = verify_bundle(tmp_path / "b", source=None, config=None, model=ModelOptions())
    assert [check for check in found.checks if check.verdict == "failed"] == []


def test_masks_hold_on_grids(data: Data, tmp_path: Path) -> None:
    """Batch norms are folded into masked weights, which are rounded: zeros stay zeros."""
    pipeline = "sparsify{pattern=elements,ratio=0.5} calibrate{samples=64}"
    report = compile_model(network(), "cpu-int8", pipeline, data, tmp_path / "b", settings=FAST)
    assert report.passed
    saved = Program.load(tmp_path / "b" / "model.pt2")
    for name, mask in saved.masks.items():
        assert holds_mask(saved.tensors()[name], mask, saved.pattern_of(name))
    found = verify_bundle(tmp_path / "b", source=None, config=None, model=ModelOptions())
    assert [check for check in found.checks if check.verdict == "failed"] == []


def test_a_lottery_ticket_is_a_pipeline(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels of a fifth of what is left, each trained from the early weights: survivors start from them bit for bit."""
    early, started = network(seed=3), []
    train = recover_step.train

    def watched(options: Any, given: Any, program: Program, *others: Any) -> Any:
        started.append(program.clone())
        return train(options, given, program, *others)

    monkeypatch.setattr(recover_step, "train", watched)
    settings = replace(
        FAST, early={"early.pt": early}, pretraining=parse_schedule("step:0=0.05,2=0.01", epochs=3), build_engine=True
    )
    level = "sparsify{pattern=elements,ratio_of_rest=0.2,until=0.45,allocation=global}"
    pipeline = f"repeat{{n=3}}({level} recover{{epochs=2,schedule=wr,early=early.pt,batch_size=32,probe=0}})"
    report = compile_model(network(), "cpu", pipeline, data, tmp_path / "b", settings=settings)
    parts = known(report.masking) or ()
    weights = parts[0].weights
    assert [part.masked for part in parts] == [156, 280, 350]  # ceil(0.2 of the rest) twice, then 0.45 of 776
    assert weights == 776
    values = early.tensors()
    assert len(started) == 3
    for program in started:
        for name, tensor in program.tensors().items():
            mask = program.masks.get(name)
            assert torch.equal(tensor, values[name] if mask is None else values[name] * mask), name
    masks = [program.masks for program in started]
    for before, after in pairwise(masks):
        assert all(not (after[name] & ~before[name]).any() for name in after)
    saved = Program.load(tmp_path / "b" / "model.pt2")
    for name, mask in saved.masks.items():
        assert torch.equal(mask, masks[-1][name])
        assert not saved.tensors()[name][~mask].any()
    found = verify_bundle(tmp_path / "b", source=None, config=None, model=ModelOptions())
    assert [check for check in found.checks if check.verdict == "failed"] == []


@pytest.mark.parametrize(
    ("target", "pipeline", "message"),
    [
        ("cpu", "sparsify", "masks weights to 2:4, and .* has no sparse tensor cores"),
        ("t4", "sparsify{pattern=2:4}", "has no sparse tensor cores"),
        ("cpu", "sparsify{pattern=elements,ratio=0.5,ignore=[a]} sparsify{ignore=[b]}", "has no sparse tensor cores"),
        ("a100-2:4", "sparsify{pattern=elements,ratio=0.5}", "asks for 2:4, and the pipeline masks to elements alone"),
        ("a100-2:4", "sparsify{pattern=1:4}", "asks for 2:4, and the pipeline masks to 1:4 alone"),
        ("cpu", "permute sparsify{pattern=rows,ratio=0.5}", "permute puts channels in an order for 2:4"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    target: str, pipeline: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        check_patterns(parse_pipeline(pipeline), Target.parse(target))
    with pytest.raises(UsageError, match=message):
        compile_model(network(), target, pipeline, None, tmp_path / "b", settings=FAST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "pipeline"),
    [
        ("cpu", "sparsify{pattern=elements,ratio=0.5}"),
        ("cpu", "permute"),
        ("a100-dense", "permute sparsify"),
        ("a100-2:4", "permute sparsify"),
        ("a100-2:4", "sparsify{ignore=[a]} sparsify{pattern=rows,ratio=0.5,ignore=[b]}"),
    ],
)
def test_what_can_be_asked_for(target: str, pipeline: str) -> None:
    check_patterns(parse_pipeline(pipeline), Target.parse(target))


def test_a_table_of_masks_that_no_target_asks_for_runs() -> None:
    cpu, sparse = Target.parse("cpu"), Target.parse("a100-2:4")
    elements = {"sparsify": {"pattern": "elements", "ratio": 0.5}}
    assert steps_of_recipe(elements, cpu, False) == {"prune-filters": "default", "sparsify": "table [recipe.sparsify]"}
    assert "sparsify" not in steps_of_recipe({"sparsify": {"ignore": ["a"]}}, cpu, False)
    assert "sparsify" not in steps_of_recipe({"sparsify": {"pattern": "2:4"}}, cpu, False)
    assert steps_of_recipe(elements, sparse, False)["sparsify"] == "target"


def test_require_sparse_foresees_masks_that_are_never_two_four(tmp_path: Path) -> None:
    settings = replace(FAST, build_engine=False, require_sparse_percent=50.0)
    pipeline = "sparsify{pattern=elements,ratio=0.5}"
    with pytest.raises(SparsityGateError, match="no step of the pipeline makes a layer 2:4"):
        compile_model(network(), "a100-dense", pipeline, None, tmp_path / "b", settings=settings)
