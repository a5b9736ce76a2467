"""Whatever a bundle says that isn't so fails a check, though the manifest was made to fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import typer
from onnx import numpy_helper

from prunec.compiler.bundle.bundle_names import TYPED_ONNX
from prunec.compiler.bundle.bundle_reader import Bundle, bundle_program, intact_bundle, read_bundle
from prunec.compiler.bundle.manifest import describe_folder
from prunec.compiler.cli.main import app
from prunec.compiler.commands.verify_bundle import verify_bundle
from prunec.compiler.commands.verify_checks import Check, ask
from prunec.compiler.commands.verify_documents import (
    check_files,
    check_layers,
    check_page,
    check_plan,
    check_recipe,
    check_versions,
)
from prunec.compiler.commands.verify_gates import FLAGS, check_gates, check_outcome
from prunec.compiler.commands.verify_models import check_outputs, check_weights
from prunec.compiler.commands.verify_report import check_claims, check_two_four
from prunec.compiler.commands.verify_source import check_dense_figures, replay
from prunec.compiler.facts.settings import Settings
from prunec.compiler.fairness import read_cards
from prunec.compiler.project.project import ModelOptions
from prunec.compiler.stages.driver import compile_model
from prunec.passes import Program, PruneFilters
from prunec.passes.errors import InputError
from tests.runtime.nets import small

Question = Callable[[Bundle, Program], str]
Edit = Callable[[Path], object]
HALF = TYPED_ONNX["fp16"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with everything in it that can be without a GPU: filters pruned, channels permuted, 2:4."""
    path = tmp_path_factory.mktemp("bundles") / "good"
    pipeline = "prune-filters{ratio=0.25,round_to=4} permute{seconds=1} sparsify"
    settings = Settings(latency_runs=3, build_engine=False, cpu_latency=True)
    assert compile_model(small(), "a100-2:4", pipeline, output=path, settings=settings).passed
    return path


@pytest.fixture(scope="module")
def program(good: Path) -> Program:
    return bundle_program(good)


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "b")


def seal(folder: Path) -> Bundle:
    """The bundle with a manifest that fits its files."""
    (folder / "manifest.json").write_text(describe_folder(folder, 0).to_json())
    return read_bundle(folder)


def in_report(change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(folder: Path) -> None:
        report = json.loads((folder / "report.json").read_text())
        change(report)
        (folder / "report.json").write_text(json.dumps(report))

    return edit


def at(path: str, value: object) -> Edit:
    """Set a value of report.json by its dotted path."""
    *steps, last = path.split(".")

    def change(report: Any) -> None:
        for step in steps:
            report = report[int(step) if step.isdigit() else step]
        report[last] = value

    return in_report(change)


def in_manifest(tool: str, version: str) -> Edit:
    """Another version of a tool in the manifest."""

    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["versions"][tool] = version
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return edit


def in_text(name: str, old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def content(name: str, data: bytes) -> Edit:
    return lambda folder: (folder / name).write_bytes(data)


def in_onnx(name: str, factor: float) -> Edit:
    """Change one weight by a factor."""

    def edit(folder: Path) -> None:
        model = onnx.load(folder / name)
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.dims))
        values = numpy_helper.to_array(weight).copy()
        values.flat[abs(values).argmax()] *= factor
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        (folder / name).write_bytes(model.SerializeToString())

    return edit


