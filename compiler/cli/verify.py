"""``prunec verify``."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, note, print_json, print_table
from prunec.compiler.project.checkpoint_file import checkpoint_path


def verify(
    context: typer.Context,
    bundle: options.Bundle,
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            parser=checkpoint_path,
            metavar="PATH",
            help="Dense checkpoint of the bundle: replay the pruning plan on it.",
        ),
    ] = None,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
    as_json: options.AsJson = False,
) -> int:
    """Check a bundle: hashes, 2:4, ONNX against torch, and the engine where it runs."""
    from prunec.compiler.commands.verify_bundle import verify_bundle
    from prunec.compiler.commands.verify_checks import CheckVerdict
    from prunec.compiler.report.last_line import result_line

    loading = options.model_options(model, input_, trust, weights)
    result = verify_bundle(bundle, source=source, config=config, model=loading, note=note)
    if as_json:
        print_json(result.to_json())
        return result.exit_code
    rows = [(check.name, check.verdict, check.detail) for check in result.checks]
    print_table(f"Bundle {result.bundle}", ("check", "verdict", "detail"), rows)
    counts = {v: sum(check.verdict == v for check in result.checks) for v in get_args(CheckVerdict)}
    figures = [f"{count} checks {verdict}" for verdict, count in counts.items() if count]
    echo(result_line(result.exit_code == 0, figures, context.obj))
    return result.exit_code
