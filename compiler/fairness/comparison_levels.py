"""Comparison levels (Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?", 2023, table 2).

Predicates are three-valued: true, false, or unknown where a card lacks what it takes. A level holds where all of its
predicates are true, and might hold where none is false.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import attrgetter

from prunec.compiler.fairness.run_card import RunCard, TrainingOptions

#: Levels from the weakest on: level -> (its predicates, what may be said at it).
LEVELS: dict[str, tuple[tuple[str, ...], str]] = {
    "S1": (("p0",), "only drops in accuracy may be compared"),
    "S2": (("p0", "pB"), "what most papers compare; the retraining may explain all of the difference"),
    "S3.1": (("p0", "pB", "pE"), "the retraining took as many epochs"),
    "S3.2": (("p0", "pB", "pL", "pH"), "the retraining is the same: the least that a ranking needs"),
    "S4.1": (("p0", "pB", "pL", "pH", "qE"), "the pruning took as many epochs too"),
    "S4.2": (("p0", "pB", "pL", "pH", "qL"), "pruning and retraining followed the same learning rates"),
}
TAGS: dict[str, tuple[tuple[str, ...], str]] = {
    "SX-A": (("p0", "sA"), "as many epochs in all"),
    "SX-B": (("p0", "sB"), "as many operations in all"),
}
RANKED_FROM = "S3.2"
#: Stages of a run's training, in their order.
_STAGES = ("pretraining", "pruning", "finetuning")
_SPEEDUP_TOLERANCE = 0.01
_COST_TOLERANCE = 0.005
_RATE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Predicate:
    """One question about two runs.

    Attributes:
        truth: The answer; None where a card lacks what it takes.
        differs: Sentence on the difference, where the answer is no.
        missing: The fields that aren't known, as "run: field".
    """

    truth: bool | None
    differs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


Question = Callable[[RunCard, RunCard], Predicate]


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
        """Sentences on the differences, each once."""
        return tuple(dict.fromkeys(words for predicate in self.predicates.values() for words in predicate.differs))

    @property
    def missing(self) -> tuple[str, ...]:
        """The fields that aren't known, as "run: field", each once."""
        return tuple(dict.fromkeys(field for predicate in self.predicates.values() for field in predicate.missing))


def compare_pair(a: RunCard, b: RunCard) -> PairLevel:
    """The highest level at which two runs may be compared, and the tags that they share."""
    predicates = {name: ask(a, b) for name, ask in _PREDICATES.items()}
    truths = {name: predicate.truth for name, predicate in predicates.items()}
    holding = [level for level, (needs, _) in LEVELS.items() if all(truths[need] for need in needs)]
    possible = [level for level, (needs, _) in LEVELS.items() if all(truths[need] is not False for need in needs)]
    if concatenated := _scratch_and_pruned(a, b):
        predicates["concatenated"] = concatenated
        needed = [truths["p0"], truths["pH"], concatenated.truth]
        holding = holding[:1] + (["S4.2"] if all(needed) else [])
        possible = possible[:1] + (["S4.2"] if False not in needed else [])
    tags = tuple(tag for tag, (needs, _) in TAGS.items() if all(truths[need] for need in needs))
    return PairLevel(["S0", *holding][-1], ["S0", *possible][-1], tags, predicates)


def common_level(cards: Sequence[RunCard]) -> tuple[str, tuple[str, ...]]:
    """The highest level, and the tags, that all pairs of runs share."""
    pairs = [compare_pair(a, b) for a, b in combinations(cards, 2)]
    order = ["S0", *LEVELS]
    level = min((pair.level for pair in pairs), key=order.index)
    return level, tuple(tag for tag in TAGS if all(tag in pair.tags for pair in pairs))


def _scratch_and_pruned(a: RunCard, b: RunCard) -> Predicate | None:
    """Whether a run that was trained from scratch saw all learning rates that the other run saw.

    Such a pair has no base in common; this is how the paper's table 4 uses S4.2. None for other pairs.
    """
    if a.from_scratch == b.from_scratch or None in (a.from_scratch, b.from_scratch):
        return None
    scratch, pruned = (a, b) if a.from_scratch else (b, a)
    known, missing = _rates([*((pruned, stage) for stage in _STAGES), (scratch, "finetuning")])
    if missing:
        return Predicate(None, missing=missing)
    *before, mine = known
    return _judged(
        _close(mine, [rate for rates in before for rate in rates]), "the learning rates of the whole training differ"
    )


def _judged(truth: bool, *differs: str) -> Predicate:
    return Predicate(truth, () if truth else differs)