def plan_of(change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(folder: Path) -> None:
        plan = json.loads((folder / "plan.json").read_text())
        change(plan)
        (folder / "plan.json").write_text(json.dumps(plan))

    return edit


def shifted(plan: dict[str, Any]) -> None:
    plan["body.weight"]["0"] = [index + 100 for index in plan["body.weight"]["0"]]


def test_an_intact_bundle_passes(good: Path) -> None:
    found = verify_bundle(good, source=None, config=None, model=ModelOptions())
    assert found.exit_code == 0, found
    assert [check.name for check in found.checks if check.verdict != "passed"] == ["engine"]


@pytest.mark.parametrize(
    ("question", "edit", "code", "words"),
    [
        (check_files, content("notes.txt", b""), 9, "notes.txt is no file of a bundle"),
        (check_files, content("model.bf16.onnx", b""), 9, "model.bf16.onnx is no file"),
        (check_files, lambda b: (b / "empty").mkdir(), 9, "empty is no file"),
        (check_files, lambda b: (b / "layers.csv").unlink(), 9, "layers.csv is missing"),
        (check_files, lambda b: (b / HALF).unlink(), 9, f"{HALF} is missing"),
        (check_plan, content("plan.json", b"[]"), 9, "plan can't be read"),
        (check_plan, content("plan.json", b""), 9, "plan can't be read"),
        (check_plan, content("plan.json", b"\xff"), 9, "can't be read"),
        (check_plan, content("plan.json", b"{}"), 9, "doesn't make"),
        (check_plan, plan_of(lambda p: p.pop("body.weight")), 9, "doesn't make"),
        (check_plan, plan_of(shifted), 9, "doesn't make"),
        (check_plan, plan_of(lambda p: p["body.weight"]["0"].pop()), 9, "it keeps so many slices"),
        (check_plan, plan_of(lambda p: p["body.weight"].update({"0": [0] * 24})), 9, "twice"),
        (check_plan, plan_of(lambda p: p.update(other={"0": [5] * 99})), 9, "an index stands there twice"),
        (check_recipe, in_text("recipe.toml", "seed = 0", "seed = 1"), 9, "'seed': 1"),
        (check_recipe, in_text("recipe.toml", "ratio=0.25", "ratio=0.75"), 9, "ratio=0.75"),
        (check_recipe, content("recipe.toml", b"\xff\x00"), 9, "can't be read"),
        (check_recipe, at("runs.0.seed", 7), 9, "'seed': 7"),
        (check_layers, in_text("layers.csv", "conv2d", "conv1d"), 9, "conv1d"),
        (check_layers, in_text("layers.csv", ",kept,", ",left,"), 9, "kept of"),
        (check_layers, content("layers.csv", b""), 9, "has 0 rows"),
        (check_layers, at("layers.0.predicted_ms", 1.0), 9, "predicted_ms"),
        (check_page, in_text("report.html", "a100", "h100"), 9, "doesn't show"),
        (check_page, content("report.html", b"<script>alert(1)</script>"), 9, "doesn't show"),
        (check_files, at("target", "a101-2:4-fp16"), 9, "Unknown device 'a101'"),
        (check_versions, in_manifest("plotly", "6.0"), 9, "plotly 6.0"),
        (check_claims, at("macs.compiled", 1), 9, "macs.compiled is 1"),
        (check_claims, at("macs.speedup", 9.5), 9, "macs.speedup is 9.5"),
        (check_claims, at("parameters.compiled", 1), 9, "parameters.compiled is 1"),
        (check_claims, at("parameters.zero_fraction", 0.0), 9, "zero_fraction"),
        (check_claims, at("model.compiled_sha256", "0" * 64), 9, "compiled_sha256"),
        (check_claims, at("model.input_shapes", [[1, 8, 8]]), 9, "input_shapes"),
        (check_claims, at("size_bytes.compiled_onnx", 5), 9, "compiled_onnx"),
        (check_claims, at("layers.1.kept", 1), 9, "kept"),
        (check_claims, at("layers.1.name", "classifier"), 9, "name"),
        (check_claims, at("layers.1.compiled_shape", [1, 1, 3, 3]), 9, "layers, shapes"),
        (check_claims, at("layers.1.sparsity.eligible", False), 9, "eligible"),
        (check_claims, at("steps", []), 9, "steps is ()"),
        (check_claims, at("steps.1.name", "prune-filters{ratio=0.9}"), 9, "ratio=0.9"),
        (check_claims, at("steps.0.macs", 1), 9, "steps.0.macs"),
        (check_claims, at("ledger.1.weights_out", "0" * 64), 9, "ledger, first weights"),
        (check_claims, at("latency_cpu.speedup", 99.0), 9, "latency_cpu.speedup"),
        (check_claims, at("pruning.groups.0.kept", 999), 9, "kept <= width"),
        (check_claims, at("pruning.groups.0.width", 10**6), 9, "pruning.groups"),
        (check_claims, at("pruning.ratio", 0.9), 9, "pruning.ratio"),
        (check_claims, at("pruning.criterion", "l2"), 9, "pruning.criterion"),
        (check_claims, at("latency_cpu.speedup_interval", [90.0, 99.0]), 9, "lies in its interval"),
        (check_claims, at("latency_cpu.dense_ms.p90", 1e9), 9, "median <= p90 <= p99"),
        (check_claims, at("latency_cpu.runs", 0), 9, "1 or more"),
        (check_claims, at("oracle.exact", False), 9, "oracle.exact"),
        (check_claims, at("oracle.masked_max_relative_error", 1e9), 9, "below 1e-09"),
        (
            check_claims,
            in_report(lambda r: r["macs"].update(dense=10**9, speedup=10**9 / r["macs"]["compiled"])),
            9,
            "macs.dense",
        ),
        (check_claims, at("parameters.dense", 10**6), 9, "parameters.dense"),
        (check_claims, at("layers.1.shape", [32, 17, 3, 3]), 9, "macs.dense"),
        (check_claims, at("layers.0.onnx_nodes", ["other"]), 9, "onnx_nodes"),
        (check_claims, at("layers.2.name", "other"), 9, "layer other: name"),
        (check_claims, at("layers.1.sparsity.gain_rule", "it does"), 9, "gain_rule"),
        (check_claims, at("steps.1.aim.got", 99.0), 9, "aim.got"),
        (check_claims, at("steps.3.aim.got", 99.0), 9, "aim.got <= asked"),
        (check_claims, at("steps.2.macs", 1), 9, "steps.2.macs"),
        (check_claims, at("steps.2.nonzero_weights", 1), 9, "steps.2.nonzero_weights"),
        (check_claims, at("steps.3.nonzero_weights", 1), 9, "steps.3.nonzero_weights"),
        (check_claims, at("ledger.1.stage", "permute"), 9, "ledger, stages"),
        (check_claims, at("ledger.1.options.ratio", 0.5), 9, "options.ratio"),
        (check_claims, at("ledger.1.options.min_channels", 5), 9, "options.min_channels"),
        (check_claims, at("ledger.1.seed", 5), 9, "steps.1.seed"),
        (check_claims, at("ledger.2.removed", True), 9, "steps.2.removed"),
        (check_claims, at("ledger.1.epochs", 3.0), 9, "steps.1.epochs"),
        (check_claims, at("macs.convention", "MACs"), 9, "convention"),
        (check_two_four, in_report(lambda r: [x.update(sparsity=None) for x in r["layers"]]), 9, "masks"),
        (check_two_four, at("layers.1.sparsity.valid", False), 9, "told not to be 2:4"),
        (check_two_four, at("layers.2.sparsity.valid", True), 7, "doesn't hold it: depthwise"),
        (check_weights, in_onnx("model.onnx", 1.001), 8, "model.onnx isn't what model.pt2"),
        (check_weights, in_onnx(HALF, 1.1), 8, f"{HALF} isn't what model.pt2"),
        (check_weights, content("model.onnx", b"garbage"), 9, "can't be read as an ONNX file"),
        (check_gates, at("gates.0.value", 1e9), 8, "judged again"),
        (check_gates, at("gates.0.limit", 1.0), 9, "another limit"),
        (check_gates, at("gates.0.label", "accuracy"), 9, "the label of the gate"),
        (check_gates, in_report(lambda r: r["gates"].append(r["gates"][0])), 9, "stands there twice"),
        (check_gates, at("gates.1.name", "min_done_percenc"), 9, "min_done_percent is missing"),
        (
            check_gates,
            in_report(lambda r: r["gates"].append({**r["gates"][0], "name": "mine"})),
            9,
            "no gate of prunec's",
        ),
        (check_gates, at("command", "prunec compile m.pt -t cpu --min-speedup 3"), 9, "asks for the gate min_speedup"),
        (check_gates, at("command", "prunec compile m.pt --gate=max_drop_points{limit=1}"), 9, "gate max_drop_points"),
        (check_gates, at("command", "prunec compile m.pt --strict"), 9, "asks for the gate"),
        (check_gates, at("command", "prunec compile m.pt --allow-noop"), 9, "min_done_percent has the limit 50"),
        (check_gates, at("command", "prunec compile 'm.pt"), 9, "can't be one"),
        (check_outcome, at("warnings", ["it is slow"]), 9, "the warnings are"),
        (check_gates, in_report(lambda r: r["gates"].pop(0)), 9, "max_onnx_vs_torch_relative_error is missing"),
        (check_gates, in_report(lambda r: r["gates"].pop(1)), 9, "min_done_percent is missing"),
        (check_gates, at("numerics.onnx_vs_torch_max_relative_error", 0.5), 8, "judged again"),
        (check_gates, at("steps.1.aim.got", 0.0), 7, "judged again"),
        (check_outcome, in_report(lambda r: r.update(status="FAILED", exit_code=5)), 5, "the compile FAILED"),
    ],
)
def test_what_is_not_so(
    bundle: Path, program: Program, question: Callable[..., str], edit: Edit, code: int, words: str
) -> None:
    seal(bundle)
    edit(bundle)
    (bundle / "report.json").write_text(with_reasons((bundle / "report.json").read_text()))
    check = asked(question, read_bundle(bundle) if question is check_versions else seal(bundle), program)
    assert (check.verdict, check.exit_code) == ("failed", code), check
    assert words in check.detail


def with_reasons(text: str) -> str:
    """A report whose layers have lost their sparsity, with a reason for it; any other as it is."""
    report = json.loads(text)
    if any(layer["sparsity"] is None for layer in report["layers"]):
        report["reasons"] = {k: v for k, v in report["reasons"].items() if not k.startswith("layers.*.sparsity")}
        report["reasons"]["layers.*.sparsity"] = "nobody knows."
        return json.dumps(report)
    return text


def asked(question: Callable[..., str], bundle: Bundle, program: Program) -> Check:
    if question in (check_gates, check_outcome):
        return ask("x", lambda: question(bundle.report))
    if question in (check_files, check_layers, check_page, check_recipe, check_versions):
        return ask("x", lambda: question(bundle))
    return ask("x", lambda: question(bundle, program))


def test_the_drawing_library_of_a_page_may_be_another(bundle: Path) -> None:
    """The page's own part is compared all the same."""
    page = (bundle / "report.html").read_text()
    before, _, rest = page.partition("<script>")
    (bundle / "report.html").write_text(f"{before}<script>plotly 1.0</script>{rest.partition('</script>')[2]}")

    def asked_of(version: str) -> Check:
        sealed = seal(bundle)
        manifest = sealed.manifest.model_copy(update={"versions": {**sealed.manifest.versions, "plotly": version}})
        return ask("page", lambda: check_page(Bundle(bundle, manifest, sealed.report)))

    check = asked_of("1.0")
    assert (check.verdict, "10 bytes of plotly 1.0" in check.detail) == ("skipped", True)
    assert asked_of(sealed_version(bundle)).exit_code == 9
    in_text("report.html", "a100", "h100")(bundle)
    assert asked_of("1.0").exit_code == 9


def sealed_version(bundle: Path) -> str:
    return seal(bundle).manifest.versions["plotly"]


def test_another_network_in_the_typed_file_is_found_whatever_versions_say(bundle: Path, program: Program) -> None:
    """Its weights are the same, and its output is negated."""
    model = onnx.load(bundle / HALF)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{output}_x" if name == output else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", [f"{output}_x"], [output]))
    onnx.save(model, bundle / HALF)
    sealed = seal(bundle)
    assert ask("x", lambda: check_outputs(sealed, program)).exit_code == 8
    older = sealed.manifest.model_copy(update={"versions": {**sealed.manifest.versions, "torch": "2.0"}})
    assert ask("x", lambda: check_weights(Bundle(bundle, older, sealed.report), program)).verdict == "skipped"
    in_onnx(HALF, 1.1)(bundle)
    assert ask("x", lambda: check_weights(Bundle(bundle, older, sealed.report), program)).exit_code == 8


