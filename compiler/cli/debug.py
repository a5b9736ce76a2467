"""``prunec debug``: commands that look for the cause of something."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, print_json, print_table

if TYPE_CHECKING:  # imports torch
    from prunec.compiler.commands.debug_numerics import NumericsComparison

debug = typer.Typer(help="Look for the cause of something.", no_args_is_help=True)


@debug.command()
def numerics(
    bundle: options.Bundle,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0,
            metavar="X",
            help="Relative error from which a layer departs; 0.1 of INT8 from float32 (0.2 of FP8, 0.5 of INT4), 1e-4 "
            "of model.onnx from torch (0.02 on grids), 0.02 to 0.1 of the file in 16 bits.",
        ),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Compare a bundle's network layer by layer: the ONNX files with torch, and INT8 with float32."""
    from prunec.compiler.commands.debug_numerics import debug_numerics

    comparison = debug_numerics(Path(bundle), seed=seed, threshold=threshold)
    if as_json:
        print_json(comparison.to_json())
        return
    for each in (comparison, comparison.exported, comparison.typed):
        if each is not None:
            _print(each)


def _print(comparison: "NumericsComparison") -> None:
    rows = [
        (
            row.layer,
            row.operator,
            "not finite" if row.relative_error is None else f"{row.relative_error:.2e}",
            "departs" if row.departs else "",
        )
        for row in comparison.layers
    ]
    print_table(f"{comparison.bundle}: {comparison.compared}", ("layer", "operator", "relative error", ""), rows)
    if comparison.left_out:
        echo(f"Not compared, since the ONNX file computes them otherwise: {', '.join(comparison.left_out)}.")
    if comparison.first is None:
        echo(f"No layer departs by more than {comparison.threshold:g}.")
    else:
        echo(f"The first layer that departs by more than {comparison.threshold:g} is {comparison.first}.")
