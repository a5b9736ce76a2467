"""``prunec inspect --target``: a look ahead, marked as prediction."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Prunec

WIDE = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1024, 3, padding=1), nn.ReLU(),
        nn.Conv2d(1024, 1024, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 4),
    )
"""


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "wide.py").write_text(WIDE)
    (tmp_path / "prunec.toml").write_text('[model]\nfactory = "wide:network"\ninput = [1, 8, 8]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import torch
    import wide as module  # type: ignore[import-not-found]

    torch.save(module.network().state_dict(), tmp_path / "model.pt")
    return tmp_path


def look(prunec: Prunec, *arguments: object) -> dict[str, Any]:
    outcome = prunec("inspect", "model.pt", "--json", *arguments)
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_layers_and_groups_before_any_training(wide: Path, prunec: Prunec) -> None:
    ahead = look(prunec, "--target", "a100-2:4", "--batch", 64)["ahead"]
    assert (ahead["target"], ahead["batch"], ahead["source"]) == ("a100-2:4-fp16", 64, "roofline")
    assert 0 < ahead["predicted_two_four_ms"] < ahead["predicted_ms"]
    assert ahead["reason"] == ""
    layers = {layer["layer"]: layer for layer in ahead["layers"]}
    assert sum(layer["macs_share"] for layer in ahead["layers"]) == pytest.approx(1)
    assert sum(layer["predicted_ms"] for layer in ahead["layers"]) == pytest.approx(ahead["predicted_ms"])
    assert [layers[name]["likely_to_gain"] for name in ("0", "4", "7")] == [False, True, False]
    assert layers["0"]["two_four_gain"] is None
    assert "no multiple of 4" in layers["0"]["reason"]
    assert layers["4"]["two_four_gain"] == pytest.approx(1.2, abs=0.05)
    assert [layers[name]["bound"] for name in ("4", "7")] == ["compute", "launch"]
    assert [layer["group"] for layer in ahead["layers"]] == ["0", "2", "4", ""]
    saved = {group["group"]: group for group in ahead["groups"]}
    assert saved["2"]["halved_ms_saved"] > saved["0"]["halved_ms_saved"] > 0
    assert saved["2"]["halved_macs_saved"] == pytest.approx(0.5, abs=0.01)  # nearly all MACs are in its two layers


def test_the_text_says_that_times_are_predicted(wide: Path, prunec: Prunec) -> None:
    outcome = prunec("inspect", "model.pt", "--target", "a100-2:4-int8")
    assert outcome.code == 0, outcome.err
    assert "on a100-2:4-int8 at batch 1: 0.0" in outcome.out
    assert "predictions from the device's data sheet, not measurements" in outcome.out
    assert "likely to gain" in outcome.out


@pytest.mark.parametrize(
    ("target", "reason"),
    [("cpu", "prunec measure-costs CHECKPOINT --target cpu"), ("orin-2:4", "no source gives the peak rate")],
)
def test_what_is_not_predicted_has_a_reason(wide: Path, prunec: Prunec, target: str, reason: str) -> None:
    ahead = look(prunec, "--target", target)["ahead"]
    assert ahead["predicted_ms"] is None
    assert reason in ahead["reason"]
    assert {layer["predicted_ms"] for layer in ahead["layers"]} == {None}
    assert [layer["likely_to_gain"] for layer in ahead["layers"][:2]] == [False, None if "2:4" in target else False]
    assert all(0 < group["halved_macs_saved"] < 1 for group in ahead["groups"])
    outcome = prunec("inspect", "model.pt", "--target", target)
    assert outcome.code == 0
    assert f"not predicted: {ahead['reason']}" in outcome.out


def test_without_a_target_nothing_is_predicted(project: Path, prunec: Prunec) -> None:
    assert "ahead" not in look(prunec)
    assert "predicted" not in prunec("inspect", "model.pt").out


def test_what_can_not_be_looked_at(project: Path, bundle: Path, prunec: Prunec) -> None:
    assert prunec("inspect", "model.pt", "--target", "a1000").code == 2
    outcome = prunec("inspect", bundle, "--target", "a100")
    assert outcome.code == 2
    assert "--target looks ahead from a checkpoint" in outcome.err
