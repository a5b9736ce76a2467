"""Three-valued answers to questions about two runs: true, false, or unknown where a card lacks what it takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from prunec.compiler.fairness.names import same_name
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.fairness.training_options import CardValue, in_words, is_same

#: Digits of a fingerprint that a reader is shown where there is no name.
_SHOWN_DIGITS = 8


@dataclass(frozen=True)
class Predicate:
    """One question about two runs.

    Attributes:
        truth: The answer; None where a card lacks what it takes.
        differs: Sentences on the differences, where the answer is no.
        missing: The fields that aren't known, as "run: field".
    """

    truth: bool | None
    differs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


Question = Callable[[RunCard, RunCard], Predicate]
_YES = Predicate(True)


def judged(truth: bool, *differs: str) -> Predicate:
    """An answer that is known, with what differs where it is no."""
    return _YES if truth else Predicate(truth, differs)


def all_of(*answers: Predicate) -> Predicate:
    """Whether all are true: false where one is false, else unknown where one is unknown."""
    told = [answer for answer in answers if answer != _YES]
    if not told:
        return _YES
    truths = [answer.truth for answer in told]
    truth = False if False in truths else None if None in truths else True
    differs, missing = (
        tuple(dict.fromkeys(word for answer in told for word in getattr(answer, name)))
        for name in ("differs", "missing")
    )
    return Predicate(truth, differs, missing)


def equal(a: RunCard, b: RunCard, path: str) -> Predicate:
    """Whether a field, by dotted path, is known and equal."""
    first, second = (attrgetter(path)(card) for card in (a, b))
    missing = tuple(f"{card.name}: {path}" for card, value in ((a, first), (b, second)) if value is None)
    if missing:
        return Predicate(None, missing=missing)
    return judged(is_same(first, second) is True, difference(path, first, second))


def same_identity(a: RunCard, b: RunCard, field: str) -> Predicate:
    """Whether both mean the same data, network or weights.

    Where both have a fingerprint it decides, as content does; else the names do.
    """
    hashes, names = [[getattr(card, name) for card in (a, b)] for name in (f"{field}_sha256", field)]
    if None not in hashes:
        shown = [name or f"fingerprint {digits[:_SHOWN_DIGITS]}" for name, digits in zip(names, hashes, strict=True)]
        alike = " by name, and the contents differ" if shown[0] == shown[1] else ""
        return judged(hashes[0] == hashes[1], difference(field, *shown) + alike)
    if None in names:
        return Predicate(None, missing=tuple(f"{c.name}: {field}" for c in (a, b) if getattr(c, field) is None))
    return judged(same_name(*names), difference(field, *names))


def no_contradiction(a: Mapping[str, CardValue], b: Mapping[str, CardValue]) -> Predicate:
    """Whether nothing differs that both give."""
    words = [difference(name, a[name], b[name]) for name in a if name in b and is_same(a[name], b[name]) is False]
    return judged(not words, *words)


def same_options(
    cards: Sequence[RunCard],
    options: Sequence[Mapping[str, CardValue | None]],
    required: Sequence[str],
    part: str | tuple[str, str],
) -> Predicate:
    """Whether options are known and equal.

    Args:
        cards: The two runs.
        options: The options of each by name; None for those that aren't known.
        required: Names that must be known of both, beside those that either has.
        part: The part of a card that holds them, of each where they aren't the same, for what a reader is told.
    """
    first, second = options
    if first == second and None not in first.values() and first.keys() >= set(required):
        return _YES
    parts = (part, part) if isinstance(part, str) else part
    answers = []
    for name in dict.fromkeys([*required, *options[0], *options[1]]):
        values = [given.get(name) for given in options]
        fields = [f"{card.name}: {where}.{name}" for card, where in zip(cards, parts, strict=True)]
        missing = tuple(field for field, value in zip(fields, values, strict=True) if value is None)
        same = None if missing else is_same(values[0], values[1])
        if same is None and not missing:
            missing = tuple(fields)
        words = () if same is not False else (difference(f"{parts[0]}.{name}", *values),)
        answers.append(Predicate(same, words, missing))
    return all_of(*answers)


def difference(what: str, first: object, second: object) -> str:
    """A sentence on two values that differ."""
    return f"{what}: {in_words(first)} against {in_words(second)}"
