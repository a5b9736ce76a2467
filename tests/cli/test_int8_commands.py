"""INT8 as a user asks for it: the target, a table of the recipe, the gates, the bundle's own recipe."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Prunec, Refused

COMPILE_INT8 = ("compile", "model.pt", "--target", "l4-int8", "--no-engine", "--epochs", "0", "-o", "out")


@pytest.mark.usefixtures("exported_anew")
def test_a_target_of_int8_is_compiled_and_its_recipe_gives_it_again(project: Path, prunec: Prunec) -> None:
    config = project / "prunec.toml"
    config.write_text(f"{config.read_text()}[recipe.calibrate]\nmethod = 'entropy'\nkeep = ['7']\n")
    outcome = prunec(*COMPILE_INT8)
    assert outcome.code == 0, outcome.err
    report = json.loads((project / "out" / "report.json").read_text())
    part = report["calibration"]
    assert (part["method"], [layer["precision"] for layer in part["layers"]]) == ("entropy", ["int8", "int8", "fp16"])
    assert report["pipeline"].endswith("calibrate{method=entropy,keep=[7]}")
    recipe = (project / "out" / "recipe.toml").read_text()
    config.write_text(config.read_text().split("[recipe")[0] + recipe)
    assert prunec("compile", "model.pt", "--target", "l4-int8", "--no-engine", "-o", "again").code == 0
    assert (project / "again" / "model.int8.onnx").read_bytes() == (project / "out" / "model.int8.onnx").read_bytes()
    assert prunec("verify", "again", "--source", "model.pt").code == 0


def test_limits_of_latency_and_size_are_gates(project: Path, prunec: Prunec) -> None:
    command = ("compile", "model.pt", "--target", "cpu-int8", "--epochs", "0", "-o", "out", "--force")
    passed = prunec(*command, "--max-latency-ms", "1000", "--max-size-mb", "1", "--max-drop-points", "100")
    assert passed.code == 0, passed.err
    assert all(words in passed.last_line for words in ("measured latency", "<= 1000 ms", "size of the engine", "+-"))
    assert prunec("verify", "out").code == 0
    assert prunec(*command, "--max-size-mb", "0.000001").code == 7
    assert prunec(*command, "--max-latency-ms", "0.0000001").code == 6


def test_gates_that_cannot_pass_are_refused_early(project: Path, refused: Refused) -> None:
    refused(7, "max_size_mb", arguments=(*COMPILE_INT8, "--max-size-mb", "1"))
    refused(6, "max_latency_ms", arguments=(*COMPILE_INT8, "--max-latency-ms", "1"))
    refused(2, "--max-size-mb", arguments=(*COMPILE_INT8, "--max-size-mb", "0"))


def test_int8_without_data_is_refused(project: Path, refused: Refused) -> None:
    config = project / "prunec.toml"
    config.write_text(config.read_text().split("[data]")[0])
    refused(2, "calibrate", "inputs of the training data", arguments=COMPILE_INT8)


def test_fp8_is_compiled_verified_and_looked_into(project: Path, prunec: Prunec) -> None:
    outcome = prunec("compile", "model.pt", "--target", "l4-fp8", "--no-engine", "--epochs", "0", "-o", "out")
    assert outcome.code == 0, outcome.err
    report = json.loads((project / "out" / "report.json").read_text())
    assert {layer["precision"] for layer in report["calibration"]["layers"]} == {"fp8"}
    assert (project / "out" / "model.fp8.onnx").exists()
    assert prunec("verify", "out", "--source", "model.pt").code == 0
    layers = json.loads(prunec("debug", "numerics", "out", "--json").out)["layers"]
    assert all(layer["relative_error"] > 0 for layer in layers)
    assert prunec("inspect", "out").code == 0


def test_fp8_is_listed_where_it_works_and_refused_elsewhere(project: Path, prunec: Prunec, refused: Refused) -> None:
    listed = {row["device"] for row in json.loads(prunec("targets", "--json").out) if "fp8" in row["precisions"]}
    assert {"l4", "rtx40", "h100"} <= listed
    assert listed.isdisjoint({"cpu", "t4", "a100", "orin"})
    for device in ("cpu", "t4", "a100"):
        arguments = ("compile", "model.pt", "--target", f"{device}-fp8")
        refused(2, "has no fp8", "fp8 is for l4", arguments=arguments)


def test_weights_in_int4_are_compiled_and_verified(project: Path, prunec: Prunec, refused: Refused) -> None:
    command = ("compile", "model.pt", "--target", "a100-int4", "--no-engine", "--epochs", "0", "-o", "out")
    outcome = prunec(*command)
    assert outcome.code == 0, outcome.err
    report = json.loads((project / "out" / "report.json").read_text())
    layers = {layer["layer"]: (layer["precision"], layer["reason"]) for layer in report["calibration"]["layers"]}
    assert layers == {"0": ("fp16", "no linear layer"), "3": ("fp16", "no linear layer"), "7": ("int4", "")}
    assert "INT4" in outcome.out
    assert (project / "out" / "model.int4.onnx").exists()
    assert prunec("verify", "out", "--source", "model.pt").code == 0
    assert prunec("debug", "numerics", "out").code == 0
    learned = ("--pipeline", "calibrate{rounding=learned}", "--force")
    refused(2, "learned rounding", arguments=(*command[:4], *learned))
    refused(2, "don't compute in int4", arguments=("compile", "model.pt", "--target", "a100-2:4-int4"))
