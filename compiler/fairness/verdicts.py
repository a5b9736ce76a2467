"""Verdicts on runs that are comparable enough: a ranking by pairwise intervals, or a winner under two retrainings."""

from collections.abc import Sequence
from itertools import combinations

from prunec.compiler.fairness.accuracy_difference import CONFIDENCE, Difference, difference
from prunec.compiler.fairness.amounts import Alike
from prunec.compiler.fairness.comparison_levels import PairLevels, may_be_ranked, reaches
from prunec.compiler.fairness.run_card import RunCard

_TIE = f"(=: the difference is within its {100 * CONFIDENCE:g} % interval)"


def in_points(value: float) -> str:
    """A share of accuracy in percentage points."""
    return f"{100 * value:.2f}"


def ranking(cards: Sequence[RunCard]) -> str:
    """The order of runs, as far as it isn't chance; where a deviation isn't known, their differences alone."""
    if unknown := [card.name for card in cards if card.accuracy.mean is None]:
        return f"not ranked: the accuracy of {', '.join(unknown)} isn't known."
    ordered = sorted(cards, key=_mean, reverse=True)
    if any(_between(a, b).margin is None for a, b in combinations(ordered, 2)):
        return _differences(ordered)
    groups = _groups(ordered)
    if groups is not None:
        words = " > ".join(" = ".join(card.name for card in group) for group in groups)
        return words if len(groups) == len(cards) else f"{words} {_TIE}"
    pairs = [(a, b, _between(a, b)) for a, b in combinations(ordered, 2)]
    wins = [f"{a.name} > {b.name}" for a, b, gap in pairs if gap.winner is not None]
    ties = [f"{a.name} = {b.name}" for a, b, gap in pairs if gap.winner is None]
    return f"{'; '.join([*wins, *ties])} {_TIE}"


def drops(cards: Sequence[RunCard]) -> str:
    """The losses from the dense network on, which may be compared from S1 on; empty where none is known."""
    known = [f"{card.name} {in_points(card.drop)}" for card in cards if card.drop is not None]
    return f"Drops from the dense network, in points: {', '.join(known)}." if known else ""


def cross_verdict(cards: Sequence[RunCard], alike: Alike) -> str:
    """The winner of two methods, if it wins under both of two ways of retraining; empty for other runs."""
    pairs = _crossed(cards, PairLevels(cards, alike))
    if pairs is None:
        return ""
    gaps = [_between(a, b) for a, b in pairs]
    if any(one.margin is None for one in gaps):
        return _differences(sorted(cards, key=_mean, reverse=True))
    winners = [one.winner for one in gaps]
    if winners[0] == winners[1]:
        names = [card.method for card in pairs[0]]
        return (
            "tie under both retrainings." if winners[0] is None else f"{names[winners[0]]} wins under both retrainings."
        )
    best = max(cards, key=_mean)
    return f"recipe-dependent: neither method wins under both retrainings. The most accurate run is {best.name}."


def _crossed(cards: Sequence[RunCard], levels: PairLevels) -> list[tuple[RunCard, RunCard]] | None:
    """Two methods' runs by retraining, in one order of the methods; None where the runs aren't crossed like that.

    All share the task and the dense weights, so that it is the retraining in which the pairs differ.
    """
    methods = list(dict.fromkeys(card.method for card in cards))
    if len(cards) != 4 or len(methods) != 2 or None in methods or any(c.accuracy.mean is None for c in cards):
        return None
    if not all(reaches(levels(a, b).level, "S2") for a, b in combinations(cards, 2)):
        return None
    first, second = ([card for card in cards if card.method == method] for method in methods)
    pairs = [(a, b) for a in first for b in second if may_be_ranked(levels(a, b).level)]
    is_crossed = len(pairs) == 2 and pairs[0][0] is not pairs[1][0] and pairs[0][1] is not pairs[1][1]
    return pairs if is_crossed else None


def _groups(ordered: Sequence[RunCard]) -> list[list[RunCard]] | None:
    """Runs in groups within which all are ties and between which none are; None where ties don't go together so."""
    groups: list[list[RunCard]] = []
    for card in ordered:
        ties = [group for group in groups if any(_between(other, card).winner is None for other in group)]
        if not ties:
            groups.append([card])
        elif ties != groups[-1:] or any(_between(other, card).winner is not None for other in groups[-1]):
            return None
        else:
            groups[-1].append(card)
    return groups


def _differences(ordered: Sequence[RunCard]) -> str:
    """The differences from the most accurate run on, where nobody may be said to win."""
    unknown = [card.name for card in ordered if card.accuracy.standard_deviation is None]
    best = ordered[0]
    apart = [f"{card.name} {in_points(_mean(best) - _mean(card))} below {best.name}" for card in ordered[1:]]
    return f"no winner: how much seeds differ isn't known of {', '.join(unknown)}. In points: {', '.join(apart)}."


def _between(a: RunCard, b: RunCard) -> Difference:
    gap = difference(a.accuracy, b.accuracy)
    assert gap is not None, "runs without an accuracy are not ranked"
    return gap


def _mean(card: RunCard) -> float:
    return card.accuracy.mean or 0.0
