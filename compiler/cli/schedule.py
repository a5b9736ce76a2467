"""``prunec schedule``."""

import math
from pathlib import Path
from typing import Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, note, print_json, print_table
from prunec.passes.errors import UsageError

_WIDTH, _HEIGHT = 72, 12


def schedule(
    spec: Annotated[str, typer.Argument(help="Schedule: cosine:0.02, step:0=1e-2,30=1e-3, slr, P30F90,1e-2+60.")],
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Length of the run.")] = None,
    original: Annotated[
        str | None,
        typer.Option(
            "--original", metavar="SPEC", help="Schedule of the dense training, from which ft and lrw derive."
        ),
    ] = None,
    original_epochs: Annotated[
        int | None, typer.Option("--original-epochs", min=1, help="Length of the dense network's training.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", readable=False, help="Draw a plot into this .html file.", metavar="FILE")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the learning rates of a schedule: every change, and a plot."""
    from prunec.compiler.recovery.schedules import parse_schedule

    dense = None if original is None else parse_schedule(original, epochs=original_epochs)
    rates = parse_schedule(spec, epochs=epochs, original=dense)
    if rates.epochs is None:
        raise UsageError(f"The schedule {spec!r} is for runs of any length.", hint="Give one with --epochs.")
    trace = rates.trace(rates.epochs)
    if plot is not None:
        from prunec.compiler.drawing.schedule_plot import write_plot

        write_plot(rates, plot)
        note(f"plot: {plot}")
    if as_json:
        print_json({"schedule": str(rates), "epochs": rates.epochs, "learning_rates": trace})
        return
    sampled = [rates.learning_rate(rates.epochs * column / _WIDTH) for column in range(_WIDTH)]
    echo("\n".join(_drawn(sampled, rates.epochs)) + "\n")
    first = rates.first_stage_epochs
    stage = f"{first} epochs" if first is not None else "none, so there is no trainability accuracy"
    echo(f"First stage of constant learning rate: {stage}\n")
    rows = [(f"{epoch:g}", f"{rate:.4g}") for epoch, rate in trace]
    print_table(f"{rates}, {rates.epochs:g} epochs", ("epoch", "learning rate"), rows)


def _drawn(rates: list[float], epochs: float) -> list[str]:
    """Learning rates over the run, the logarithm of them upwards; rates of 0 lie on the floor."""
    logs = [math.log10(rate) if rate > 0 else None for rate in rates]
    known = [log for log in logs if log is not None]
    top = max(known)
    bottom = max(min(known), top - 4)  # cosines end near 0: four decades show what matters
    span = (top - bottom) or 1.0
    rows = [0 if log is None else max(0, round((_HEIGHT - 1) * (log - bottom) / span)) for log in logs]
    lines = []
    for level in reversed(range(_HEIGHT)):
        label = f"{10 ** (bottom + span * level / (_HEIGHT - 1)):.1e}" if level in (0, _HEIGHT - 1) else ""
        lines.append(f"{label:>8} |" + "".join("*" if row == level else " " for row in rows).rstrip())
    return [*lines, " " * 9 + "+" + "-" * _WIDTH, " " * 10 + "0" + f"{epochs:g} epochs".rjust(_WIDTH - 1)]
