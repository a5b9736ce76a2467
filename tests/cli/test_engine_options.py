"""Options of the engine on the command line, and what an ONNX file or a bundle shows of 2:4."""

import json
from pathlib import Path

import pytest

from prunec.compiler.bundle.bundle_reader import read_bundle
from prunec.passes.unknown import Unknown
from tests.cli.conftest import Prunec
from tests.engines.device import pretend_device


def test_sizes_and_further_devices_reach_the_engine_and_the_report(project: Path, prunec: Prunec) -> None:
    outcome = prunec(
        *("compile", "model.pt", "-t", "a100", "--epochs", 0, "-o", "x"),
        *("--dims", "batch=1:4:16", "--also-for", "l4", "--also-for", "t4"),
    )
    assert outcome.code == 0, outcome.err
    report = read_bundle(project / "x").report
    assert report.engine_request.dimensions == {"batch": "1:4:16"}
    assert report.engine_request.also_for == ("l4", "t4")
    assert not isinstance(report.engine, Unknown)
    assert report.engine.compute_capabilities == ("8.0", "8.9", "7.5")
    assert report.engine.dimensions == {"batch": "1:4:16"}
    assert "engine" not in report.reasons


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dims", "batch"), "not of the form batch=1:8:32"),
        (("--dims", "batch=8:4:16"), "no range of sizes"),
        (("--dims", "batch=1:2:4", "--dims", "batch=1:2:4"), "names 'batch' twice"),
        (("--dims", "height=32:64:128"), "no dynamic dimension of this name"),
        (("--dims", "batch=2:4:8"), "Latency is measured at batch 1"),
        (("--also-for", "h100"), "can be built ahead of time"),
        (("--also-for", "l5"), "Unknown device 'l5'"),
    ],
)
def test_engine_options_that_cannot_be_fail_before_any_work(
    project: Path, prunec: Prunec, options: tuple[str, ...], message: str
) -> None:
    outcome = prunec("compile", "model.pt", "-t", "a100", "-o", "x", *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert "prune" not in outcome.err.replace("prunec", "")
    assert not (project / "x").exists()


def test_engine_options_for_a_cpu_are_an_error(project: Path, prunec: Prunec) -> None:
    outcome = prunec("compile", "model.pt", "-t", "cpu", "--dims", "batch=1:2:4")
    assert outcome.code == 2
    assert "ONNX Runtime takes no --dims" in outcome.err


def test_t4_has_no_sparse_tensor_cores(project: Path, prunec: Prunec) -> None:
    outcome = prunec("compile", "model.pt", "-t", "t4-2:4")
    assert outcome.code == 2
    assert "no sparse tensor cores" in outcome.err


def test_build_measures_the_speedup_against_the_source(
    project: Path, prunec: Prunec, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("compile", "model.pt", "-t", "h100-2:4", "--epochs", 0, "-o", "x", "--min-speedup", 1.5)
    assert prunec(*arguments).code == 6  # whatever comes of it: refused before the checkpoint is loaded
    assert not (project / "x").exists()
    assert prunec(*arguments, "--allow-unknown").code == 4
    pretend_device(monkeypatch)
    outcome = prunec("build", "x", "--source", "model.pt", "--timing-cache", project / "timings")
    assert outcome.code == 0, outcome.err
    assert (project / "timings").exists()
    assert outcome.last_line.startswith("PASSED | MACs ")
    assert "measured 2.00x" in outcome.last_line
    report = read_bundle(project / "x").report
    assert not isinstance(report.latency, Unknown)
    assert {gate.name: gate.verdict for gate in report.gates}["min_speedup"] == "passed"


def test_verify_of_an_engine_of_another_version(project: Path, prunec: Prunec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hash is right, the library here doesn't take it: code 4, with the command that mends it."""
    pretend_device(monkeypatch)
    assert prunec("compile", "model.pt", "-t", "h100-2:4", "--epochs", 0, "-o", "x").code == 0
    monkeypatch.setattr("tests.engines.fake_tensorrt.FakeRunner.__enter__", _refuses)
    outcome = prunec("verify", "x")
    assert outcome.code == 4
    assert "engine.plan can't be loaded by tensorrt 10.13.0.35" in outcome.out


def _refuses(runner: object) -> None:
    raise RuntimeError("Could not deserialize engine. See log for details.")


def test_inspect_of_a_bundle_and_of_an_onnx_file(project: Path, bundle: Path, prunec: Prunec) -> None:
    outcome = prunec("inspect", bundle)
    assert outcome.code == 0, outcome.err
    assert "model.fp16.onnx: 2:4 in 2 of 3 layers (0 could be, 1 cannot be)" in outcome.out
    document = json.loads(prunec("inspect", bundle / "model.onnx", "--json").out)
    assert [layer["valid"] for layer in document] == [False, True, True]
    assert document[0]["reason"] == "1 input channels are no multiple of 4"
    assert (document[1]["input_channels"], document[1]["groups"], document[1]["dtype"]) == (8, 1, "float32")
    assert prunec("inspect", bundle, "--picture", "x.svg").code == 2


def test_latency_is_measured_at_the_batch_that_is_asked_for(project: Path, prunec: Prunec) -> None:
    arguments = ("compile", "model.pt", "-t", "a100", "--epochs", 0, "--dims", "batch=4:8:16", "-o", "x")
    refused = prunec(*arguments)
    assert refused.code == 2
    assert "--latency-batch" in refused.err
    assert prunec(*arguments, "--latency-batch", 4, "--cpu-latency").code == 0
    report = read_bundle(project / "x").report
    assert report.latency_cpu is not None
    assert report.latency_cpu.batch == 4


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--min-speedup", "2"), 6, "min_speedup can't pass: its figure needs the device"),
        (("--gate", "not_slower{limit=1}"), 6, "not_slower can't pass: its figure needs the device"),
        (("--strict",), 4, "vendor_support can't pass: NVIDIA A100 80GB SXM is not in the vendor's support matrix"),
    ],
)
def test_gates_that_cannot_pass_on_this_machine_fail_before_the_checkpoint_is_read(
    project: Path, prunec: Prunec, options: tuple[str, ...], code: int, words: str
) -> None:
    outcome = prunec("compile", "model.pt", "-t", "a100", "-o", "x", *options)
    assert outcome.code == code
    assert words in outcome.err
    assert "load the checkpoint" not in outcome.err
    assert not (project / "x").exists()
