"""Every command on a small project, as a user would call it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prunec.compiler.bundle.bundle_reader import read_bundle
from prunec.passes.errors import MissingDependencyError
from prunec.passes.unknown import Unknown
from tests.cli.conftest import Prunec


def test_the_short_compile_command(project: Path, prunec: Prunec) -> None:
    outcome = prunec("compile", "model.pt", "--target", "cpu", "--max-drop-points", 100)
    assert outcome.code == 0, outcome.err
    bundle = read_bundle(project / "model.cpu.bundle")
    assert bundle.check_hashes() == []
    assert bundle.report.command == "prunec compile model.pt --target cpu --max-drop-points 100"
    assert not isinstance(bundle.report.recovery, Unknown)
    assert outcome.last_line.startswith("PASSED | MACs ")
    assert outcome.last_line.endswith("| " + bundle.report.command)
    assert "model.cpu.bundle/report.html" in outcome.out
    # Progress goes to standard error, with the time left.
    assert "recover" in outcome.err
    assert "s left" in outcome.err
    assert "Warning" not in outcome.err


def test_the_dense_training_that_the_project_file_tells_is_in_the_report(project: Path, prunec: Prunec) -> None:
    config = project / "prunec.toml"
    told = '[model]\npretraining = {epochs = 4, schedule = "step:0=0.1,3=0.01"}'
    config.write_text(config.read_text().replace("[model]", told))
    assert prunec("compile", "model.pt", "-t", "cpu", "--epochs", 0).code == 0
    report = read_bundle(project / "model.cpu.bundle").report
    assert report.pretraining.epochs == 4
    assert report.pretraining.learning_rates == ((0.0, 0.1), (3.0, 0.01))
    assert "pretraining" not in report.reasons


@pytest.mark.usefixtures("exported_anew")
def test_the_recipe_in_the_bundle_gives_the_same_pipeline_again(project: Path, bundle: Path, prunec: Prunec) -> None:
    again = project / "again.toml"
    model, data = (project / "prunec.toml").read_text().split("[recipe")[0].split("[data]")
    again.write_text(f"{model}[data]{data}\n{(bundle / 'recipe.toml').read_text()}")
    outcome = prunec("compile", "model.pt", "--config", again, "--target", "a100-2:4", "--no-engine")
    assert outcome.code == 0, outcome.err
    report = read_bundle(project / "model.a100-2_4-fp16.bundle").report
    assert report.pipeline == read_bundle(bundle).report.pipeline
    assert report.deterministic_part() == read_bundle(bundle).report.deterministic_part()


def test_flags_override_the_recipe(project: Path, prunec: Prunec) -> None:
    outcome = prunec("compile", "model.pt", "-t", "cpu", "--speedup", 1.5, "--epochs", 0, "--seed", 7, "-o", "x")
    assert outcome.code == 0, outcome.err
    bundle = read_bundle(project / "x")
    assert bundle.report.pipeline == "prune-filters{speedup=1.5,round_to=4}"
    assert bundle.manifest.seed == 7


def test_a_pipeline_as_text(project: Path, prunec: Prunec) -> None:
    outcome = prunec("compile", "model.pt", "-t", "cpu", "--pipeline", "prune-filters{ratio=0.25}", "-o", "x")
    assert outcome.code == 0, outcome.err
    assert read_bundle(project / "x").report.pipeline == "prune-filters{ratio=0.25}"


def test_without_a_project_file(project: Path, prunec: Prunec) -> None:
    (project / "prunec.toml").unlink()
    outcome = prunec(
        "compile", "model.pt", "-t", "cpu", "--model", "model:network", "--input", "1,8,8", "--speedup", 1.2
    )
    assert outcome.code == 0, outcome.err
    report = read_bundle(project / "model.cpu.bundle").report
    assert report.pipeline == "prune-filters{speedup=1.2,round_to=16,min_channels=8}"
    assert isinstance(report.data, Unknown)


def test_an_engine_that_needs_its_device_fails_with_code_4_and_the_line_that_mends_it(
    project: Path, prunec: Prunec
) -> None:
    outcome = prunec("compile", "model.pt", "-t", "h100-2:4", "--epochs", 0, "-o", "x")
    assert outcome.code == 4
    assert "prunec build" in outcome.out
    assert outcome.last_line.startswith("FAILED | ")
    assert read_bundle(project / "x").report.exit_code == 4


def test_a_missed_accuracy_gate(project: Path, prunec: Prunec) -> None:
    outcome = prunec("compile", "model.pt", "-t", "cpu", "--max-drop-points", -100, "-o", "x")
    assert outcome.code == 5
    assert outcome.last_line.startswith("FAILED | ")
    assert "(failed)" in outcome.last_line


def test_a_gate_that_can_t_be_measured_fails_unless_allowed(project: Path, prunec: Prunec) -> None:
    (project / "prunec.toml").write_text((project / "prunec.toml").read_text().split("[data]")[0])
    arguments = ("compile", "model.pt", "-t", "cpu", "--ratio", 0.25, "--max-drop-points", 1, "-o")
    assert prunec(*arguments, "x").code == 5
    assert prunec(*arguments, "y", "--allow-unknown").code == 0


def test_inspect(project: Path, prunec: Prunec) -> None:
    outcome = prunec("inspect", "model.pt")
    assert outcome.code == 0, outcome.err
    assert "an output of the network" in outcome.out
    assert "1 input channels are no multiple of 4" in outcome.out
    found = json.loads(prunec("inspect", "model.pt", "--json").out)
    assert [group["name"] for group in found["prunable"]] == ["0", "3"]
    assert "7.weight[1] x 4" in found["prunable"][1]["members"]
    assert found["frozen"][0]["reasons"] == ["an output of the network"]
    assert [group["inexact"] for group in found["prunable"]] == [[], []]
    assert all(0 < group["macs_share"] <= 1 for group in found["prunable"])
    assert [layer["eligible"] for layer in found["two_four"]] == [False, True, True]


def test_sparsity_and_latency_gates(project: Path, prunec: Prunec) -> None:
    compile_ = ("compile", "model.pt", "-t", "h100-2:4", "--no-engine", "--pipeline", "sparsify", "-o")
    outcome = prunec(*compile_, "sparse", "--require-sparse", "60%")
    assert outcome.code == 0, outcome.err
    assert "layers that hold 2:4 66.67 ≥ 60 %" in outcome.last_line or "66.67" in outcome.last_line
    assert prunec(*compile_, "sparser", "--require-sparse", "70%").code == 7
    outcome = prunec(*compile_, "fast", "--min-speedup", 1.5)
    assert outcome.code == 6  # not known without an engine
    assert "The gate min_speedup can't pass: --no-engine leaves the engine out." in outcome.err
    assert not (project / "fast").exists()
    assert prunec(*compile_, "faster", "--min-speedup", 1.5, "--allow-unknown").code == 0


@pytest.mark.parametrize("name", ["graph.html", "graph.svg"])
def test_inspect_draws_a_picture(project: Path, prunec: Prunec, name: str) -> None:
    for _ in range(2):  # an earlier picture is replaced
        outcome = prunec("inspect", "model.pt", "--picture", name)
        assert outcome.code == 0, outcome.err
        assert name in outcome.err
    assert "</svg>" in (project / name).read_text()
    assert not list(project.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("name", "code", "hint"), [("graph.png", 2, "ends in .html or .svg"), ("no/graph.svg", 10, "mkdir -p no")]
)
def test_pictures_that_can_not_be_drawn(project: Path, prunec: Prunec, name: str, code: int, hint: str) -> None:
    outcome = prunec("inspect", "model.pt", "--picture", name)
    assert outcome.code == code
    assert hint in outcome.err


def test_eval_of_checkpoint_bundle_and_onnx(project: Path, bundle: Path, prunec: Prunec) -> None:
    assert "on 100 test images" in prunec("eval", "model.pt").out
    report = read_bundle(bundle).report
    dense = json.loads(prunec("eval", "model.pt", "--json").out)
    assert dense["value"] == pytest.approx(report.accuracy.dense)
    compiled = json.loads(prunec("eval", bundle, "--json").out)
    assert compiled["value"] == pytest.approx(report.accuracy.exported)
    assert compiled["runs_on"] == "ONNX Runtime"
    assert json.loads(prunec("eval", bundle / "model.onnx", "--json").out)["test_images"] == 100


def test_profile(project: Path, bundle: Path, prunec: Prunec) -> None:
    outcome = prunec("profile", "model.pt", "--runs", 5)
    assert outcome.code == 0, outcome.err
    assert "median" in outcome.out
    found = json.loads(prunec("profile", bundle, "--runs", 5, "--batch", 4, "--json").out)
    assert 0 < found["latency_ms"]["median"] <= found["latency_ms"]["p99"]
    assert sum(time["share"] for time in found["operators"]) == pytest.approx(1)
    assert any(time["layer"] == "3" for time in found["operators"])


def test_verify_passes_an_intact_bundle_and_replays_its_plan(project: Path, bundle: Path, prunec: Prunec) -> None:
    outcome = prunec("verify", bundle, "--source", "model.pt")
    assert outcome.code == 0, outcome.out
    assert outcome.last_line.startswith("PASSED | 17 checks passed")
    assert "oracle" in outcome.out
    found = json.loads(prunec("verify", bundle, "--json").out)
    assert found["exit_code"] == 0
    assert {check["name"]: check["verdict"] for check in found["checks"]}["2:4 sparsity"] == "passed"


def test_verify_finds_a_changed_file_and_another_source(
    project: Path, bundle: Path, prunec: Prunec, tmp_path: Path
) -> None:
    import torch

    state = torch.load(project / "model.pt", weights_only=True)
    state["7.bias"] += 1
    torch.save(state, project / "other.pt")
    outcome = prunec("verify", bundle, "--source", "other.pt")
    assert outcome.code == 9
    assert "sha256" in outcome.out
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    (changed / "plan.json").write_text("{}\n")
    outcome = prunec("verify", changed)
    assert outcome.code == 9
    assert "plan.json" in outcome.out
    assert outcome.last_line.startswith("FAILED | ")


def test_verify_finds_a_model_that_is_not_two_four(bundle: Path, prunec: Prunec, tmp_path: Path) -> None:
    """A bundle that is whole but whose ONNX model isn't what the report says."""
    import onnx
    from onnx import numpy_helper

    from prunec.compiler.bundle.manifest import describe_folder

    forged = tmp_path / "forged"
    shutil.copytree(bundle, forged)
    model = onnx.load(forged / "model.fp16.onnx")
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim == 4 and array.shape[1] > 1:
            tensor.CopyFrom(numpy_helper.from_array(array + array.dtype.type(0.5), tensor.name))
    onnx.save(model, forged / "model.fp16.onnx")
    (forged / "manifest.json").unlink()
    (forged / "manifest.json").write_text(describe_folder(forged, 0).to_json())
    outcome = prunec("verify", forged)
    assert outcome.code == 7
    assert "the ONNX model doesn't hold it" in outcome.out


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "plan.json"])
@pytest.mark.parametrize("content", [None, b"garbage"])
def test_bundles_that_lack_a_part_though_their_hashes_fit(
    project: Path, bundle: Path, prunec: Prunec, tmp_path: Path, name: str, content: bytes | None
) -> None:
    from prunec.compiler.bundle.manifest import describe_folder

    forged = tmp_path / "forged"
    shutil.copytree(bundle, forged)
    (forged / name).unlink()
    (forged / "model.fp16.onnx").unlink()
    if content is not None:
        (forged / name).write_bytes(content)
    (forged / "manifest.json").unlink()
    (forged / "manifest.json").write_text(describe_folder(forged, 0).to_json())
    for command in ("verify", "build", "eval") if content is None else ("verify",):
        arguments = ("--source", "model.pt") if command == "verify" else ()
        outcome = prunec(command, forged, *arguments)
        assert outcome.code == 9, outcome.err
        assert "Traceback" not in outcome.err
        assert name.removesuffix(".json") in outcome.out + outcome.err


