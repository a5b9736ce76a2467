"""The work of ``prunec compile``: from a task that was found to make sense to a report."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from prunec.compiler.bundle.bundle_writer import BundleWriter
from prunec.compiler.commands.compile_job import Prepared
from prunec.compiler.facts.request import Request
from prunec.compiler.project.checkpoint import LoadedCheckpoint, build_module
from prunec.compiler.project.project import Project, check_fit
from prunec.compiler.report.report import Report
from prunec.compiler.stages.dense_trainings import own_training
from prunec.compiler.stages.driver import compile_request
from prunec.compiler.stages.early_checks import check_here


def compile_network(prepared: Prepared, writer: BundleWriter, note: Callable[[str], None]) -> Report:
    """Compile the checkpoint of a task; for arguments and errors see `compile_checkpoint`."""
    job, project, progress = prepared.job, Project(prepared.config), prepared.settings.progress
    check_here(prepared.recipe.pipeline, job.target, prepared.settings, prepared.config.data is not None)
    progress.stage("load the checkpoint")
    loaded = project.load(job.checkpoint, job.model)
    for text in (*loaded.notes, *loaded.program.capture_notes):
        note(text)
    progress.stage("load the data")
    data, objective = project.data(prepared.settings.seed), project.objective()
    if data is not None:
        check_fit(loaded.program, data, objective)
    is_own = own_training(prepared.recipe.pipeline) is not None
    settings = replace(
        prepared.settings,
        optimizers=project.optimizers(prepared.optimizers),
        early={name: project.load(project.config.folder / name, job.model).program for name in prepared.early},
        module=_module(project, loaded, prepared) if prepared.settings.controls or is_own else None,
        initialise=project.initialise(),
    )
    program = loaded.program.inference()
    return compile_request(Request(program, job.target, prepared.recipe.pipeline, data, objective, settings), writer)


def _module(project: Project, loaded: LoadedCheckpoint, prepared: Prepared) -> nn.Module | None:
    """The network as its factory builds it, else as the checkpoint holds it, of which weights are drawn."""
    factory = project.factory(prepared.job.model)
    return loaded.module if factory is None else build_module(factory)