def _equal(a: RunCard, b: RunCard, fields: Sequence[str]) -> Predicate:
    """Whether all these fields, by dotted path, are known and equal."""
    missing, differs = [], []
    for path in fields:
        values = [attrgetter(path)(card) for card in (a, b)]
        missing += [f"{card.name}: {path}" for card, value in zip((a, b), values, strict=True) if value is None]
        if None not in values and values[0] != values[1]:
            differs.append(f"{path}: {values[0]} against {values[1]}")
    truth = False if differs else (None if missing else True)
    return Predicate(truth, tuple(differs), tuple(missing))


def _same(*fields: str) -> Question:
    return lambda a, b: _equal(a, b, fields)


def _same_task(a: RunCard, b: RunCard) -> Predicate:
    same, speedup = _equal(a, b, ("data", "metric", "architecture")), _equal(a, b, ("speedup",))
    if a.speedup is not None and b.speedup is not None:
        close = abs(a.speedup / b.speedup - 1) <= _SPEEDUP_TOLERANCE
        speedup = _judged(close, f"speedup: {a.speedup:.3g} against {b.speedup:.3g}")
    truth = False if False in (same.truth, speedup.truth) else same.truth and speedup.truth
    return Predicate(truth, same.differs + speedup.differs, same.missing + speedup.missing)


def _rates(stages: Sequence[tuple[RunCard, str]]) -> tuple[list[list[float]], tuple[str, ...]]:
    """The learning rates of stages of runs that are known, and the fields of those that aren't."""
    rates = [(f"{card.name}: {stage}.learning_rates", getattr(card, stage).rates()) for card, stage in stages]
    return [known for _, known in rates if known is not None], tuple(field for field, known in rates if known is None)


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= _RATE_TOLERANCE for x, y in zip(a, b, strict=True))


def _same_rates(stage: str) -> Question:
    def ask(a: RunCard, b: RunCard) -> Predicate:
        known, missing = _rates([(a, stage), (b, stage)])
        if not missing:
            return _judged(_close(*known), f"{stage}: the learning rates differ")
        epochs = _equal(a, b, (f"{stage}.epochs",))
        return Predicate(False if epochs.truth is False else None, epochs.differs, missing)

    return ask


def _same_training(a: RunCard, b: RunCard) -> Predicate:
    if a.finetuning.epochs == 0 and b.finetuning.epochs == 0:
        return Predicate(True)
    fields = (f"training.{name}" for name in TrainingOptions.model_fields if name != "clip_norm")
    return _equal(a, b, (*fields, "distilled", "int8"))


def _epochs(card: RunCard) -> tuple[list[float], list[str]]:
    """Epochs of the dense training, the pruning and the retraining; a scratch run has the last alone."""
    stages = _STAGES[-1:] if card.from_scratch else _STAGES
    epochs = {stage: getattr(card, stage).epochs for stage in stages}
    missing = [f"{card.name}: {stage}.epochs" for stage in stages if epochs[stage] is None]
    known = [count for count in epochs.values() if count is not None]
    return [0.0] * (3 - len(known)) + known, missing + ([f"{card.name}: base"] if card.base is None else [])


def _same_total_epochs(a: RunCard, b: RunCard) -> Predicate:
    (first, missing), (second, more) = _epochs(a), _epochs(b)
    if missing or more:
        return Predicate(None, missing=(*missing, *more))
    return _judged(abs(sum(first) - sum(second)) < 1e-6, f"epochs in all: {sum(first):g} against {sum(second):g}")


def _same_total_cost(a: RunCard, b: RunCard) -> Predicate:
    """Operations of the whole training, in epochs of the compiled network: a dense one costs its speed-up.

    While pruning the network is counted as dense. Equal to half a percent, or to half a dense epoch of the smaller run.
    """
    costs, missing = [], []
    for card in (a, b):
        epochs, lacking = _epochs(card)
        missing += lacking
        if card.speedup is None:
            missing.append(f"{card.name}: speedup")
        else:
            costs.append((card.speedup * (epochs[0] + epochs[1]) + epochs[2], card.speedup))
    if missing:
        return Predicate(None, missing=tuple(dict.fromkeys(missing)))
    (small, speedup), (large, _) = sorted(costs)
    tolerance = max(_COST_TOLERANCE, 0.5 * speedup / small if small else 0.0)
    words = f"operations in all, in epochs of the compiled network: {costs[0][0]:.4g} against {costs[1][0]:.4g}"
    return _judged(large <= small * (1 + tolerance), words)


_PREDICATES: dict[str, Question] = {
    "p0": _same_task,
    "pB": _same("base"),
    "pE": _same("finetuning.epochs"),
    "pL": _same_rates("finetuning"),
    "pH": _same_training,
    "qE": _same("pruning.epochs"),
    "qL": _same_rates("pruning"),
    "sA": _same_total_epochs,
    "sB": _same_total_cost,
}
