"""The comparison of several runs: their level, the differences that count, and the winner where there may be one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from prunec.compiler.fairness.accuracy_difference import Difference, difference
from prunec.compiler.fairness.amounts import Alike, Equal
from prunec.compiler.fairness.comparison_levels import (
    RANKED_FROM,
    PairLevel,
    PairLevels,
    common_level,
    compare_pair,
    may_be_ranked,
)
from prunec.compiler.fairness.report_cards import report_card
from prunec.compiler.fairness.run_card import MAX_RUNS, RunCard
from prunec.compiler.fairness.verdicts import cross_verdict, drops, ranking
from prunec.compiler.report.report import Report
from prunec.passes.errors import UsageError


@dataclass(frozen=True)
class Pair:
    """Two runs of a comparison.

    Attributes:
        first: Name of the one.
        second: Name of the other.
        level: The level at which they may be compared.
        difference: The difference of their accuracies; None where one isn't known.
    """

    first: str
    second: str
    level: PairLevel
    difference: Difference | None


@dataclass(frozen=True)
class RunsComparison:
    """Several runs.

    Attributes:
        cards: The runs, control arms among them.
        equal: What is equal of runs that count as compressed alike: MACs, or measured time on one target.
        tolerance: Share by which that may differ.
        level: The highest level that all pairs share; pairs with a control arm don't count.
        tags: The tags that all pairs share.
        pairs: Every two of the runs, and each control arm with its run.
        ranked: Whether the runs may be ranked.
        warnings: The reasons why they may not, and what else a reader must know.
        verdict: Who wins, in words, or that nobody may be said to win.
    """

    cards: tuple[RunCard, ...]
    equal: Equal
    tolerance: float
    level: str
    tags: tuple[str, ...]
    pairs: tuple[Pair, ...]
    ranked: bool
    warnings: tuple[str, ...]
    verdict: str

    @property
    def alike(self) -> str:
        """What is equal of runs that count as compressed alike, in words."""
        return Alike(self.equal, self.tolerance).words

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        cards = [card.model_dump(mode="json") | {"drop": card.drop} for card in self.cards]
        return {**vars(self), "cards": cards, "pairs": list(map(_plain_pair, self.pairs))}


def _plain_pair(pair: Pair) -> dict[str, Any]:
    """What ``asdict`` gives, without its deep copies: there may be many pairs."""
    predicates = {name: vars(predicate) for name, predicate in pair.level.predicates.items()}
    apart = None if pair.difference is None else vars(pair.difference)
    return {**vars(pair), "level": {**vars(pair.level), "predicates": predicates}, "difference": apart}


def compare(cards: Sequence[RunCard], tolerance: float | None = None, equal: Equal = "macs") -> RunsComparison:
    """Compare runs. Control arms are compared with their own run, and with all where that is the only one.

    Args:
        cards: The runs.
        tolerance: Share by which what is equal of runs that are compressed alike may differ; 0.01 of MACs and 0.03 of
            latency by default.
        equal: What that is: speed-up in MACs, or measured time on one target.

    Raises:
        UsageError: There are fewer than two or too many, or two of one name, or the tolerance is no share.
    """
    alike = Alike(equal, tolerance)
    names = [card.name for card in cards]
    if len(cards) < 2:
        raise UsageError(f"A comparison needs at least two runs, got {len(cards)}.")
    if len(cards) > MAX_RUNS:
        raise UsageError(f"A comparison has at most {MAX_RUNS} runs, got {len(cards)}.", hint="Compare some of them.")
    if len(set(names)) < len(names):
        raise UsageError(f"Two runs have one name: {', '.join(names)}.", hint="Rename a file, or give names in YAML.")
    own = [card for card in cards if card.arm_of not in names]
    compared = own if len(own) > 1 else list(cards)
    levels = PairLevels(cards, alike)
    pairs = [_pair(a, b, levels(a, b)) for a, b in combinations(compared, 2)]
    level, tags = common_level([pair.level for pair in pairs])
    is_ranked = may_be_ranked(level) and not _families(compared)
    arms = [_pair(run, arm, levels(run, arm)) for run, arm in _with_arms(cards)] if len(own) > 1 else []
    return RunsComparison(
        cards=tuple(cards),
        equal=equal,
        tolerance=alike.share,
        level=level,
        tags=tags,
        pairs=(*pairs, *arms),
        ranked=is_ranked,
        warnings=tuple(_warnings(compared, level)),
        verdict=_verdict(compared, level, is_ranked=is_ranked, alike=alike),
    )


def _with_arms(cards: Sequence[RunCard]) -> Iterator[tuple[RunCard, RunCard]]:
    """Each run with each of its control arms."""
    return ((run, arm) for run in cards for arm in cards if arm.arm_of == run.name)


def _pair(a: RunCard, b: RunCard, level: PairLevel) -> Pair:
    return Pair(a.name, b.name, level, difference(a.accuracy, b.accuracy))


def _verdict(cards: Sequence[RunCard], level: str, *, is_ranked: bool, alike: Alike) -> str:
    if crossed := cross_verdict(cards, alike):
        return crossed
    if is_ranked:
        return ranking(cards)
    return " ".join(["not ranked.", *filter(None, [drops(cards)])]) if level != "S0" else "not ranked."


def _warnings(cards: Sequence[RunCard], level: str) -> Iterator[str]:
    if level == "S0":
        yield "S0: nothing may be said of all of them together; see what differs and what isn't known."
    elif not may_be_ranked(level):
        yield f"Below {RANKED_FROM} runs are not ranked: the retraining may explain all of the difference."
    if families := _families(cards):
        yield f"Runs of different families are not ranked: {families}."
    if any(card.accuracy.standard_deviation is None for card in cards):
        yield "Not all runs have a standard deviation: how much seeds differ isn't known."


def _families(cards: Sequence[RunCard]) -> str:
    """Sentences on the runs with a teacher or 8-bit arithmetic, where not all have them; empty where they are alike."""
    families = {flag: [card.name for card in cards if getattr(card, flag)] for flag in ("distilled", "int8")}
    return "; ".join(f"{flag}: {', '.join(names)}" for flag, names in families.items() if 0 < len(names) < len(cards))


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
