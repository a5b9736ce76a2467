"""``prunec compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, note, print_json, print_markdown, print_table
from prunec.passes.errors import UsageError

if TYPE_CHECKING:
    from prunec.compiler.fairness.run_card import RunCard
    from prunec.compiler.fairness.runs_comparison import Pair

#: More pairs than this fill a screen: those that can't be compared at all are left out.
_FEW_PAIRS = 10
#: Number of missing fields of one part from which on the part as a whole is named instead.
_MOST_OF_A_PART = 5
_AMOUNT, _AMOUNTS = "amount", {"macs": "speed-up", "latency": "latency"}
_RUN_COLUMNS = ("run", "method", "dense", "final", "drop", _AMOUNT, "trainability", "retraining")
_PAIR_COLUMNS, _REASONS = ("runs", "level", "at most", "tags", "difference"), ("what differs", "what isn't known")


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            readable=False,
            help="Bundles, report.json files, or YAML files of published runs; FILE#NAME is one run of them, such as a "
            "control arm (RUN.bundle#scratch-b) or a seed (RUN.bundle#seed-1).",
        ),
    ],
    equal: Annotated[
        Literal["macs", "latency"],
        typer.Option(
            "--equal", help="What runs that count as compressed alike share: MACs, or measured time on one target."
        ),
    ] = "macs",
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="Share by which that may differ; by default 0.01 of the speed-up in MACs, and 0.03 of the time.",
        ),
    ] = None,
    as_json: options.AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print tables in Markdown.")] = False,
) -> None:
    """Say how runs may be compared: the level that they share, what differs, what isn't known, and who wins if anyone.

    Levels are those of "Why is the State of Neural Network Pruning so Confusing?" (2023): from S1, drops alone, to
    S4.2. Runs are ranked from S3.2 on, where the retraining is the same. Control arms of a report are rows of their
    own, compared with their run.
    """
    from prunec.compiler.fairness.card_reading import read_cards
    from prunec.compiler.fairness.runs_comparison import compare as compare_cards

    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other.")
    comparison = compare_cards([card for path in runs for card in read_cards(path)], tolerance, equal)
    if as_json:
        print_json(comparison.to_json())
        return
    for warning in comparison.warnings:
        note(warning)
    listed, rows = _listed(comparison.pairs), [_row(card, equal) for card in comparison.cards]
    columns = [_AMOUNTS[equal] if name == _AMOUNT else name for name in _RUN_COLUMNS]
    if as_markdown:
        print_markdown(columns, rows)
        print_markdown((*_PAIR_COLUMNS, *_REASONS), [(*_pair_row(pair), *_reasons(pair)) for pair in listed])
    else:
        print_table("runs", columns, rows)
        print_table("pairs", _PAIR_COLUMNS, list(map(_pair_row, listed)))
        for pair in listed:  # too long for columns
            _print_reasons(pair)
    alike = f"Compressed alike means: {comparison.alike}."
    level = f"Level: {' +'.join((comparison.level, *comparison.tags))}"
    echo(("\n\n" if as_markdown else "\n").join((alike, level, f"Verdict: {comparison.verdict}")))


def _listed(pairs: "Sequence[Pair]") -> "list[Pair]":
    listed = [pair for pair in pairs if len(pairs) <= _FEW_PAIRS or pair.level.level != "S0"]
    if len(listed) < len(pairs):
        note(f"{len(pairs) - len(listed)} of {len(pairs)} pairs are at S0 and not listed; --json has them.")
    return listed


def _row(card: "RunCard", equal: str) -> tuple[str, ...]:
    deviation = card.accuracy.standard_deviation
    spread = "" if deviation is None else f" +- {100 * deviation:.2f}"
    return (
        card.name,
        _method(card),
        _percent(card.dense_accuracy),
        _percent(card.accuracy.mean) + spread,
        "-" if card.drop is None else f"{100 * card.drop:.2f} points",
        _latency(card) if equal == "latency" else "-" if card.speedup is None else f"{card.speedup:.2f}x",
        _percent(card.trainability_accuracy),
        _retraining(card),
    )


def _latency(card: "RunCard") -> str:
    return "-" if card.latency is None else f"{card.latency.median_ms:.4g} ms"


def _method(card: "RunCard") -> str:
    kept = "" if card.kept_magnitude is None else f" (masks keep {100 * card.kept_magnitude:.1f} % of magnitude)"
    return (card.method or "-") + kept


def _retraining(card: "RunCard") -> str:
    epochs, rates = card.finetuning.epochs, card.finetuning.learning_rates
    if epochs == 0:
        return "none"
    if epochs is None:
        return "-"
    if not rates:
        return f"{epochs:g} epochs"
    first, highest = rates[0].rate(0.0), max(piece.rate(end) for piece in rates for end in (piece.start, piece.end))
    return f"{epochs:g} epochs {'from' if first == highest else 'up to'} {highest:g}"


def _pair_row(pair: "Pair") -> tuple[str, ...]:
    level = pair.level
    return f"{pair.first}, {pair.second}", level.level, level.at_most, " ".join(level.tags), _difference(pair)


def _reasons(pair: "Pair") -> tuple[str, str]:
    """What differs, and what isn't known."""
    return "; ".join(pair.level.differs), _missing(pair.level.missing)


def _print_reasons(pair: "Pair") -> None:
    told = [f"  {title}: {words}" for title, words in zip(_REASONS, _reasons(pair), strict=True) if words]
    if told:
        echo("\n".join([f"{pair.first}, {pair.second}", *told, ""]))


def _difference(pair: "Pair") -> str:
    """The difference of the accuracies, at levels at which a ranking may be made."""
    from prunec.compiler.fairness.comparison_levels import may_be_ranked

    gap = pair.difference
    if gap is None or not may_be_ranked(pair.level.level):
        return "-"
    margin = "deviation not known" if gap.margin is None else f"+- {100 * gap.margin:.2f}, {gap.kind}"
    return f"{100 * gap.value:+.2f} points ({margin})"


def _missing(fields: Sequence[str]) -> str:
    """Unknown fields as ``part.field (RUN)``; one that both runs lack, or a mostly unknown part, comes once."""
    runs: dict[str, list[str]] = {}
    for text in fields:
        run, _, field = text.rpartition(": ")
        runs.setdefault(field, []).append(run)
    parts = [field.partition(".")[0] for field in runs]
    shown = {f: part if parts.count(part) >= _MOST_OF_A_PART else f for f, part in zip(runs, parts, strict=True)}
    whose = ((shown[field], "both" if len(names) > 1 else names[0]) for field, names in runs.items())
    return "; ".join(f"{field} ({run})" for field, run in dict.fromkeys(whose))


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"
