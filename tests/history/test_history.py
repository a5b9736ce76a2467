"""What earlier versions wrote stays readable: stored reports and bundles, through the commands that take them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prunec.compiler.cli.main import run
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.report.report import Report, report_schema
from prunec.passes.unknown import Unknown
from tests.history.store import FIELDS, FOLDER, PROJECT, fields

STATES = sorted(path.parent for path in FOLDER.glob(f"*/{FIELDS}"))
BUNDLES = sorted(path.parent for path in FOLDER.glob("*/*/manifest.json"))
CPU_BUNDLES = [bundle for bundle in BUNDLES if bundle.name != "sparse"]
REPORTS = sorted([*FOLDER.glob("*/*.json"), *(bundle / "report.json" for bundle in BUNDLES)])
SOURCE = ("--source", str(PROJECT / "model.pt"), "--config", str(PROJECT / "prunec.toml"))


def name_of(path: Path) -> str:
    """``03-permutation-cpu`` for a stored bundle, or report of it: unique, as a comparison's runs must be."""
    return "-".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix("-report")


@pytest.fixture(params=BUNDLES, ids=name_of)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a stored bundle, which a command may change."""
    stored: Path = request.param
    return shutil.copytree(stored, tmp_path / name_of(stored))


def document(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_every_state_has_a_bundle_and_reports() -> None:
    assert len(STATES) >= 7
    for state in STATES:
        assert any(bundle.parent == state for bundle in BUNDLES), f"{state.name} has no whole bundle"
        assert any(report.parent == state for report in REPORTS), f"{state.name} has no further report"


def test_fields_of_today_are_stored() -> None:
    """A failure says that report.json has other fields now: store what this version writes."""
    stored = (STATES[-1] / FIELDS).read_text(encoding="utf-8")
    assert fields(report_schema()) == stored, (
        f"report.json has other fields than {STATES[-1].name}. A new one must be optional, with the reason why an "
        "older report lacks it, or the schema gets a new number and a reader for the old. Then run: "
        "python -m tests.history.store NAME"
    )


def test_fields_tell_types_limits_and_absence() -> None:
    count = {"type": "integer", "minimum": 0}
    part = {"type": "object", "properties": {"count": count, "note": {"const": "x"}}, "required": ["count"]}
    schema = {
        "$defs": {"Part": part},
        "type": "object",
        "properties": {
            "parts": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]}},
            "names": {"type": "object", "additionalProperties": {"type": "string", "title": "ignored"}},
        },
        "required": ["parts", "names"],
    }
    assert fields(json.dumps(schema)).splitlines() == [
        "names: object",
        "names.{}: string",
        "parts: array",
        "parts.*: object | null",
        "parts.*.count: integer minimum 0",
        'parts.*.note: const "x" | may be absent',
    ]


@pytest.mark.parametrize("path", REPORTS, ids=name_of)
def test_report_reads(path: Path) -> None:
    stored, report = document(path), Report.from_json(path.read_text(encoding="utf-8"))
    assert report.status == stored["status"]
    assert report.exit_code == stored["exit_code"]
    assert report.macs.compiled == stored["macs"]["compiled"]
    assert [layer.name for layer in report.layers] == [layer["name"] for layer in stored["layers"]]
    assert [(gate.name, gate.verdict) for gate in report.gates] == [(g["name"], g["verdict"]) for g in stored["gates"]]
    assert str(parse_pipeline(report.pipeline)) == stored["pipeline"]
    assert Report.from_json(report.to_json()) == report


def test_reports_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All in one comparison, each with the accuracy and the speed-up that its report tells."""
    for path in REPORTS:
        shutil.copy(path, tmp_path / f"{name_of(path)}.json")
    copies = sorted(tmp_path.iterdir())
    assert run(["compare", *map(str, copies), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)["cards"]
    cards = {card["name"]: card for card in read if card["arm_of"] is None}
    assert len(cards) == len(REPORTS)
    for path in copies:
        stored = document(path)
        assert cards[path.stem]["speedup"] == stored["macs"]["speedup"]
        assert cards[path.stem]["accuracy"]["mean"] == stored["runs_summary"]["mean"]
        assert cards[path.stem]["dense_accuracy"] == stored["accuracy"]["dense"]


def test_bundles_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies = [shutil.copytree(bundle, tmp_path / name_of(bundle)) for bundle in BUNDLES]
    assert run(["compare", *map(str, copies)]) == 0
    assert "Verdict:" in capsys.readouterr().out


def test_bundle_verifies_against_its_source(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that is asked of a bundle without its source, and what only the source can tell."""
    assert run(["verify", str(bundle), *SOURCE, "--json"]) == 0
    checks = {check["name"]: check["verdict"] for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["plan replayed on the source"] == "passed"


@pytest.mark.parametrize("bundle", CPU_BUNDLES, ids=name_of, indirect=True)
def test_bundle_builds(bundle: Path) -> None:
    """The gates are judged as they were: also where one isn't known and was let pass."""
    exit_code = document(bundle / "report.json")["exit_code"]
    assert run(["build", str(bundle)]) == exit_code
    report = Report.from_json((bundle / "report.json").read_text(encoding="utf-8"))
    assert not isinstance(report.engine, Unknown)
    assert (bundle / "report.html").is_file()
    assert run(["verify", str(bundle)]) == 0


def test_bundle_is_inspected_profiled_and_evaluated(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = document(bundle / "report.json")["accuracy"]["exported"]
    assert run(["inspect", str(bundle)]) == 0
    assert run(["profile", str(bundle), "--runs", "2"]) == 0
    capsys.readouterr()
    assert run(["eval", str(bundle), "--config", str(PROJECT / "prunec.toml"), "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["value"]
    assert exported is None or accuracy == pytest.approx(exported)
