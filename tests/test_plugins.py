"""The example of docs/extending.md, installed by pip: one extension of each kind, used without a line changed here."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunec.compiler.report.report import Report
from prunec.passes.plugins import plug_ins
from tests.cli.conftest import *  # noqa: F403 - the project and the command line of those tests
from tests.cli.conftest import Prunec

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugins"
RECOVER = "recover{epochs=1,schedule=constant:0.05,batch_size=32"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip installed the example."""
    folder = tmp_path_factory.mktemp("plugins")
    source = shutil.copytree(EXAMPLE, folder / "source")  # a build leaves folders behind
    target = folder / "installed"
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, capture_output=True)
    return target


@pytest.fixture
def plugged(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(package))
    plug_ins.cache_clear()
    yield
    plug_ins.cache_clear()


def compiled(prunec: Prunec, project: Path, *arguments: str, code: int = 0) -> tuple[Report, str]:
    """The report of a compile, and the words of its page."""
    outcome = prunec("compile", project / "model.pt", "-o", project / "out", "--force", *arguments)
    assert outcome.code == code, outcome.err + outcome.out
    page = (project / "out" / "report.html").read_text().partition("<script>")[0]
    return Report.from_json((project / "out" / "report.json").read_bytes()), page


def test_each_is_one_short_file() -> None:
    for path in (EXAMPLE / "prunec_examples").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path


@pytest.mark.usefixtures("plugged")
def test_a_criterion(project: Path, prunec: Prunec) -> None:
    pipeline = 'prune-filters{ratio=0.5,criterion="gate-change{per=sample}",samples=96}'
    report, page = compiled(prunec, project, "-t", "cpu", "--pipeline", pipeline)
    assert (report.pruning.criterion, report.pruning.samples) == ("gate-change{per=sample}", 96)  # type: ignore[union-attr]
    costs = report.ledger[1].macs_per_sample  # type: ignore[union-attr]
    # Each sample runs once, for its own gradient, which takes two runs' operations; no batch runs beside it.
    assert (costs.forward, costs.backward) == (report.macs.dense, 2 * report.macs.dense)  # type: ignore[union-attr]
    assert report.pipeline == pipeline
    assert "gate-change{per=sample}" in page


@pytest.mark.usefixtures("plugged")
def test_a_step_that_needs_inputs(project: Path, prunec: Prunec) -> None:
    pipeline = "prune-filters{ratio=0.5} activation-sparsity{samples=50}"
    report, page = compiled(prunec, project, "-t", "cpu", "--pipeline", pipeline, "--verify-each")
    figures = report.extensions["activation-sparsity"]
    assert figures["samples"] == 50
    assert 0 < figures["by_layer"]["0"] < 1
    assert [step.name for step in report.steps][-1] == "activation-sparsity{samples=50}"  # type: ignore[union-attr]
    assert "activation-sparsity" in page
    config = project / "prunec.toml"
    config.write_text(config.read_text() + "[recipe.activation-sparsity]\nsamples = 20\n")
    report, _ = compiled(prunec, project, "-t", "cpu")
    assert report.pipeline.split(" ")[1:-1] == ["activation-sparsity{samples=20}"]
    assert "activation-sparsity{samples=20}" in (project / "out" / "recipe.toml").read_text()
    config.write_text(config.read_text().partition("[data]")[0])
    refused = prunec("compile", project / "model.pt", "-t", "cpu", "--pipeline", "activation-sparsity")
    assert refused.code == 2
    assert "activation-sparsity needs inputs of the training data" in refused.err


@pytest.mark.usefixtures("plugged")
def test_a_training_hook(project: Path, prunec: Prunec) -> None:
    pipeline = f'prune-filters{{ratio=0.5}} {RECOVER},hooks="slimming{{strength=5.0}}"}}'
    report, page = compiled(prunec, project, "-t", "cpu", "--pipeline", pipeline)
    (hook,) = report.recovery.hooks  # type: ignore[union-attr]
    assert (hook.name, hook.text) == ("slimming", "slimming{strength=5.0}")
    assert hook.figures["zero_gains"] > 0
    assert report.extensions["slimming"] == hook.figures
    assert report.pipeline == pipeline
    assert "slimming" in page


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize("arguments", [("-t", "cpu", "--engine", "reference"), ("-t", "referencecpu")])
def test_an_engine(project: Path, prunec: Prunec, arguments: tuple[str, ...]) -> None:
    asked = ("--pipeline", "prune-filters{ratio=0.5}", "--min-speedup", "2", "--cpu-latency")
    report, page = compiled(prunec, project, *arguments, *asked)
    engine, latency = report.engine, report.latency
    assert (engine.kind, engine.path) == ("reference", "engine.reference")  # type: ignore[union-attr]
    # Its own timer takes a second for each weight that the file holds: no figure of ONNX Runtime.
    assert latency.compiled_ms.median > 1000 * 500  # type: ignore[union-attr]
    assert latency.compiled_ms.median == latency.compiled_ms.p99  # type: ignore[union-attr]
    assert latency.speedup == latency.dense_ms.median / latency.compiled_ms.median  # type: ignore[union-attr]
    assert latency.speedup != report.latency_cpu.speedup  # type: ignore[union-attr]
    assert report.accuracy.engine == report.accuracy.exported
    assert report.numerics.engine_vs_torch_max_relative_error < 1e-5  # type: ignore[operator]
    assert "engine.reference" in page
    bundle = project / "out"
    assert prunec("verify", bundle).code == 0
    assert prunec("build", bundle, "--source", project / "model.pt").code == 0
    rebuilt = Report.from_json((bundle / "report.json").read_bytes())
    assert rebuilt.engine == engine
    assert rebuilt.latency.speedup == latency.speedup  # type: ignore[union-attr]


