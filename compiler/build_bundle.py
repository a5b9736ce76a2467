"""``prunec build``: the engine of a bundle that was compiled without one, on the device itself."""

from pathlib import Path
from typing import Any

from prunec.compiler.artifacts import bundle_onnx, bundle_program, intact_bundle
from prunec.compiler.bundle import REPORT_NAME, amend_bundle
from prunec.compiler.gates import EXIT_CODES
from prunec.compiler.progress import Progress
from prunec.compiler.report import Report
from prunec.compiler.report_html import render_html
from prunec.compiler.verify_bundle import ENGINE_TOLERANCE, engine_error
from prunec.passes.errors import NumericMismatchError
from prunec.runtime.engines.building import EngineInfo, build_engine, choose_builder
from prunec.runtime.target import Target


def build_bundle(path: Path, *, progress: Progress) -> Report:
    """Build the engine and write it and the amended report into the bundle, as a whole or not at all.

    An engine that runs here is compared with the compiled program first.

    Args:
        path: the bundle's folder.
        progress: told what goes on.

    Raises:
        PrunecError: no intact bundle, no builder for its target here, or an engine that computes something else.
    """
    bundle = intact_bundle(path)
    target = Target.parse(bundle.report.target)
    choose_builder(target)
    with amend_bundle(path) as folder:
        progress.stage(f"build the {target} engine")
        for old in ("engine.plan", "engine.rtx"):
            (folder / old).unlink(missing_ok=True)
        engine = build_engine(target, bundle_onnx(folder), folder)
        if engine.run_on_device and target.is_nvidia:
            progress.stage("compare the engine with torch")
            _check_engine(folder, target, engine)
        report = _amended(bundle.report, engine)
        (folder / REPORT_NAME).write_text(report.to_json(), encoding="utf-8")
        (folder / "report.html").write_text(render_html(report), encoding="utf-8")
    return report


def _check_engine(folder: Path, target: Target, engine: EngineInfo) -> None:
    error = engine_error(bundle_program(folder), target, engine.path)
    limit = ENGINE_TOLERANCE[target.precision]
    if not error < limit:
        raise NumericMismatchError(
            f"The engine differs from torch by {error:.1e} (relative), allowed {limit:g} in {target.precision}.",
            hint="The bundle is left as it was.",
        )


def _amended(report: Report, engine: EngineInfo) -> Report:
    """The report with the engine in it, its gate passed, and the exit code that follows."""
    document: dict[str, Any] = report.model_dump(mode="json", by_alias=True)
    document["engine"] = {
        "kind": engine.kind,
        "path": engine.path.name,
        "built_ahead_of_time": engine.built_ahead_of_time,
        "run_on_device": engine.run_on_device,
        "notes": list(engine.notes),
    }
    document["size_bytes"]["engine"] = engine.path.stat().st_size
    gate = {"name": "engine", "limit": 1, "value": 1, "verdict": "passed"}
    others = [other for other in document["gates"] if other["name"] != "engine"]
    if len(others) < len(document["gates"]):  # in its place: reasons refer to gates by position
        document["gates"] = [gate if other["name"] == "engine" else other for other in document["gates"]]
    else:
        document["gates"].append(gate)
    gone = ("engine", "size_bytes.engine")
    document["reasons"] = {key: reason for key, reason in document["reasons"].items() if key not in gone}
    failed = [EXIT_CODES[other["name"]] for other in others if other["verdict"] == "failed"]
    document["exit_code"] = min(failed, default=0)
    document["status"] = "FAILED" if failed else "PASSED"
    return Report.model_validate(document)
