"""Questions about many pairs of runs: each is asked once of all runs that it can't tell apart."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from prunec.compiler.fairness.predicates import Predicate, Question
from prunec.compiler.fairness.run_card import RunCard

#: Names of the two runs of a pair while they are asked about, of one letter: what isn't known begins with one of them.
_FIRST, _SECOND = "1", "2"


class Reading(NamedTuple):
    """A question, and all fields of a card that it reads, besides the name."""

    question: Question
    fields: tuple[str, ...]


class AskedOnce:
    """One question about pairs among some runs.

    Args:
        reading: The question.
        cards: The runs; pairs are made of these very objects.
    """

    def __init__(self, reading: Reading, cards: Sequence[RunCard]) -> None:
        self._reading = reading
        kinds: dict[str, int] = {}
        # An exact text: cards are alike only where nothing that the question reads differs, types included.
        read = (repr([getattr(card, field) for field in reading.fields]) for card in cards)
        self._kinds = {id(card): kinds.setdefault(text, len(kinds)) for card, text in zip(cards, read, strict=True)}
        self._answers: dict[tuple[int, int], Predicate] = {}
        self._read_cards: dict[tuple[int, str], RunCard] = {}

    def __call__(self, a: RunCard, b: RunCard) -> Predicate:
        """The answer for two of the runs."""
        kinds = self._kinds[id(a)], self._kinds[id(b)]
        answer = self._answers.get(kinds)
        if answer is None:
            first, second = self._read(a, kinds[0], _FIRST), self._read(b, kinds[1], _SECOND)
            answer = self._answers[kinds] = self._reading.question(first, second)
        if not answer.missing:
            return answer
        names = {_FIRST: a.name, _SECOND: b.name}
        return replace(answer, missing=tuple(f"{names[field[0]]}{field[1:]}" for field in answer.missing))

    def _read(self, card: RunCard, kind: int, name: str) -> RunCard:
        """A card of a kind, of which the question can read its own fields only: another one raises AttributeError."""
        read = self._read_cards.get((kind, name))
        if read is None:
            fields = self._reading.fields
            read = RunCard.model_construct(name=name, **{field: getattr(card, field) for field in fields})
            for other in RunCard.model_fields.keys() - {"name", *fields}:
                del read.__dict__[other]
            self._read_cards[kind, name] = read
        return read
