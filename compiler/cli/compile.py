"""``prunec compile``."""

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.cli import goal_options, options
from prunec.compiler.cli.output import echo, note, print_report, print_table
from prunec.compiler.cli.progress_bars import showing_progress
from prunec.compiler.facts.control_names import CONTROLS
from prunec.compiler.pipeline.own_steps import OWN_STEPS
from prunec.passes.errors import UsageError
from prunec.passes.seeds import MAX_SEED
from prunec.passes.user_calls import user_code_rules

if TYPE_CHECKING:
    from prunec.compiler.commands.compile_job import Job
    from prunec.runtime.engines.options import EngineOptions

_recipe = partial(typer.Option, rich_help_panel="Recipe (overrides prunec.toml)")
_training = partial(typer.Option, rich_help_panel="Training")
_gates = partial(typer.Option, rich_help_panel="Output and gates")
_engine = partial(typer.Option, rich_help_panel="Engine")
_debugging = partial(typer.Option, rich_help_panel="Looking inside")


def compile_(
    context: typer.Context,
    checkpoint: options.Checkpoint,
    target: options.Target,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
    pipeline: Annotated[
        str | None,
        _recipe(
            "--pipeline", metavar="TEXT", help=f"All steps as text: {', '.join(OWN_STEPS)}, and those of plug-ins."
        ),
    ] = None,
    method: Annotated[
        str | None,
        _recipe("--method", metavar="NAME", help="A published method in place of the recipe's steps: prunec methods."),
    ] = None,
    latency_speedup: goal_options.LatencySpeedup = None,
    latency_ms: goal_options.LatencyMs = None,
    speedup: goal_options.Speedup = None,
    parameters: goal_options.Parameters = None,
    size_mb: goal_options.SizeMb = None,
    ratio: Annotated[float | None, _recipe("--ratio", help="Fraction of filters to remove in every group.")] = None,
    plan: Annotated[
        str | None, _recipe("--plan", metavar="FILE", help="Apply a pruning plan in place of choosing filters.")
    ] = None,
    cost_model: Annotated[
        Path | None,
        _recipe(
            "--cost-model",
            readable=False,
            metavar="FILE",
            help="Choose widths, and layers in higher precision, by a measured cost model (prunec measure-costs), and "
            "measure nothing to correct them.",
        ),
    ] = None,
    epochs: Annotated[int | None, _recipe("--epochs", min=0, help="Epochs of recovery; 0 for none.")] = None,
    dry_run: Annotated[
        bool, _recipe("--dry-run", help="Print the resolved recipe, with where each value is from, and stop.")
    ] = False,
    seed: Annotated[int | None, _recipe("--seed", min=0, max=MAX_SEED, help="Seed of every random choice.")] = None,
    resume: Annotated[
        bool, _training("--resume", help="Go on with the training of a compile that was stopped.")
    ] = False,
    save_steps: Annotated[
        int | None,
        _training(
            "--save-steps",
            min=1,
            metavar="N",
            help="Save the state of the training every N steps, besides after every epoch.",
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        _training("--tensorboard", readable=False, metavar="FOLDER", help="Write learning curves for TensorBoard."),
    ] = None,
    seeds: Annotated[
        int, _training("--seeds", min=1, max=1000, help="Runs with further seeds, for mean and deviation.")
    ] = 1,
    control: Annotated[
        list[str] | None,
        _training("--control", metavar="ARM", help=f"Control arm to run beside it, repeatable: {', '.join(CONTROLS)}."),
    ] = None,
    output: Annotated[
        Path | None,
        _gates(
            "--output",
            "-o",
            readable=False,
            help="Folder of the bundle; CHECKPOINT.TARGET.bundle beside the checkpoint by default.",
        ),
    ] = None,
    force: Annotated[bool, _gates("--force", help="Replace an existing bundle.")] = False,
    no_engine: Annotated[bool, _gates("--no-engine", help="Write the bundle without an engine.")] = False,
    max_drop_points: Annotated[
        float | None,
        _gates("--max-drop-points", metavar="P", help="Fail if accuracy drops by more percentage points than this."),
    ] = None,
    min_speedup: Annotated[
        float | None,
        _gates(
            "--min-speedup",
            metavar="X",
            help="Fail if the network is not this many times as fast as the dense one on the target.",
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None, _gates("--max-latency-ms", metavar="MS", help="Fail if one inference takes longer on the target.")
    ] = None,
    max_size_mb: Annotated[
        float | None, _gates("--max-size-mb", metavar="MB", help="Fail if the engine's file is larger.")
    ] = None,
    require_sparse: Annotated[
        str | None,
        _gates("--require-sparse", metavar="P%", help="Fail if fewer of the layers hold 2:4 than this, as in 80%."),
    ] = None,
    allow_unknown: Annotated[
        bool, _gates("--allow-unknown", help="Let a gate pass that can't be measured here.")
    ] = False,
    allow_noop: Annotated[
        bool,
        _gates("--allow-noop", help="Let a step pass that did nothing, or less than half, of what it was asked for."),
    ] = False,
    strict: Annotated[
        bool,
        _gates(
            "--strict",
            help="Fail if more than 5 points are lost, the network is slower than the dense one on the target, or the "
            "vendor doesn't support the target, where no other gate covers that.",
        ),
    ] = False,
    allow_implausible: Annotated[
        bool,
        _gates("--allow-implausible", help="Go on where the data look otherwise than those of the network's training."),
    ] = False,
    gate: Annotated[
        list[str] | None,
        _gates("--gate", metavar="NAME{limit=...}", help="Another gate, such as a plug-in's; repeatable."),
    ] = None,
    engine: Annotated[
        str, _engine("--engine", metavar="NAME", help="Kind of engine to build and run; the target decides by default.")
    ] = "",
    dims: options.Dims = None,
    also_for: Annotated[
        list[str] | None,
        _engine(
            "--also-for",
            metavar="DEVICE",
            help="Build ahead of time one engine that runs on this device too; repeatable.",
        ),
    ] = None,
    timing_cache: options.TimingCache = None,
    data_timeout: Annotated[
        float | None,
        typer.Option(
            "--data-timeout",
            min=0.001,
            metavar="S",
            help="Fail if one call of the project's own code takes longer than so many seconds.",
        ),
    ] = None,
    latency_batch: options.LatencyBatch = 1,
    threads: options.Threads = 1,
    cpu_latency: Annotated[
        bool, typer.Option("--cpu-latency", help="Time the float32 files on this CPU too where it is not the target.")
    ] = False,
    verify_each: Annotated[bool, _debugging("--verify-each", help="Check each step's claims after it.")] = False,
    print_after: Annotated[
        list[str] | None, _debugging("--print-after", metavar="STEP", help="Print the program after these steps.")
    ] = None,
) -> int:
    """Compile a checkpoint for a target: prune, sparsify, recover, export, build, measure, report."""
    from prunec.runtime.target import Target

    parsed = Target.parse(target)
    from prunec.compiler.facts.settings import Settings

    with showing_progress() as progress:
        settings = Settings(
            threads=threads,
            latency_batch=latency_batch,
            cost_model=cost_model,
            cpu_latency=cpu_latency,
            build_engine=not no_engine,
            engine_options=engine_options(dims, also_for, timing_cache, engine),
            max_drop_points=max_drop_points,
            min_speedup=min_speedup,
            max_latency_ms=max_latency_ms,
            max_size_mb=max_size_mb,
            require_sparse_percent=None if require_sparse is None else _percent(require_sparse),
            gates=tuple(gate or ()),
            allow_unknown=allow_unknown,
            allow_noop=allow_noop,
            strict=strict,
            allow_implausible=allow_implausible,
            command=context.obj,
            resume=resume,
            save_steps=save_steps,
            tensorboard=tensorboard,
            seeds=seeds,
            controls=tuple(control or ()),
            print_after=tuple(print_after or ()),
            progress=progress,
        )
        settings = replace(settings, verify_each=verify_each or settings.verify_each)
        from prunec.compiler.commands.compile_checkpoint import compile_checkpoint
        from prunec.compiler.commands.compile_job import Job
        from prunec.compiler.project.recipe_request import RecipeOptions

        recipe = RecipeOptions(
            pipeline=pipeline,
            method=method,
            speedup=speedup,
            latency_speedup=latency_speedup,
            latency_ms=latency_ms,
            parameters=parameters,
            size_mb=size_mb,
            ratio=ratio,
            plan=plan,
            epochs=epochs,
            seed=seed,
        )
        loading = options.model_options(model, input_, trust, weights)
        job = Job(checkpoint, parsed, config, loading, recipe, settings, output, force)
        if dry_run:
            _print_recipe(job)
            return 0
        with user_code_rules(timeout_s=data_timeout):
            report, folder = compile_checkpoint(job, note)
    print_report(report, folder, context.obj)
    return report.exit_code


def _print_recipe(job: "Job") -> None:
    """Print what a compile would do; neither the checkpoint nor the data are read, and no code of the project runs."""
    from prunec.compiler.commands.compile_checkpoint import output_of, prepare

    prepared = prepare(job, note, runs=False)
    folder, writer = output_of(prepared)
    writer.check()
    place = "default" if job.output is None else "--output"
    general = [("", "target", str(job.target), "--target"), ("", "output", str(folder), place)]
    rows = [(row.step, row.option, row.value, row.source) for row in prepared.recipe.rows]
    title = f"Recipe, {prepared.config.path or 'without a prunec.toml'}"
    print_table(title, ("step", "option", "value", "from"), general + rows)
    echo(f"Pipeline: {prepared.recipe.pipeline}\nNothing was compiled (--dry-run).")


def engine_options(
    dims: list[str] | None, also_for: list[str] | None, timing_cache: Path | None, engine: str
) -> "EngineOptions":
    """The options of an engine, as the command line gives them.

    Raises:
        UsageError: Sizes of a dimension can't be read, or stand there twice.
    """
    from prunec.passes.size_range import SizeRange
    from prunec.runtime.engines.options import EngineOptions

    ranges = {}
    for text in dims or ():
        name, equals, sizes = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--dims {text!r} is not of the form batch=1:8:32.")
        if name in ranges:
            raise UsageError(f"--dims names {name!r} twice.")
        ranges[name] = SizeRange.parse(sizes)
    return EngineOptions(ranges, tuple(also_for or ()), timing_cache, engine)


def _percent(text: str) -> float:
    """``80%`` as 80."""
    with contextlib.suppress(ValueError):
        if text.endswith("%"):
            return float(text[:-1])
    raise UsageError(f"--require-sparse is {text!r}: expected a percentage, as in 80%.")
