"""The comparison of several runs: their level, the differences that count, and the winner where there may be one."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

from prunec.compiler.fairness.card_reading import report_card
from prunec.compiler.fairness.comparison_levels import LEVELS, RANKED_FROM, PairLevel, common_level, compare_pair
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.report.report import Report
from prunec.passes.errors import UsageError


@dataclass(frozen=True)
class Pair:
    """Two runs of a comparison."""

    first: str
    second: str
    level: PairLevel


@dataclass(frozen=True)
class RunsComparison:
    """Several runs.

    Attributes:
        level: The highest level that all pairs share.
        tags: The tags that all pairs share.
        pairs: Every two of the runs.
        ranked: Whether the runs may be ranked.
        warnings: The reasons why they may not, and what else a reader must know.
        verdict: Who wins, in words, or that nobody may be said to win.
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
        return asdict(self) | {"cards": [card.model_dump(mode="json") for card in self.cards]}


def compare(cards: Sequence[RunCard]) -> RunsComparison:
    """Compare runs.

    Raises:
        UsageError: There are fewer than two, or two of one name.
    """
    names = [card.name for card in cards]
    if len(cards) < 2:
        raise UsageError(f"A comparison needs at least two runs, got {len(cards)}.")
    if len(set(names)) < len(names):
        raise UsageError(f"Two runs have one name: {', '.join(names)}.", hint="Rename a file, or give names in YAML.")
    level, tags = common_level(cards)
    pairs = tuple(Pair(a.name, b.name, compare_pair(a, b)) for a, b in combinations(cards, 2))
    ranked = _may_be_ranked(level) and not _families(cards)
    verdict = _cross_verdict(cards) or (_ranking(cards) if ranked else "not ranked.")
    return RunsComparison(tuple(cards), level, tags, pairs, ranked, tuple(_warnings(cards, level)), verdict)


def _may_be_ranked(level: str) -> bool:
    return level != "S0" and [*LEVELS].index(level) >= [*LEVELS].index(RANKED_FROM)


def _warnings(cards: Sequence[RunCard], level: str) -> Iterator[str]:
    if level == "S0":
        yield "S0: not comparable at all; see what differs."
    elif not _may_be_ranked(level):
        yield f"Below {RANKED_FROM} runs are not ranked: the retraining may explain all of the difference."
    if families := _families(cards):
        yield f"Runs of different families are not ranked: {families}."
    if any(card.accuracy.standard_deviation is None for card in cards):
        yield "Not all runs have a standard deviation: how much seeds differ isn't known."


def _families(cards: Sequence[RunCard]) -> str:
    """Sentences on the runs with a teacher or 8-bit arithmetic, where not all have them; empty where they are alike."""
    families = {flag: [card.name for card in cards if getattr(card, flag)] for flag in ("distilled", "int8")}
    return "; ".join(f"{flag}: {', '.join(names)}" for flag, names in families.items() if 0 < len(names) < len(cards))


def _ranking(cards: Sequence[RunCard]) -> str:
    """Best first; neighbours closer than two standard deviations are tied."""
    if unknown := [card.name for card in cards if card.accuracy.mean is None]:
        return f"not ranked: the accuracy of {', '.join(unknown)} isn't known."
    ordered = sorted(cards, key=_mean, reverse=True)
    words = ordered[0].name
    for better, worse in pairwise(ordered):
        words += f" {'=' if tied(better, worse) else '>'} {worse.name}"
    return words + ("" if "=" not in words else " (= is a tie: closer than two standard deviations)")


def tied(a: RunCard, b: RunCard) -> bool:
    """Whether two runs are closer than two standard deviations, of the less certain one; exact figures tie if equal."""
    deviation = max(a.accuracy.standard_deviation or 0.0, b.accuracy.standard_deviation or 0.0)
    difference = abs(_mean(a) - _mean(b))
    return difference < 2 * deviation or difference == 0


def _mean(card: RunCard) -> float:
    return card.accuracy.mean or 0.0


def _cross_verdict(cards: Sequence[RunCard]) -> str:
    """The winner of two methods, if it wins under both of two ways of retraining; empty for other runs."""
    table: dict[tuple[str, tuple[float, ...]], RunCard] = {}
    for card in cards:
        rates = card.finetuning.rates()
        if card.method is None or rates is None or card.accuracy.mean is None:
            return ""
        table[card.method, tuple(rates)] = card
    methods = list(dict.fromkeys(method for method, _ in table))
    retrainings = list(dict.fromkeys(rates for _, rates in table))
    if not len(cards) == len(table) == 4 or len(methods) != 2 or len(retrainings) != 2:
        return ""
    winners = []
    for retraining in retrainings:
        first, second = (table[method, retraining] for method in methods)
        if not _may_be_ranked(compare_pair(first, second).level):
            return ""
        winners.append("" if tied(first, second) else methods[_mean(second) > _mean(first)])
    if winners[0] == winners[1] != "":
        return f"{winners[0]} wins under both retrainings."
    best = max(cards, key=_mean)
    return f"recipe-dependent: neither method wins under both retrainings. The most accurate run is {best.name}."


@dataclass(frozen=True)
class Comparison:
    """The level at which the runs of two reports may be compared.

    Attributes:
        level: The highest level that holds, "S0" for none.
        tags: The tags that hold, of SX-A and SX-B.
        differences: Sentences on the differences.
        unknowns: Unknown fields as "run: field"; the runs are "a" and "b".
    """

    level: str
    tags: tuple[str, ...]
    differences: tuple[str, ...]
    unknowns: tuple[str, ...]


def comparison_level(report_a: Report, report_b: Report) -> Comparison:
    """The highest level at which the runs of two reports may be compared."""
    pair = compare_pair(report_card(report_a, "a"), report_card(report_b, "b"))
    return Comparison(pair.level, pair.tags, pair.differs, pair.missing)
