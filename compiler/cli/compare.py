"""``prunec compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from prunec.compiler.fairness.card import RunCard
    from prunec.compiler.fairness.comparison import Comparison, Pair


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
    from prunec.compiler.fairness.comparison import compare as compare_cards
    from prunec.compiler.fairness.reading import read_cards

    found = compare_cards([card for path in runs for card in read_cards(path)])
    if as_json:
        print_json(found.to_json())
        return
    for warning in found.warnings:
        note(warning)
    _print(found)


def _print(found: "Comparison") -> None:
    print_table(
        "runs",
        ("run", "dense", "final", "speed-up", "trainability", "retraining"),
        [_row(card) for card in found.cards],
    )
    listed = [pair for pair in found.pairs if len(found.pairs) <= _FEW_PAIRS or pair.level.level != "S0"]
    if listed:
        print_table(
            "pairs",
            ("runs", "level", "at most", "tags", "what differs", "what isn't known"),
            [_pair_row(pair) for pair in listed],
        )
    if len(listed) < len(found.pairs):
        note(f"{len(found.pairs) - len(listed)} of {len(found.pairs)} pairs are at S0 and not listed; --json has them.")
    tags = "".join(f" +{tag}" for tag in found.tags)
    typer.echo(f"Level: {found.level}{tags}")
    typer.echo(f"Verdict: {found.verdict}")


#: More pairs than this fill a screen: those that can't be compared at all are left out.
_FEW_PAIRS = 10
#: Fields missing of a part from which on the part is named instead.
_MOST_OF_A_PART = 5


def _row(card: "RunCard") -> tuple[str, ...]:
    deviation = card.accuracy.standard_deviation
    spread = "" if deviation is None else f" +- {100 * deviation:.2f}"
    rates = card.finetuning.learning_rates
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
    predicates = pair.level.predicates.values()
    differs = dict.fromkeys(text for predicate in predicates for text in predicate.differs)
    missing = dict.fromkeys(text for predicate in predicates for text in predicate.missing)
    return (
        f"{pair.first}, {pair.second}",
        pair.level.level,
        pair.level.at_most,
        " ".join(pair.level.tags),
        "; ".join(differs),
        _missing(list(missing)),
    )


def _missing(fields: list[str]) -> str:
    """What isn't known, ``RUN: part.field`` each, by field: those of both runs, and parts of which most is missing."""
    runs: dict[str, list[str]] = {}
    for text in fields:
        run, _, field = text.rpartition(": ")
        runs.setdefault(field, []).append(run)
    whole = {part for part in ("training",) if sum(field.startswith(f"{part}.") for field in runs) >= _MOST_OF_A_PART}
    found = dict.fromkeys(
        (part if (part := field.partition(".")[0]) in whole else field, "both" if len(names) > 1 else names[0])
        for field, names in runs.items()
    )
    return "; ".join(f"{field} ({who})" for field, who in found)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"
