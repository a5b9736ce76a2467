"""What may be said of several runs: their level, which differences count, and who wins where that may be said."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

from prunec.compiler.fairness.card import RunCard
from prunec.compiler.fairness.levels import LEVELS, RANKED_FROM, PairLevel, common_level, compare_pair
from prunec.passes.errors import UsageError


@dataclass(frozen=True)
class Pair:
    """Two runs of a comparison."""

    first: str
    second: str
    level: PairLevel


@dataclass(frozen=True)
class Comparison:
    """Several runs.

    Attributes:
        cards: the runs.
        level: the highest that all pairs share.
        tags: that all pairs share.
        pairs: of every two.
        ranked: whether the runs may be ranked.
        warnings: why they may not, and what else a reader must know.
        verdict: who wins, in words; what each saw, where nobody may be said to.
    """

    cards: tuple[RunCard, ...]
    level: str
    tags: tuple[str, ...]
    pairs: tuple[Pair, ...]
    ranked: bool
    warnings: tuple[str, ...]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        document = asdict(self)
        document["cards"] = [card.model_dump(mode="json") for card in self.cards]
        return document


def compare(cards: Sequence[RunCard]) -> Comparison:
    """Compare runs.

    Raises:
        UsageError: fewer than two, or two of one name.
    """
    names = [card.name for card in cards]
    if len(cards) < 2:
        raise UsageError(f"A comparison needs at least two runs, got {len(cards)}.")
    if len(set(names)) < len(names):
        raise UsageError(f"Two runs have one name: {', '.join(names)}.", hint="Rename a file, or give names in YAML.")
    level, tags = common_level(cards)
    pairs = tuple(Pair(a.name, b.name, compare_pair(a, b)) for a, b in combinations(cards, 2))
    warnings = list(_warnings(cards, level))
    enough = [*LEVELS].index(level) >= [*LEVELS].index(RANKED_FROM) if level in LEVELS else False
    ranked = enough and not _families(cards)
    cross = _cross_verdict(cards)
    verdict = cross or (_ranking(cards) if ranked else "not ranked.")
    return Comparison(tuple(cards), level, tags, pairs, ranked, tuple(warnings), verdict)


def _warnings(cards: Sequence[RunCard], level: str) -> list[str]:
    found = []
    if level == "S0":
        found.append("S0: not comparable at all; see what differs.")
    elif level not in LEVELS or [*LEVELS].index(level) < [*LEVELS].index(RANKED_FROM):
        found.append(f"Below {RANKED_FROM} runs are not ranked: the retraining may explain all of the difference.")
    if families := _families(cards):
        found.append(f"Runs of different families are not ranked: {families}.")
    if any(card.accuracy.standard_deviation is None for card in cards):
        found.append("Not all runs have a standard deviation: how much seeds differ isn't known.")
    return found


def _families(cards: Sequence[RunCard]) -> str:
    """Which runs had a teacher or compute in 8 bits, where not all do; empty where they are all alike."""
    parts = []
    for words, flags in (
        ("distilled", [card.distilled for card in cards]),
        ("int8", [card.int8 for card in cards]),
    ):
        if True in flags and not all(flags):
            parts.append(f"{words}: {', '.join(c.name for c, flag in zip(cards, flags, strict=True) if flag)}")
    return "; ".join(parts)


def _ranking(cards: Sequence[RunCard]) -> str:
    """Best first; neighbours closer than two standard deviations are tied."""
    known = [card for card in cards if card.accuracy.mean is not None]
    if len(known) < len(cards):
        return (
            "not ranked: the accuracy of "
            + ", ".join(c.name for c in cards if c.accuracy.mean is None)
            + " isn't known."
        )
    ordered = sorted(known, key=lambda card: -(card.accuracy.mean or 0.0))
    words = ordered[0].name
    for better, worse in pairwise(ordered):
        words += f" {'=' if tied(better, worse) else '>'} {worse.name}"
    return words + ("" if "=" not in words else " (= is a tie: closer than two standard deviations)")


def tied(a: RunCard, b: RunCard) -> bool:
    """Whether two runs are closer than two standard deviations, of the less certain one; exact figures tie if equal."""
    deviation = max(a.accuracy.standard_deviation or 0.0, b.accuracy.standard_deviation or 0.0)
    difference = abs((a.accuracy.mean or 0.0) - (b.accuracy.mean or 0.0))
    return difference < 2 * deviation or difference == 0


def _cross_verdict(cards: Sequence[RunCard]) -> str:
    """Of two methods, each retrained in two ways: the winner, if one wins under both; empty for other runs."""
    if len(cards) != 4 or any(
        c.method is None or c.finetuning.rates() is None or c.accuracy.mean is None for c in cards
    ):
        return ""
    methods = list(dict.fromkeys(str(card.method) for card in cards))
    ways: list[list[float] | None] = []
    for card in cards:
        if card.finetuning.rates() not in ways:
            ways.append(card.finetuning.rates())
    table = {(card.method, ways.index(card.finetuning.rates())): card for card in cards}
    if len(methods) != 2 or len(ways) != 2 or len(table) != 4:
        return ""
    winners = []
    for way in range(2):
        first, second = (table[method, way] for method in methods)
        if compare_pair(first, second).level not in ("S3.2", "S4.1", "S4.2"):
            return ""
        if tied(first, second):
            winners.append("")
        else:
            winners.append(methods[0] if (first.accuracy.mean or 0) > (second.accuracy.mean or 0) else methods[1])
    if winners[0] == winners[1] != "":
        return f"{winners[0]} wins under both retrainings."
    best = max(cards, key=lambda card: card.accuracy.mean or 0.0)
    return f"recipe-dependent: neither method wins under both retrainings. The most accurate run is {best.name}."
