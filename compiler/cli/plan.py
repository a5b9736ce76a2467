"""``prunec plan``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.cli import goal_options, options
from prunec.compiler.cli.compile import engine_options
from prunec.compiler.cli.output import echo, note, print_json, print_table
from prunec.compiler.cli.progress_bars import showing_progress
from prunec.passes.seeds import MAX_SEED

if TYPE_CHECKING:
    from prunec.compiler.facts.forecast import Forecast

_recipe = partial(typer.Option, rich_help_panel="Recipe (overrides prunec.toml)")


def plan(
    context: typer.Context,
    checkpoint: options.Checkpoint,
    target: options.Target,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
    latency_speedup: goal_options.LatencySpeedup = None,
    latency_ms: goal_options.LatencyMs = None,
    speedup: goal_options.Speedup = None,
    parameters: goal_options.Parameters = None,
    size_mb: goal_options.SizeMb = None,
    pipeline: Annotated[
        str | None, _recipe("--pipeline", metavar="TEXT", help="All steps as text, of which prune-filters is planned.")
    ] = None,
    seed: Annotated[int | None, _recipe("--seed", min=0, max=MAX_SEED, help="Seed of every random choice.")] = None,
    cost_model: Annotated[
        Path | None,
        typer.Option(
            "--cost-model", readable=False, metavar="FILE", help="Cost model that prunec measure-costs has written."
        ),
    ] = None,
    threads: options.Threads = 1,
    dims: options.Dims = None,
    latency_batch: options.LatencyBatch = 1,
    no_measure: Annotated[
        bool,
        typer.Option("--no-measure", help="Leave out timing both networks in the end, where the engine runs here."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", readable=False, metavar="FILE", help="Write the pruning plan, a plan.json."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", readable=False, metavar="FILE", help="Write a page with charts.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Foresee what a pruning brings on a target, before any training: widths, milliseconds, limits, and a plan.

    The plan is what `prunec compile --plan FILE` and `prunec.apply_plan` take.
    """
    from prunec.compiler.commands.compile_job import Job
    from prunec.compiler.facts.settings import Settings
    from prunec.compiler.project.recipe_request import RecipeOptions
    from prunec.passes.allocation.goals import Goals
    from prunec.runtime.target import Target

    parsed, goals = Target.parse(target), Goals(speedup, latency_speedup, latency_ms, parameters, size_mb)
    with showing_progress() as progress:
        settings = Settings(
            threads=threads,
            latency_batch=latency_batch,
            build_engine=False,
            engine_options=engine_options(dims, None, None, ""),
            command=context.obj,
            progress=progress,
        )
        loading = options.model_options(model, input_, trust, weights)
        job = Job(checkpoint, parsed, config, loading, RecipeOptions(pipeline=pipeline, seed=seed), settings)
        from prunec.compiler.commands.plan_pruning import PlanFiles, plan_checkpoint

        forecast = plan_checkpoint(job, goals, PlanFiles(cost_model, output, page), note, measure=not no_measure)
    if as_json:
        print_json(forecast)
        return
    _print(forecast)
    for name, path in (("Plan", output), ("Page", page)):
        if path is not None:
            echo(f"{name}: {path}")


def _print(forecast: "Forecast") -> None:
    from prunec.compiler.report import forecast_words as words

    title = f"{forecast.target}: {words.goal_words(forecast)}"
    print_table(title, ("", "dense", "pruned", "ratio", "most possible"), words.figure_rows(forecast))
    echo(f"{words.cost_words(forecast)}\n{words.measured_words(forecast)}\n{words.two_four_words(forecast)}\n")
    groups = [(group.group, str(group.dense), str(group.kept)) for group in forecast.groups]
    print_table("widths", ("group", "dense", "kept"), groups)
    if forecast.removed_branches:
        echo(f"branches that go: {', '.join(forecast.removed_branches)}\n")
    order = "by predicted time" if forecast.cost_model else "in the order of execution"
    print_table(f"layers {order}, each with what follows it", *words.layer_table(forecast))
    echo("what limits it, in shares of the pruned network's predicted time")
    echo("\n".join([*(f"  {line}" for line in words.limit_words(forecast.limits)), ""]))
    if forecast.curve:
        print_table("what is possible", ("speed-up", "ms", "MACs", "importance kept"), words.curve_rows(forecast))