def test_an_engine_of_an_unknown_kind_is_refused(bundle: Path) -> None:
    with_engine("evil.sh")(bundle)
    at("engine.kind", "nokind")(bundle)
    check = ask("files", lambda: check_files(seal(bundle)))
    assert (check.exit_code, "There is no engine 'nokind'" in check.detail) == (9, True)


def test_the_options_without_a_value_are_those_of_the_command_line() -> None:
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    flags = {
        name
        for option in command.commands["compile"].params
        if getattr(option, "is_flag", False)
        for name in option.opts
    }
    assert flags | {"--help"} == FLAGS


def test_a_report_that_failed_never_passes(bundle: Path) -> None:
    def failed(report: dict[str, Any]) -> None:
        report["gates"][0].update(value=1.0, verdict="failed")
        report["numerics"]["onnx_vs_torch_max_relative_error"] = 1.0
        report.update(status="FAILED", exit_code=8)

    in_report(failed)(bundle)
    seal(bundle)
    found = verify_bundle(bundle, source=None, config=None, model=ModelOptions())
    assert found.exit_code == 8
    assert "outcome" in [check.name for check in found.checks if check.verdict == "failed"]


def linked_file(bundle: Path) -> None:
    (bundle / "plan.json").rename(bundle.parent / "plan.json")
    (bundle / "plan.json").symlink_to(bundle.parent / "plan.json")


