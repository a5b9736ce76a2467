"""``prunec schedule``."""

import math
from pathlib import Path
from typing import Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import note, print_json, print_table

_WIDTH, _HEIGHT = 72, 12


def schedule(
    spec: Annotated[str, typer.Argument(help="As in a recipe: cosine:0.02, step:0=1e-2,30=1e-3, slr, P30F90,1e-2+60.")],
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Length of the run.")] = None,
    original: Annotated[
        str | None,
        typer.Option(
            "--original", metavar="SPEC", help="The dense network's own schedule, which ft and lrw derive from."
        ),
    ] = None,
    original_epochs: Annotated[
        int | None, typer.Option("--original-epochs", min=1, help="Length of the dense network's training.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", readable=False, help="Draw it into this .html file.", metavar="FILE")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the learning rates of a schedule: every change, and a plot."""
    from prunec.compiler.recovery.schedules import parse_schedule
    from prunec.passes.errors import UsageError

    dense = None if original is None else parse_schedule(original, epochs=original_epochs)
    found = parse_schedule(spec, epochs=epochs, original=dense)
    if found.epochs is None:
        raise UsageError(f"The schedule {spec!r} is for runs of any length.", hint="Give one with --epochs.")
    trace = found.trace(found.epochs)
    if plot is not None:
        from prunec.compiler.schedule_plot import write_plot

        write_plot(found, plot)
        note(f"plot: {plot}")
    if as_json:
        print_json({"schedule": str(found), "epochs": found.epochs, "learning_rates": trace})
        return
    rates = [found.learning_rate(found.epochs * column / _WIDTH) for column in range(_WIDTH)]
    typer.echo("\n".join(_drawn(rates, found.epochs)))
    typer.echo()
    first = found.first_stage_epochs
    stage = f"{first} epochs" if first is not None else "none, so there is no trainability accuracy"
    typer.echo(f"First stage of constant learning rate: {stage}\n")
    print_table(
        f"{found}, {found.epochs} epochs", ("epoch", "learning rate"), [(f"{e:g}", f"{r:.4g}") for e, r in trace]
    )


def _drawn(rates: list[float], epochs: int) -> list[str]:
    """Learning rates over the run, the logarithm of them upwards; rates of 0 lie on the floor."""
    logs = [math.log10(rate) if rate > 0 else None for rate in rates]
    known = [value for value in logs if value is not None]
    top, bottom = max(known), min(known)
    # Cosines end near 0: four decades show what matters.
    bottom = max(bottom, top - 4) if top - bottom > 4 else bottom
    span = (top - bottom) or 1.0
    rows = [max(0, round((_HEIGHT - 1) * ((v if v is not None else bottom) - bottom) / span)) for v in logs]
    lines = []
    for level in reversed(range(_HEIGHT)):
        label = f"{10 ** (bottom + span * level / (_HEIGHT - 1)):.1e}" if level in (0, _HEIGHT - 1) else ""
        lines.append(f"{label:>8} |" + "".join("*" if row == level else " " for row in rows).rstrip())
    lines.append(" " * 9 + "+" + "-" * _WIDTH)
    lines.append(" " * 10 + "0" + f"{epochs} epochs".rjust(_WIDTH - 1))
    return lines
