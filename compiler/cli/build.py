"""``prunec build``."""

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.progress import showing_progress


def build(context: typer.Context, bundle: options.Bundle) -> int:
    """Build the engine of a bundle on this machine, which has the device or a builder for it."""
    from prunec.compiler.build_bundle import build_bundle
    from prunec.compiler.cli.compile_output import print_report

    with showing_progress() as progress:
        report = build_bundle(bundle, progress=progress)
    print_report(report, bundle, context.obj)
    return report.exit_code