def linked_folder(bundle: Path) -> None:
    (bundle / "sub").symlink_to(bundle.parent)


def linked_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").rename(bundle.parent / "manifest.json")
    (bundle / "manifest.json").symlink_to(bundle.parent / "manifest.json")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (linked_file, "plan.json: behind a link"),
        (linked_folder, "sub: unexpected"),
        (linked_manifest, "manifest.json is behind a link"),
        (content("extra", b""), "extra: unexpected"),
        (at("macs.compiled", 1), "report.json: changed"),
    ],
)
def test_whoever_takes_a_bundle_checks_its_hashes(bundle: Path, edit: Edit, words: str) -> None:
    """So does `prunec compare`, which reads nothing but the report; a link to a file of the same content is none."""
    edit(bundle)
    for take in (intact_bundle, read_cards):
        with pytest.raises(InputError, match=words):
            take(bundle)
    if edit is linked_manifest:  # of such a bundle nothing is read
        with pytest.raises(InputError, match=words):
            verify_bundle(bundle, source=None, config=None, model=ModelOptions())
        return
    found = verify_bundle(bundle, source=None, config=None, model=ModelOptions())
    assert found.exit_code == 9
    assert {check.verdict for check in found.checks[1:]} == {"skipped"}


def with_engine(path: str) -> Edit:
    def change(report: dict[str, Any]) -> None:
        report["target"], report["reasons"] = "cpu", {k: v for k, v in report["reasons"].items() if k != "engine"}
        report["engine"] = {
            "kind": "onnxruntime", "path": path, "sha256": "0" * 64, "builder": "onnxruntime 1", "dimensions": {},
            "built_ahead_of_time": False, "run_on_device": True,
        }  # fmt: skip

    return in_report(change)


