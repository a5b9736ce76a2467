"""Compiles for INT8 whose settings are found by trying, and whose layers stay in higher precision for a budget."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunec.calibration.data import Data
from prunec.compiler.facts.settings import Settings
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import summary_rows
from prunec.compiler.stages.driver import compile_model
from prunec.passes import Program
from prunec.passes.errors import UsageError
from prunec.passes.unknown import known
from tests.compiler.test_int8 import data, failed, program
from tests.compiler.test_verify_bundle import in_report, seal

__all__ = ["data", "program"]
FAST = Settings(latency_runs=5)
PIPELINE = "calibrate{method=auto,keep_macs=0.1,samples=64}"


@pytest.fixture(scope="module")
def compiled(program: Program, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    output = tmp_path_factory.mktemp("auto") / "net.bundle"
    return compile_model(program, "cpu-int8", PIPELINE, data, output, settings=FAST), output


def test_the_report_tells_what_was_tried_and_taken(compiled: tuple[Report, Path]) -> None:
    part = known(compiled[0].calibration)
    assert part is not None
    tried = known(part.tried)
    assert tried is not None
    assert len(tried) == 9
    assert known(part.held_back) == 16
    assert part.images == 64
    best = min(tried, key=tried.__getitem__)
    assert best.startswith(part.method)
    assert part.equalized == ("equalized" in best)
    assert (part.rounding == "corrected") == ("corrected" in best)
    rows = dict(summary_rows(compiled[0]))
    assert rows["Tried"].startswith(f"error of the outputs on 16 images held back: {best} {tried[best]:.2g}")
    assert rows["Tried"].endswith("and 6 more")


def test_layers_in_higher_precision_are_within_the_budget(compiled: tuple[Report, Path]) -> None:
    report, _ = compiled
    part = known(report.calibration)
    assert part is not None
    kept = {layer.layer: layer.reason for layer in part.layers if layer.precision != "int8"}
    assert kept == dict.fromkeys(("stem.0", "head"), "kept by sensitivity")
    assert 0 < part.higher_precision_macs <= 0.1
    assert report.passed


def test_verify_passes(compiled: tuple[Report, Path]) -> None:
    assert failed(compiled[1]) == {}


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (lambda part: part.update(method="entropy" if part["method"] != "entropy" else "mse"), "calibration.method"),
        (lambda part: part.update(equalized=not part["equalized"]), "calibration.method"),
        (lambda part: part["tried"].update({"min-max": 0.0}), "calibration.method"),
        (lambda part: part.update(tried={}), "calibration.tried is told"),
    ],
)
def test_verify_finds_settings_that_are_not_the_best_of_what_was_tried(
    compiled: tuple[Report, Path], tmp_path: Path, change: Callable[[dict[str, Any]], object], claim: str
) -> None:
    folder = tmp_path / "net.bundle"
    shutil.copytree(compiled[1], folder)
    in_report(lambda report: change(report["calibration"]))(folder)
    seal(folder)
    assert any(claim in detail for detail in failed(folder).values())


def test_runs_are_alike(compiled: tuple[Report, Path], program: Program, data: Data, tmp_path: Path) -> None:
    again = compile_model(
        program, "cpu-int8", PIPELINE, data, tmp_path / "b", settings=replace(FAST, build_engine=False)
    )
    first, second = (known(report.calibration) for report in (compiled[0], again))
    assert first == second


def test_too_few_images_to_try_settings_are_an_error(program: Program, data: Data, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 in 4 samples is held back"):
        compile_model(program, "cpu-int8", "calibrate{method=auto,samples=3}", data, tmp_path / "b", settings=FAST)