def test_build_finishes_a_bundle(bundle: Path, prunec: Prunec, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(bundle, unfinished)
    outcome = prunec("build", unfinished)
    assert outcome.code == 0, outcome.err
    done = read_bundle(unfinished)
    assert done.check_hashes() == []
    assert not isinstance(done.report.engine, Unknown)
    assert done.report.engine.path == "engine.rtx"
    assert done.report.size_bytes.engine == (unfinished / "engine.rtx").stat().st_size
    assert {gate.name: gate.verdict for gate in done.report.gates}["engine"] == "passed"
    assert outcome.last_line.endswith(f"| prunec build {unfinished}")


def test_build_without_a_builder_leaves_the_bundle_as_it_was(
    bundle: Path, prunec: Prunec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(target: object, options: object) -> str:
        raise MissingDependencyError("nothing builds this here", hint="pip install something")

    monkeypatch.setattr("prunec.compiler.commands.build_bundle.choose_engine", none)
    outcome = prunec("build", bundle)
    assert outcome.code == 4
    assert "pip install something" in outcome.err
    assert outcome.last_line.startswith("FAILED | exit code 4 | prunec build")
    assert read_bundle(bundle).check_hashes() == []


def test_targets_and_doctor(prunec: Prunec) -> None:
    assert "a100" in prunec("targets").out
    devices = {entry["device"]: entry for entry in json.loads(prunec("targets", "--json").out)}
    assert devices["a100"]["patterns"] == ["dense", "2:4"]
    assert devices["t4"]["patterns"] == ["dense"]
    assert "onnxruntime" in prunec("doctor").out
    assert json.loads(prunec("doctor", "--json").out)["devices"][0]["device"] == "cpu"


def test_version_and_help(prunec: Prunec) -> None:
    assert prunec("--version").out.startswith("prunec ")
    assert "compile" in prunec("--help").out
    assert prunec().code == 0
    for command in ("compile", "inspect", "eval", "profile", "verify", "build", "targets", "doctor"):
        assert prunec(command, "--help").code == 0


def test_schedule_shows_every_change_and_draws_it(tmp_path: Path, prunec: Prunec) -> None:
    outcome = prunec("schedule", "P30F90,1e-2+60", "--plot", tmp_path / "s.html")
    assert outcome.code == 0, outcome.err
    assert "First stage of constant learning rate: 90 epochs" in outcome.out
    assert [line.split() for line in outcome.out.splitlines() if line.startswith("  ")][-4:] == [
        ["0", "0.01"], ["90", "0.001"], ["120", "0.0001"], ["135", "1e-05"],
    ]  # fmt: skip
    assert "P30F90" in (tmp_path / "s.html").read_text()
    found = json.loads(prunec("schedule", "lrw", "--epochs", 72, *ORIGINAL, "--json").out)
    assert found["learning_rates"] == [[0, 0.01], [32, 0.001]]


ORIGINAL = ("--original", "step:0=0.1,80=0.01,120=0.001", "--original-epochs", 160)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("constant:0.1",), "--epochs"),
        (("cosine:0.1",), "length of the run"),
        (("cosin:0.1", "--epochs", 3), "Did you mean 'cosine'"),
        (("lrw", "--epochs", 3), "nothing tells that one"),
        (("slr", "--epochs", 3, "--plot", "x.png"), "writes .html files"),
        (("step:0=0.1,5=0.01", "--epochs", 5), "never reaches"),
    ],
)
def test_schedules_that_cannot_be_shown(arguments: tuple[object, ...], message: str, prunec: Prunec) -> None:
    outcome = prunec("schedule", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_reader_that_stops_reading_is_no_error() -> None:
    command = [sys.executable, "-m", "prunec.compiler", "schedule", "cosine:0.1", "--epochs", "9000", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_compare_of_two_bundles_says_the_level_and_who_wins(project: Path, bundle: Path, prunec: Prunec) -> None:
    shutil.copytree(bundle, project / "again.bundle")
    outcome = prunec("compare", bundle, "again.bundle")
    assert outcome.code == 0, outcome.err
    # Nothing tells how the dense network was trained: that leaves the chain alone, and the tags unknown.
    assert "Level: S4.2\n" in outcome.out
    assert "Verdict: no winner: how much seeds differ isn't known of" in outcome.out
    assert "pretraining.epochs (both)" in outcome.out
    document = json.loads(prunec("compare", bundle, "again.bundle", "--json").out)
    assert (document["level"], document["ranked"], document["pairs"][0]["level"]["at_most"]) == ("S4.2", True, "S4.2")
    assert document["pairs"][0]["difference"] == {"value": 0.0, "margin": None, "kind": ""}
    markdown = prunec("compare", bundle, "again.bundle", "--markdown").out.splitlines()
    assert markdown[0].startswith("| run | method | dense | final | drop |")
    assert set(markdown[1]) <= set("| -")
    assert sum(line.startswith("| model, again | S4.2 |") for line in markdown) == 1
    assert prunec("compare", bundle, "again.bundle", "--markdown", "--json").code == 2
    assert prunec("compare", bundle, "again.bundle#seed-0").code == 0
    assert prunec("compare", bundle, "again.bundle#seed-7").code == 2
    assert prunec("compare", bundle, "again.bundle", "--tolerance", 2).code == 2


def test_compare_of_other_recipes_is_not_ranked(project: Path, bundle: Path, prunec: Prunec) -> None:
    assert (
        prunec("compile", "model.pt", "-t", "a100-2:4", "--no-engine", "--epochs", 2, "-o", "longer.bundle").code == 0
    )
    outcome = prunec("compare", bundle, "longer.bundle")
    assert outcome.code == 0
    assert "Level: S2" in outcome.out
    assert "Verdict: not ranked." in outcome.out
    assert "retraining may explain all of the difference" in outcome.err


def test_compare_refuses_what_is_no_run(tmp_path: Path, bundle: Path, prunec: Prunec) -> None:
    assert prunec("compare", bundle).code == 2
    assert prunec("compare", bundle, tmp_path / "none.yaml").code == 9
    (tmp_path / "x.yaml").write_text("speedup: fast")
    outcome = prunec("compare", bundle, tmp_path / "x.yaml")
    assert outcome.code == 9
    assert "speedup" in outcome.err


@pytest.mark.long
def test_measure_costs(project: Path, prunec: Prunec) -> None:
    outcome = prunec("measure-costs", "model.pt", "--target", "cpu", "-o", "costs.json")
    assert outcome.code == 0 and "Cost model: costs.json" in outcome.out and "1 thread" in outcome.out
    assert json.loads((project / "costs.json").read_text())["key"]["target"] == "cpu"


def test_costs_that_can_not_be_measured(project: Path, prunec: Prunec) -> None:
    assert prunec("measure-costs", "model.pt", "--target", "cpu", "-o", "nowhere/costs.json").code == 10
    assert prunec("measure-costs", "model.pt", "--target", "a100", "-o", "costs.json").code == 4
    assert not (project / "costs.json").exists()