@pytest.mark.parametrize("path", ["../other.onnx", "/etc/passwd", "..", ".", "", "sub/engine.rtx", "..\\x"])
def test_an_engine_elsewhere_is_refused(bundle: Path, path: str) -> None:
    """Whatever reads the report: `prunec build` removes the engine that was there."""
    with_engine(path)(bundle)
    with pytest.raises(InputError, match="no name of a file in the bundle"):
        seal(bundle)


def test_an_engine_is_a_file_of_its_kind(bundle: Path) -> None:
    with_engine("other.onnx")(bundle)
    check = ask("files", lambda: check_files(seal(bundle)))
    assert (check.verdict, check.exit_code) == ("failed", 9)
    assert "the engine is 'other.onnx', expected 'model.onnx'" in check.detail


def test_a_plan_that_keeps_other_slices_fails_on_the_source(bundle: Path, program: Program) -> None:
    """It fits in all its sizes, so that only the weights of the source can tell."""
    assert "oracle" in replay(read_bundle(bundle), small(), program)

    other = PruneFilters(ratio=0.25, round_to=4, criterion="random").run(small()).plan
    assert other is not None
    (bundle / "plan.json").write_text(other.to_json())
    assert ask("plan", lambda: check_plan(seal(bundle), program)).verdict == "passed"
    check = ask("replay", lambda: replay(seal(bundle), small(), program))
    assert (check.verdict, check.exit_code) == ("failed", 8), check
    assert check_dense_figures(read_bundle(bundle), small())
    in_report(lambda r: r["parameters"].update(dense=10**6))(bundle)
    assert ask("dense", lambda: check_dense_figures(seal(bundle), small())).exit_code == 9
