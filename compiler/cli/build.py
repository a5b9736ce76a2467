"""``prunec build``."""

from pathlib import Path
from typing import Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import note, print_report
from prunec.compiler.cli.progress_bars import showing_progress
from prunec.compiler.project.checkpoint_file import checkpoint_path


def build(
    context: typer.Context,
    bundle: options.Bundle,
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            parser=checkpoint_path,
            metavar="PATH",
            help="Dense checkpoint of the bundle: measure the speed-up against it.",
        ),
    ] = None,
    timing_cache: options.TimingCache = None,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
) -> int:
    """Build the engine of a bundle on this machine, which has the device or a builder for it."""
    from prunec.compiler.commands.build_bundle import DenseCheckpoint, build_bundle
    from prunec.compiler.project.project import Project

    dense = None
    if source is not None:
        Project.find(source, config, note)  # says whose code runs, before anything else
        dense = DenseCheckpoint(source, config, options.model_options(model, input_, trust, weights))
    with showing_progress() as progress:
        report = build_bundle(bundle, source=dense, timing_cache=timing_cache, progress=progress)
    print_report(report, bundle, context.obj)
    return report.exit_code
