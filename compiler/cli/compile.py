"""``prunec compile``."""

from pathlib import Path
from typing import Annotated

import typer

from prunec.calibration.config import MAX_SEED
from prunec.compiler.cli import options
from prunec.compiler.cli.output import note
from prunec.compiler.cli.progress import showing_progress

RECIPE = "Recipe (overrides prunec.toml)"
GATES = "Output and gates"


def compile_(
    context: typer.Context,
    checkpoint: options.Checkpoint,
    target: Annotated[
        str,
        typer.Option("--target", "-t", help="Device, pattern, precision, as in a100-2:4-fp16; see prunec targets."),
    ],
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    pipeline: Annotated[
        str | None,
        typer.Option("--pipeline", help="All steps as text.", metavar="TEXT", rich_help_panel=RECIPE),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option("--speedup", help="Dense MACs over compiled MACs.", rich_help_panel=RECIPE),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option("--ratio", help="Fraction of filters to remove in every group.", rich_help_panel=RECIPE),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=0, help="Of the recovery finetune; 0 for none.", rich_help_panel=RECIPE),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=MAX_SEED, help="Of every random choice.", rich_help_panel=RECIPE)
    ] = None,
    resume: options.Resume = False,
    save_steps: options.SaveSteps = None,
    tensorboard: options.TensorBoard = None,
    seeds: options.Seeds = 1,
    control: options.Controls = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            readable=False,
            help="Folder of the bundle; CHECKPOINT.TARGET.bundle by default.",
            rich_help_panel=GATES,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.", rich_help_panel=GATES)] = False,
    no_engine: Annotated[
        bool, typer.Option("--no-engine", help="Write the bundle without an engine.", rich_help_panel=GATES)
    ] = False,
    max_drop_points: Annotated[
        float | None,
        typer.Option(
            "--max-drop-points",
            help="Fail if accuracy drops by more percentage points than this.",
            metavar="P",
            rich_help_panel=GATES,
        ),
    ] = None,
    min_speedup: Annotated[
        float | None,
        typer.Option(
            "--min-speedup",
            help="Fail if it is not so many times as fast as the dense network on the target.",
            metavar="X",
            rich_help_panel=GATES,
        ),
    ] = None,
    require_sparse: Annotated[
        str | None,
        typer.Option(
            "--require-sparse",
            help="Fail if fewer of the layers hold 2:4 than this, as in 80%.",
            metavar="P%",
            rich_help_panel=GATES,
        ),
    ] = None,
    allow_unknown: Annotated[
        bool,
        typer.Option("--allow-unknown", help="Let a gate pass that can't be measured here.", rich_help_panel=GATES),
    ] = False,
    dims: options.Dims = None,
    also_for: options.AlsoFor = None,
    timing_cache: options.TimingCache = None,
    latency_batch: options.LatencyBatch = 1,
    threads: options.Threads = 1,
) -> int:
    """Compile a checkpoint for a target: prune, sparsify, recover, export, build, measure, report."""
    from prunec.runtime.target import Target

    parsed = Target.parse(target)  # before torch is loaded: a typing error shall not take seconds to show
    from prunec.compiler.cli.compile_output import print_report
    from prunec.compiler.compilation import Settings
    from prunec.compiler.compile_checkpoint import RecipeOptions, compile_checkpoint

    settings = Settings(
        threads=threads,
        latency_batch=latency_batch,
        build_engine=not no_engine,
        engine_options=options.engine_options(dims, also_for, timing_cache),
        max_drop_points=max_drop_points,
        min_speedup=min_speedup,
        require_sparse_percent=None if require_sparse is None else _percent(require_sparse),
        allow_unknown=allow_unknown,
        command=context.obj,
        resume=resume,
        save_steps=save_steps,
        tensorboard=tensorboard,
        seeds=seeds,
        controls=tuple(control or ()),
    )
    with showing_progress() as progress:
        report, folder = compile_checkpoint(
            checkpoint,
            parsed,
            config=config,
            model=options.model_options(model, input_, trust),
            recipe=RecipeOptions(pipeline, speedup, ratio, epochs, seed),
            settings=settings,
            output=output,
            force=force,
            progress=progress,
            note=note,
        )
    print_report(report, folder, context.obj)
    return report.exit_code


def _percent(text: str) -> float:
    """``80%`` as 80."""
    from prunec.passes.errors import UsageError

    try:
        if not text.endswith("%"):
            raise ValueError
        return float(text.removesuffix("%"))
    except ValueError:
        raise UsageError(f"--require-sparse is {text!r}: expected a percentage, as in 80%.") from None
