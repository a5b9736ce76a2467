"""Residual branches that a step removes, from the step to the bundle: report, page, tables, verify, replay."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunec.compiler.bundle.bundle_reader import bundle_program, read_bundle
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.commands.verify_checks import ask
from prunec.compiler.commands.verify_source import replay
from prunec.compiler.facts.settings import Settings
from prunec.compiler.project.project import ModelOptions
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import summary_rows
from prunec.compiler.stages.driver import compile_model
from prunec.passes import Program, capture
from prunec.passes.errors import InputError, PrunecError
from prunec.passes.unknown import Unknown
from tests.architectures.redraw import redraw_
from tests.compiler.test_verify_bundle import seal
from tests.plugins.install import installed

SETTINGS = Settings(latency_runs=3, build_engine=False, verify_each=True)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm(self.second(self.first(x).relu()))).relu()


def residual() -> Program:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Block(16), Block(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )  # fmt: skip
    return capture(redraw_(network, seed=0), (torch.randn(2, 3, 8, 8),))


@pytest.fixture(scope="module")
def _shallow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed(tmp_path_factory.mktemp("plug-in"), "prunec.steps", shallow="tests.plugins.shallow_step:STEP"):
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, _shallow: None) -> Path:
    """A bundle of which one branch was removed, before filters were pruned, permuted and masked."""
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    pipeline = "shallow{branches=[1.second]} prune-filters{ratio=0.25,round_to=4} permute{seconds=1} sparsify"
    assert compile_model(residual(), "a100-2:4", pipeline, output=path, settings=SETTINGS).passed
    return path


def test_a_bundle_and_its_report(bundle: Path) -> None:
    report = read_bundle(bundle).report
    removed = {row.name: row.removed_with for row in report.layers if row.removed_with}
    assert removed == {"1.first": "1.second", "1.second": "1.second"}
    assert report.removed_branches == ("1.second",)
    assert not isinstance(report.pruning, Unknown)
    assert report.pruning.removed_branches == ("1.second",)
    assert ("Depth", "1 branch removed: 1.second") in summary_rows(report)
    assert Report.from_json(report.to_json()) == report
    rows = {row["name"]: row for row in csv.DictReader((bundle / "layers.csv").read_text().splitlines())}
    assert rows["1.first"]["removed_with"] == "1.second"
    assert rows["1.first"]["compiled_shape"] == ""
    page = (bundle / "report.html").read_text()
    assert "1 branch removed: 1.second" in page
    assert "removed with the branch 1.second" in page


def failures(bundle: Path) -> list[str]:
    """The checks of `prunec verify` that fail, the replay on the dense network among them."""
    checks = verify_bundle(bundle, source=None, config=None, model=ModelOptions()).checks
    replayed = ask("replay", lambda: replay(read_bundle(bundle), residual(), bundle_program(bundle)))
    return [f"{check.name}: {check.detail}" for check in (*checks, replayed) if check.verdict == "failed"]


def test_verify(bundle: Path) -> None:
    assert failures(bundle) == []
    told = replay(read_bundle(bundle), residual(), bundle_program(bundle))
    assert told.startswith("1 branches removed, ")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("plan.json", '"name":"1.second"', '"name":"2.second"'),
        ("plan.json", '"1.first.weight"', '"2.first.weight"'),
        ("plan.json", '"removed_branches"', '"removed_branches":[],"x"'),
        ("report.json", '"removed_with": "1.second"', '"removed_with": "2.second"'),
        ("report.json", '"1.second"\n    ]', '"2.second"\n    ]'),
    ],
)
def test_what_a_bundle_tells_of_branches_is_checked(
    bundle: Path, tmp_path: Path, file: str, old: str, new: str
) -> None:
    other = shutil.copytree(bundle, tmp_path / "b")
    text = (other / file).read_text()
    assert old in text
    (other / file).write_text(text.replace(old, new, 1))
    seal(other)
    assert failures(other)


@pytest.mark.usefixtures("_shallow")
def test_layers_that_the_plan_does_not_tell_of(tmp_path: Path) -> None:
    with pytest.raises(PrunecError, match="has the layers"):
        compile_model(
            residual(), "cpu", "shallow{branches=[1.second,2.second],told=1}", output=tmp_path / "b", settings=SETTINGS
        )
    with pytest.raises(InputError, match="no residual branch"):
        compile_model(residual(), "cpu", "shallow{branches=[1.first]}", output=tmp_path / "b", settings=SETTINGS)
