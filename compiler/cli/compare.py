"""``prunec compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from prunec.compiler.fairness.run_card import RunCard
    from prunec.compiler.fairness.runs_comparison import Pair, RunsComparison

#: More pairs than this fill a screen: those that can't be compared at all are left out.
_FEW_PAIRS = 10
#: Number of missing fields of the training from which on the training as a whole is named instead.
_MOST_OF_TRAINING = 5


def compare(
    runs: Annotated[
        list[Path], typer.Argument(readable=False, help="Bundles, report.json files, or YAML files of published runs.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Say how runs may be compared: the level that they share, what differs, what isn't known, and who wins if anyone.

    Levels are those of "Why is the State of Neural Network Pruning so Confusing?" (2023): from S1, drops alone, to
    S4.2. Runs are ranked from S3.2 on, where the retraining is the same.
    """
    from prunec.compiler.fairness.card_reading import read_cards
    from prunec.compiler.fairness.runs_comparison import compare as compare_cards

    comparison = compare_cards([card for path in runs for card in read_cards(path)])
    if as_json:
        print_json(comparison.to_json())
        return
    for warning in comparison.warnings:
        note(warning)
    _print(comparison)


def _print(comparison: "RunsComparison") -> None:
    columns = ("run", "dense", "final", "speed-up", "trainability", "retraining")
    print_table("runs", columns, [_row(card) for card in comparison.cards])
    pairs = comparison.pairs
    listed = [pair for pair in pairs if len(pairs) <= _FEW_PAIRS or pair.level.level != "S0"]
    if listed:
        columns = ("runs", "level", "at most", "tags", "what differs", "what isn't known")
        print_table("pairs", columns, [_pair_row(pair) for pair in listed])
    if len(listed) < len(pairs):
        note(f"{len(pairs) - len(listed)} of {len(pairs)} pairs are at S0 and not listed; --json has them.")
    typer.echo(f"Level: {' +'.join((comparison.level, *comparison.tags))}\nVerdict: {comparison.verdict}")


def _row(card: "RunCard") -> tuple[str, ...]:
    deviation, rates = card.accuracy.standard_deviation, card.finetuning.learning_rates
    spread = "" if deviation is None else f" +- {100 * deviation:.2f}"
    retraining = "-" if not rates else f"{card.finetuning.epochs:g} epochs from {rates[0][1]:g}"
    return (
        card.name,
        _percent(card.dense_accuracy),
        _percent(card.accuracy.mean) + spread,
        "-" if card.speedup is None else f"{card.speedup:.2f}x",
        _percent(card.trainability_accuracy),
        "none" if card.finetuning.epochs == 0 else retraining,
    )


def _pair_row(pair: "Pair") -> tuple[str, ...]:
    runs, level = f"{pair.first}, {pair.second}", pair.level
    tags, differs = " ".join(level.tags), "; ".join(level.differs)
    return runs, level.level, level.at_most, tags, differs, _missing(level.missing)


def _missing(fields: Sequence[str]) -> str:
    """Unknown fields as ``RUN: part.field``; a field that both runs lack, or a mostly unknown training, comes once."""
    runs: dict[str, list[str]] = {}
    for text in fields:
        run, _, field = text.rpartition(": ")
        runs.setdefault(field, []).append(run)
    trained = [field for field in runs if field.startswith("training.")]
    short = dict.fromkeys(trained, "training") if len(trained) >= _MOST_OF_TRAINING else {}
    whose = ((short.get(field, field), "both" if len(names) > 1 else names[0]) for field, names in runs.items())
    return "; ".join(f"{field} ({run})" for field, run in dict.fromkeys(whose))


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"
