"""``prunec verify``: does a bundle hold what its report says?"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from prunec.compiler.bundle.bundle_reader import Bundle, bundle_problems, bundle_program, check_models, read_bundle
from prunec.compiler.commands.verify_checks import Check, Verification, ask, skipped
from prunec.compiler.commands.verify_costs import check_costs
from prunec.compiler.commands.verify_documents import (
    check_files,
    check_layers,
    check_page,
    check_plan,
    check_recipe,
    check_versions,
)
from prunec.compiler.commands.verify_gates import check_gates, check_outcome
from prunec.compiler.commands.verify_models import check_engine, check_outputs, check_weights
from prunec.compiler.commands.verify_report import check_claims, check_two_four
from prunec.compiler.commands.verify_source import check_dense_figures, replay, same_source
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Note, Project
from prunec.passes.errors import InputError
from prunec.passes.program import Program

#: Questions on the documents alone, by name.
_OF_DOCUMENTS: dict[str, Callable[[Bundle], str]] = {
    "files": check_files,
    "versions": check_versions,
    "outcome": lambda bundle: check_outcome(bundle.report),
    "gates": lambda bundle: check_gates(bundle.report),
    "recipe.toml": check_recipe,
    "layers.csv": check_layers,
    "report.html": check_page,
}
#: Questions on the program and what was made of it.
_OF_PROGRAM: dict[str, Callable[[Bundle, Program], str]] = {
    "report against the program": check_claims,
    "plan.json": check_plan,
    "costs.json": check_costs,
    "2:4 sparsity": check_two_four,
    "ONNX weights": check_weights,
    "ONNX against torch": check_outputs,
    "engine": check_engine,
}


def verify_bundle(
    path: Path, *, source: Path | None, config: Path | None, model: ModelOptions, note: Note = None
) -> Verification:
    """Check a bundle; the pruning plan is replayed on its source, the dense checkpoint, where that is given;
    ``note`` receives the sentence that says whose code may run.

    Raises:
        PrunecError: The bundle or the source can't be read at all.
    """
    project = None if source is None else Project.find(source, config, note)
    bundle = read_bundle(path)
    hashes = ask("hashes", lambda: _hashes(bundle))
    if hashes.verdict == "failed":
        others = [skipped(name, "not tried: the bundle isn't intact.") for name in (*_OF_DOCUMENTS, *_OF_PROGRAM)]
        return Verification(str(path), (hashes, *others))
    check_models(bundle)
    checks = [hashes, *(ask(name, partial(question, bundle)) for name, question in _OF_DOCUMENTS.items())]
    program = bundle_program(bundle.folder)
    checks += [ask(name, partial(question, bundle, program)) for name, question in _OF_PROGRAM.items()]
    if source is not None and project is not None:
        dense = project.load(source, model).program
        checks += _of_source(bundle, dense, program)
    return Verification(str(path), tuple(checks))


def _of_source(bundle: Bundle, dense: Program, program: Program) -> list[Check]:
    """Questions on the dense network; where it is another one, only that is told."""
    questions = {
        "dense figures": lambda: check_dense_figures(bundle, dense),
        "plan replayed on the source": lambda: replay(bundle, dense, program),
    }
    same = ask("source", lambda: same_source(bundle, dense))
    if same.verdict == "failed":
        return [same, *(skipped(name, "not tried: the checkpoint is another.") for name in questions)]
    return [same, *(ask(name, question) for name, question in questions.items())]


def _hashes(bundle: Bundle) -> str:
    if problems := bundle_problems(bundle):
        raise InputError("; ".join(problems))
    return f"{len(bundle.manifest.files)} files are as the manifest says"
