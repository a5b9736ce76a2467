"""Comparison levels (Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?", 2023, table 2).

Predicates are three-valued: true, false, or unknown where a card lacks what it takes. A level holds where all of its
predicates are true, and might hold where none is false.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prunec.compiler.fairness import questions
from prunec.compiler.fairness.amounts import Alike, Equal
from prunec.compiler.fairness.asked_once import AskedOnce, Reading
from prunec.compiler.fairness.predicates import Predicate, all_of
from prunec.compiler.fairness.run_card import RunCard

#: Levels from the weakest on: level -> (its predicates, what may be said at it).
LEVELS: dict[str, tuple[tuple[str, ...], str]] = {
    "S1": (("p0",), "only drops in accuracy may be compared"),
    "S2": (("p0", "pB"), "what most papers compare; the retraining may explain all of the difference"),
    "S3.1": (("p0", "pB", "pE"), "the retraining took as many epochs"),
    "S3.2": (("p0", "pB", "pE", "pL", "pH"), "the retraining is the same: the least that a ranking needs"),
    "S4.1": (("p0", "pB", "pE", "pL", "pH", "qE"), "the pruning took as many epochs too"),
    "S4.2": (("p0", "pB", "pE", "pL", "pH", "qE", "qL"), "pruning and retraining followed the same learning rates"),
}
TAGS: dict[str, tuple[tuple[str, ...], str]] = {
    "SX-A": (("p0", "sA"), "as many epochs in all"),
    "SX-B": (("p0", "sB"), "as many operations in all"),
}
RANKED_FROM = "S3.2"
#: The question about a run from scratch and another one, and those that don't count for such a pair.
_CONCATENATED, _BY_STAGE = "concatenated", ("pB", "pE", "pL", "qE", "qL")
_TASK, _TRAINED = "same task", ("base", "pretraining", "pruning", "finetuning")
_QUESTIONS = {
    _TASK: Reading(
        questions.same_task,
        (
            *("data", "data_sha256", "task", "task_options", "metric", "architecture", "architecture_sha256"),
            *("structure", "compression", "undeclared"),
        ),
    ),
    "pB": Reading(
        questions.same_base,
        ("base", "base_sha256", "base_options", "dense_accuracy", "pretraining", "pretraining_options"),
    ),
    "pE": Reading(questions.same_length, ("finetuning",)),
    "pL": Reading(questions.same_learning_rates, ("finetuning",)),
    "pH": Reading(questions.same_training, ("finetuning", "training", "distilled", "int8")),
    "qE": Reading(questions.same_pruning_length, ("pruning", "rounds")),
    "qL": Reading(questions.same_pruning, ("pruning", "pruning_options")),
    "sA": Reading(questions.same_total_epochs, _TRAINED),
    _CONCATENATED: Reading(
        questions.same_concatenation, (*_TRAINED, "pretraining_options", "pruning_options", "training")
    ),
}


@dataclass(frozen=True)
class PairLevel:
    """The level at which two runs may be compared.

    Attributes:
        level: The highest level that holds; "S0" for none.
        at_most: The highest level that nothing known rules out.
        tags: SX-A and SX-B, where they hold.
        predicates: The predicates by name.
    """

    level: str
    at_most: str
    tags: tuple[str, ...]
    predicates: dict[str, Predicate]

    @property
    def differs(self) -> tuple[str, ...]:
        """Sentences on the differences that count, each once."""
        return tuple(dict.fromkeys(words for predicate in self._that_count for words in predicate.differs))

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that count and aren't known, as "run: field", each once."""
        return tuple(dict.fromkeys(field for predicate in self._that_count for field in predicate.missing))

    @property
    def _that_count(self) -> list[Predicate]:
        """A pair of which one run is from scratch is asked about its training as a whole, not stage by stage."""
        idle = _BY_STAGE if _CONCATENATED in self.predicates else ()
        return [predicate for name, predicate in self.predicates.items() if name not in idle]


class PairLevels:
    """The levels of pairs among some runs, which must be these very objects.

    Args:
        cards: The runs.
        alike: The measure by which runs count as compressed alike.
    """

    def __init__(self, cards: Sequence[RunCard], alike: Alike) -> None:
        self._alike = alike
        self._ask = {name: AskedOnce(reading, cards) for name, reading in _QUESTIONS.items()}

    def __call__(self, a: RunCard, b: RunCard) -> PairLevel:
        """The highest level at which two of the runs may be compared, and the tags that they share."""
        answers = {name: ask(a, b) for name, ask in self._ask.items()}
        task, concatenated = answers.pop(_TASK), answers.pop(_CONCATENATED)
        predicates = {"p0": all_of(task, self._alike(a, b)), **answers}
        predicates["sB"] = questions.same_total_cost(a, b)
        truths = {name: predicate.truth for name, predicate in predicates.items()}
        holding = [level for level, (needs, _) in LEVELS.items() if all(truths[need] for need in needs)]
        possible = [level for level, (needs, _) in LEVELS.items() if all(truths[need] is not False for need in needs)]
        if concatenated != questions.NO_CONCATENATION:
            predicates[_CONCATENATED] = concatenated
            needed = [truths["p0"], truths["pH"], concatenated.truth]
            holding = holding[:1] + (["S4.2"] if all(needed) else [])
            possible = possible[:1] + (["S4.2"] if False not in needed else [])
        tags = tuple(tag for tag, (needs, _) in TAGS.items() if all(truths[need] for need in needs))
        return PairLevel(["S0", *holding][-1], ["S0", *possible][-1], tags, predicates)


def compare_pair(a: RunCard, b: RunCard, tolerance: float | None = None, equal: Equal = "macs") -> PairLevel:
    """The highest level at which two runs may be compared, and the tags that they share.

    Args:
        a: The one run.
        b: The other run.
        tolerance: Share by which what is equal of runs that are compressed alike may differ: 0.01 of MACs, where the
            shares of weights that aren't zero count too, and 0.03 of latency by default.
        equal: The measure that is equal: speed-up in MACs, or measured time on one target.

    Raises:
        UsageError: The tolerance is no share, or there is no such measure.
    """
    return PairLevels((a, b), Alike(equal, tolerance))(a, b)


def may_be_ranked(level: str) -> bool:
    """Whether runs at this level may be ranked."""
    return reaches(level, RANKED_FROM)


def reaches(level: str, least: str) -> bool:
    """Whether a level is this one or a higher one."""
    order = ["S0", *LEVELS]
    return order.index(level) >= order.index(least)


def common_level(pairs: Sequence[PairLevel]) -> tuple[str, tuple[str, ...]]:
    """The highest level, and the tags, that pairs of runs share."""
    level = min((pair.level for pair in pairs), key=["S0", *LEVELS].index)
    return level, tuple(tag for tag in TAGS if all(tag in pair.tags for pair in pairs))
