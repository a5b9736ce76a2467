"""``prunec profile``."""

from typing import Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, note, print_json, print_table


def profile(
    path: options.Artifact,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
    threads: options.Threads = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples per inference.")] = 1,
    runs: Annotated[int, typer.Option("--runs", min=2, help="Timed inferences.")] = 200,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure latency, and time per operator, under ONNX Runtime on this CPU."""
    from prunec.compiler.commands.profile_latency import ProfileSettings, profile_path

    settings = ProfileSettings(threads, batch, runs, seed)
    loading = options.model_options(model, input_, trust, weights)
    result = profile_path(path, settings, config=config, model=loading, note=note)
    if as_json:
        print_json(result)
        return
    latency = result.latency_ms
    echo(
        f"{result.path}: median {latency.median:.3f} ms, p90 {latency.p90:.3f} ms, p99 {latency.p99:.3f} ms "
        f"({runs} runs, batch {batch}, {threads} thread{'s' * (threads > 1)})\n"
    )
    rows = [
        (
            time.operator,
            time.layer or time.name,
            f"{time.latency_ms:.4f}",
            f"{100 * time.share:.1f} %",
            result.two_four.get(time.layer, ""),
        )
        for time in sorted(result.operators, key=lambda time: -time.latency_ms)
    ]
    print_table("operators, slowest first", ("operator", "layer", "ms", "share", "2:4"), rows)
    echo(result.two_four_words)
