"""``prunec measure-costs``."""

from pathlib import Path
from typing import Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.compile import engine_options
from prunec.compiler.cli.output import echo, note
from prunec.compiler.cli.progress_bars import showing_progress


def measure_costs(
    checkpoint: options.Checkpoint,
    target: options.Target,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The cost model's file.")],
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
    threads: options.Threads = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples per inference.")] = 1,
    dims: options.Dims = None,
    seed: options.Seed = 0,
) -> None:
    """Measure how long each layer takes at any width on a target, for --cost-model of prunec compile.

    Some variants of the network, with random widths, are timed layer by layer by the target's engine, which must run on
    this machine.
    """
    from prunec.compiler.commands.measure_costs import CostSettings, measure_checkpoint
    from prunec.runtime.target import Target

    settings = CostSettings(Target.parse(target), batch, threads, seed, engine_options(dims, None, None, ""))
    loading = options.model_options(model, input_, trust, weights)
    with showing_progress() as progress:
        costs = measure_checkpoint(
            checkpoint, output, settings, config=config, model=loading, note=note, progress=progress.stage
        )
    key, error = costs.key, costs.error
    threads_used = "" if key.threads is None else f", {key.threads} thread{'s' * (key.threads > 1)}"
    echo(f"{key.target} on {key.hardware}: {key.engine}, batch {key.batch}{threads_used}")
    errors = f"{error['layers']:.1%} of a layer, weighted by its time, and {error['network']:.1%} of the network"
    echo(f"Mean error on variants that were held back: {errors}.")
    if costs.untimed:
        echo(f"No kernels of their own, so that they count as no time: {', '.join(costs.untimed)}.")
    echo(f"Cost model: {output}")