def test_bundles_of_a_plug_in_that_is_gone_can_be_read(
    project: Path, prunec: Prunec, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = ("--pipeline", "prune-filters{ratio=0.5}")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(package))
        plug_ins.cache_clear()
        compiled(prunec, project, "-t", "referencecpu", *pipeline)
        assert prunec("compile", "model.pt", "-t", "cpu", "--engine", "reference", *pipeline, "-o", "cpu").code == 0
        gate = ("--gate", "max_parameters{limit=100000}")
        assert prunec("compile", "model.pt", "-t", "cpu", *pipeline, *gate, "-o", "gate").code == 0
    plug_ins.cache_clear()
    assert prunec("compare", "out", "cpu").code == 0
    for bundle, target in (("out", "referencecpu-dense-fp32"), ("cpu", "cpu")):
        listed = json.loads(prunec("verify", bundle, "--json").out)
        assert listed["exit_code"] == 9  # an engine that nobody knows may be any file
        verdicts = {check["name"]: check["verdict"] for check in listed["checks"] if check["verdict"] != "passed"}
        assert verdicts == {"files": "failed", "engine": "skipped"}
        why = f"The engine 'reference' of target {target} can't be loaded here"
        assert why in listed["checks"][-1]["detail"]
        refused = prunec("build", bundle)
        assert (refused.code, why in refused.err) == (4, True), refused.err
    refused = prunec("build", "gate")
    assert (refused.code, "There is no gate 'max_parameters'" in refused.err) == (2, True)
    assert "build the cpu engine" not in refused.err


@pytest.mark.usefixtures("plugged")
def test_a_gate(project: Path, prunec: Prunec) -> None:
    asked = ("-t", "cpu", "--pipeline", "prune-filters{ratio=0.5}", "--gate")
    report, page = compiled(prunec, project, *asked, "max_parameters{limit=100}", code=12)
    row = next(row for row in report.gates if row.name == "max_parameters")
    assert (row.limit, row.value, row.verdict) == (100, report.parameters.compiled, "failed")
    assert f"parameters {report.parameters.compiled} &gt; 100" in page.replace("1e+03", "1000")
    text = "max_parameters{limit=100000.0,without_zeros=true}"
    report, _ = compiled(prunec, project, *asked, text)
    assert report.gates[-1].asked == text
    assert prunec("build", project / "out").code == 0
    again = Report.from_json((project / "out" / "report.json").read_bytes())
    assert again.gates == report.gates


@pytest.mark.usefixtures("plugged")
def test_doctor_lists_them(prunec: Prunec) -> None:
    listed: dict[str, Any] = json.loads(prunec("doctor", "--json").out)
    assert {(p["kind"], p["name"], p["package"], p["problem"]) for p in listed["plug_ins"]} == {
        ("step", "activation-sparsity", "prunec-examples", ""),
        ("criterion", "gate-change", "prunec-examples", ""),
        ("engine", "reference", "prunec-examples", ""),
        ("training hook", "slimming", "prunec-examples", ""),
        ("gate", "max_parameters", "prunec-examples", ""),
    }
    assert "referencecpu" in prunec("targets").out


@pytest.mark.usefixtures("plugged")
def test_one_that_cannot_be_imported_costs_its_own_names_only(
    project: Path, prunec: Prunec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[prunec.steps]\nlost = nowhere:STEP\n[prunec.criteria]\nlost = nowhere:Lost\n[prunec.engines]\n"
        "lost = nowhere:Lost\n[prunec.training_hooks]\nlost = nowhere:Lost\nslimming = nowhere:Other\n"
        "[prunec.gates]\nlost = nowhere:Lost\nengine = nowhere:Other\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plug_ins.cache_clear()
    compiled(prunec, project, "-t", "cpu", "--pipeline", "prune-filters{ratio=0.5,criterion=gate-change}")
    assert prunec("--help").code == prunec("doctor").code == 0
    for arguments, words in (
        (("--pipeline", "lost"), "The step 'lost' of broken can't be imported from nowhere:STEP"),
        (("--pipeline", "prune-filters{ratio=0.5,criterion=lost}"), "The criterion 'lost' of broken"),
        (("--engine", "lost"), "The engine 'lost' of broken"),
        (("--gate", "lost{limit=1}"), "The gate 'lost' of broken"),
        (("--pipeline", f"{RECOVER},hooks=lost}}"), "The training hook 'lost' of broken"),
    ):
        outcome = prunec("compile", project / "model.pt", "-t", "cpu", *arguments)
        assert (outcome.code, words in outcome.err) == (4, True), outcome.err
    outcome = prunec("compile", project / "model.pt", "-t", "cpu", "--pipeline", f"{RECOVER},hooks=slimming}}")
    assert outcome.code == 2
    assert "'slimming' is brought by" in outcome.err
    assert {"broken", "prunec-examples"} <= set(outcome.err.replace(":", "").split())


def test_help_imports_no_plug_in(package: Path) -> None:
    code = (
        "import sys; from prunec.compiler.cli.main import run; run(['compile', '--help']); "
        "assert not any(name.startswith('prunec_examples') for name in sys.modules)"
    )
    path = {"PYTHONPATH": str(package), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
