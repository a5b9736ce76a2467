"""``prunec profile``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, note, print_json, print_table
from prunec.passes.errors import UsageError

if TYPE_CHECKING:
    from prunec.compiler.commands.profile_latency import Combination, Profile
    from prunec.compiler.commands.profile_layers import LayerTime

#: Share of outliers from which on a reader is told.
_MANY_OUTLIERS = 0.1
#: Numbers that an option lists.
_MOST_NUMBERS, _MOST_BATCH, _MOST_THREADS = 20, 65536, 1024


def profile(
    path: options.Artifact,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
    threads: Annotated[str, typer.Option("--threads", metavar="N,...", help="Threads of ONNX Runtime.")] = "1",
    batch: Annotated[str, typer.Option("--batch", metavar="N,...", help="Samples per inference.")] = "1",
    runs: Annotated[int, typer.Option("--runs", min=2, help="Timed inferences of each batch and threads.")] = 200,
    sessions: Annotated[
        int | None,
        typer.Option("--sessions", min=1, help="Processes that share the runs; 3 by default, 1 below 30 runs."),
    ] = None,
    cost_model: Annotated[
        Path | None,
        typer.Option("--cost-model", readable=False, metavar="FILE", help="Compare layers with a measured cost model."),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure latency, and time per operator, of a checkpoint, bundle or ONNX file on this CPU, or of a built engine.

    Several batches or numbers of threads, as in --batch 1,8,32 --threads 1,2, give a table of all combinations.
    """
    from prunec.compiler.commands.profile_latency import combinations_of, profile_path
    from prunec.runtime.costs.cost_file import read_costs

    asked = combinations_of(
        _numbers("--batch", batch, _MOST_BATCH), _numbers("--threads", threads, _MOST_THREADS), runs, seed
    )
    loading = options.model_options(model, input_, trust, weights)
    costs = None if cost_model is None else read_costs(cost_model)
    result = profile_path(path, asked, config=config, model=loading, sessions=sessions, costs=costs, note=note)
    if as_json:
        print_json(result)
        return
    _print_latency(result)
    _print_operators(result)
    modelled = [each for each in result.combinations if _has(each, "model_ms")]
    for combination in modelled or result.combinations[:1]:
        _print_layers(combination, result.target)
    if costs is not None and not modelled:
        echo(f"Layers beside the cost model: {_why_not_modelled(result)}\n")
    echo(result.two_four_words)


def _numbers(option: str, text: str, most: int) -> list[int]:
    """``1,8,32`` as [1, 8, 32].

    Raises:
        UsageError: It is no list of different numbers in their range.
    """
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise UsageError(f"{option} is {text!r}: expected whole numbers, as in 1,8,32.")
    numbers = [int(part) for part in parts]
    if (
        len(set(numbers)) < len(numbers)
        or len(numbers) > _MOST_NUMBERS
        or not 1 <= min(numbers) <= max(numbers) <= most
    ):
        raise UsageError(f"{option} is {text!r}: expected at most {_MOST_NUMBERS} different numbers from 1 to {most}.")
    return numbers


def _print_latency(result: "Profile") -> None:
    from prunec.compiler.report.forecast_words import digits

    first = result.combinations[0]
    latency, settings = result.latency_ms, result.settings
    echo(
        f"{result.path}: median {latency.median:.3f} ms, p90 {latency.p90:.3f} ms, p99 {latency.p99:.3f} ms "
        f"({settings.runs} runs, {_words(first)}; {result.engine})\n"
    )
    rows = [
        (
            str(each.settings.batch),
            str(each.settings.threads),
            f"{each.latency_ms.median:.3f}",
            "{:.3f} to {:.3f}".format(*each.interval_ms),
            f"{each.latency_ms.p90:.3f}",
            f"{each.latency_ms.p99:.3f}",
            digits(each.samples_per_s),
        )
        for each in result.combinations
    ]
    columns = ("batch", "threads", "median ms", "95 % interval", "p90", "p99", "samples/s")
    print_table(f"latency, {_counted(len(first.sessions_ms), 'session')}", columns, rows)
    trust = [(*row[:2], *_trust(each)) for row, each in zip(rows, result.combinations, strict=True)]
    print_table("how far that can be trusted", ("batch", "threads", "warm-up", "drift", "outliers"), trust)
    if any(each.steadiness.outliers >= _MANY_OUTLIERS for each in result.combinations):
        note("Many runs took far longer than the rest: the machine does other work.")


def _words(combination: "Combination") -> str:
    settings = combination.settings
    return f"batch {settings.batch}, {_counted(settings.threads, 'thread')}"


def _trust(combination: "Combination") -> tuple[str, str, str]:
    """Warm-up, drift and outliers in words."""
    steadiness, warm = combination.steadiness, combination.warm_up
    cold = "" if all(each.settled for each in warm) else ", still falling"
    drift = f"{100 * abs(steadiness.drift):.1f} % {'slower' if steadiness.drift > 0 else 'faster'} from start to end"
    return (
        f"{max(each.runs for each in warm)} runs{cold}",
        drift if steadiness.drifts else "none",
        f"{100 * steadiness.outliers:.1f} %",
    )


def _print_operators(result: "Profile") -> None:
    from prunec.passes.unknown import Unknown

    if isinstance(result.operators, Unknown):
        echo(f"Operators: {result.operators.reason}\n")
        return
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
    title = f"operators, slowest first, medians ({_words(result.combinations[0])})"
    print_table(title, ("operator", "layer", "ms", "share", "2:4"), rows)


def _print_layers(combination: "Combination", target: str) -> None:
    """The layers, where a model tells something beside what was measured."""
    from prunec.compiler.report.forecast_words import layer_name

    columns = {"measured_ms": "measured", "model_ms": "cost model", "predicted_ms": f"predicted for {target}"}
    names = [name for name in columns if _has(combination, name)]
    if not {"model_ms", "predicted_ms"} & set(names):
        return
    rows = [(layer_name(layer.name), *(_ms(layer, name) for name in names)) for layer in _layers(combination)]
    print_table(f"layers, in ms ({_words(combination)})", ("layer", *(columns[name] for name in names)), rows)


def _why_not_modelled(result: "Profile") -> str:
    """Why nothing of a cost model stands beside the layers: for the same reason in all combinations."""
    from prunec.passes.unknown import reason_of

    return reason_of(result.combinations[0].layers) or "it gives no time to any of them."


def _layers(combination: "Combination") -> "tuple[LayerTime, ...]":
    from prunec.passes.unknown import Unknown

    return () if isinstance(combination.layers, Unknown) else combination.layers


def _has(combination: "Combination", field: str) -> bool:
    """Whether a field is known of any layer."""
    return any(getattr(layer, field) is not None for layer in _layers(combination))


def _ms(layer: "LayerTime", field: str) -> str:
    """Milliseconds with as many figures as they are worth: a prediction has two."""
    value = getattr(layer, field)
    return "-" if value is None else f"~{value:.2g}" if field == "predicted_ms" else f"{value:.3g}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
