"""Comparison levels (Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?", 2023, table 2).

Predicates are three-valued: true, false, or unknown where a card lacks what it takes. A level holds where all of its
predicates are true, and might hold where none is false.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from prunec.compiler.fairness.card import RunCard, Stage

#: From the weakest: level -> (its predicates, what may be said at it).
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
_SPEEDUP_TOLERANCE = 0.01
_COST_TOLERANCE = 0.005
_RATE_TOLERANCE = 1e-9

Truth = bool | None


@dataclass(frozen=True)
class Predicate:
    """One question about two runs.

    Attributes:
        truth: None where a card lacks what it takes.
        differs: what differs, in words, where it is false.
        missing: the fields that are not known, as "run: field".
    """

    truth: Truth
    differs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairLevel:
    """How two runs may be compared.

    Attributes:
        level: the highest that holds; "S0" for none.
        at_most: the highest that nothing known rules out.
        tags: SX-A and SX-B, where they hold.
        predicates: by name.
    """

    level: str
    at_most: str
    tags: tuple[str, ...]
    predicates: dict[str, Predicate]


def compare_pair(a: RunCard, b: RunCard) -> PairLevel:
    """The highest level at which two runs may be compared, and the tags that they share."""
    found = {name: ask(a, b) for name, ask in _PREDICATES.items()}
    same = _scratch_and_pruned(a, b, found)
    holding = [level for level, (needs, _) in LEVELS.items() if all(found[need].truth for need in needs)]
    possible = [level for level, (needs, _) in LEVELS.items() if all(found[need].truth is not False for need in needs)]
    if same is not None:
        found["concatenated"] = same
        ok = [found["p0"].truth, found["pH"].truth, same.truth]
        holding = [level for level in holding if level == "S1"] + (["S4.2"] if all(ok) else [])
        possible = [level for level in possible if level == "S1"] + (["S4.2"] if False not in ok else [])
    tags = tuple(tag for tag, (needs, _) in TAGS.items() if all(found[need].truth for need in needs))
    return PairLevel(holding[-1] if holding else "S0", possible[-1] if possible else "S0", tags, found)


def common_level(cards: Sequence[RunCard]) -> tuple[str, tuple[str, ...]]:
    """The highest level, and the tags, that all pairs of runs share."""
    pairs = [compare_pair(a, b) for a, b in combinations(cards, 2)]
    order = ["S0", *LEVELS]
    level = min((pair.level for pair in pairs), key=order.index)
    return level, tuple(tag for tag in TAGS if all(tag in pair.tags for pair in pairs))


def _scratch_and_pruned(a: RunCard, b: RunCard, found: dict[str, Predicate]) -> Predicate | None:
    """Where one of two runs was trained from scratch: whether it saw the learning rates that the other saw in all.

    Such a pair has no base in common; this is how the paper's table 4 uses S4.2. None for other pairs.
    """
    if a.from_scratch == b.from_scratch or None in (a.from_scratch, b.from_scratch):
        return None
    scratch, pruned = (a, b) if a.from_scratch else (b, a)
    stages = (pruned.pretraining, pruned.pruning, pruned.finetuning)
    parts = [stage.rates() for stage in stages]
    mine = scratch.finetuning.rates()
    missing = [
        f"{pruned.name}: {name}.learning_rates"
        for name, part in zip(("pretraining", "pruning", "finetuning"), parts, strict=True)
        if part is None
    ] + ([f"{scratch.name}: finetuning.learning_rates"] if mine is None else [])
    if missing or mine is None:
        return Predicate(None, missing=tuple(missing))
    theirs = [rate for part in parts for rate in part or ()]
    return _judged(_close(mine, theirs), "the learning rates of the whole training differ")


def _judged(truth: bool, *differs: str) -> Predicate:
    return Predicate(truth, () if truth else differs)


def _equal(a: RunCard, b: RunCard, fields: Sequence[str]) -> Predicate:
    """Whether all these fields, by dotted path, are known and equal."""
    missing, differs = [], []
    for path in fields:
        values = [_field(card, path) for card in (a, b)]
        missing += [f"{card.name}: {path}" for card, value in zip((a, b), values, strict=True) if value is None]
        if None not in values and values[0] != values[1]:
            differs.append(f"{path}: {values[0]} against {values[1]}")
    truth = False if differs else (None if missing else True)
    return Predicate(truth, tuple(differs), tuple(missing))


def _field(card: RunCard, path: str) -> object:
    value: object = card
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _same_task(a: RunCard, b: RunCard) -> Predicate:
    same = _equal(a, b, ("data", "metric", "architecture"))
    missing, differs, truth = list(same.missing), list(same.differs), same.truth
    if a.speedup is None or b.speedup is None:
        missing += [f"{card.name}: speedup" for card in (a, b) if card.speedup is None]
        truth = None if truth else truth
    elif abs(a.speedup / b.speedup - 1) > _SPEEDUP_TOLERANCE:
        differs.append(f"speedup: {a.speedup:.3g} against {b.speedup:.3g}")
        truth = False
    return Predicate(truth, tuple(differs), tuple(missing))


def _same_base(a: RunCard, b: RunCard) -> Predicate:
    return _equal(a, b, ("base",))


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= _RATE_TOLERANCE for x, y in zip(a, b, strict=True))


def _same_rates(stage: str) -> Callable[[RunCard, RunCard], Predicate]:
    def ask(a: RunCard, b: RunCard) -> Predicate:
        known: list[list[float]] = []
        missing = []
        for card in (a, b):
            part: Stage = getattr(card, stage)
            rates = part.rates()
            if rates is None:
                missing.append(f"{card.name}: {stage}.learning_rates")
            else:
                known.append(rates)
        if missing:
            epochs = _equal(a, b, (f"{stage}.epochs",))
            return Predicate(False if epochs.truth is False else None, epochs.differs, tuple(missing))
        return _judged(_close(*known), f"{stage}: the learning rates differ")

    return ask


def _same_epochs(stage: str) -> Callable[[RunCard, RunCard], Predicate]:
    return lambda a, b: _equal(a, b, (f"{stage}.epochs",))


def _same_training(a: RunCard, b: RunCard) -> Predicate:
    if a.finetuning.epochs == 0 and b.finetuning.epochs == 0:
        return Predicate(True)
    fields = (
        "optimizer",
        "momentum",
        "nesterov",
        "weight_decay",
        "batch_size",
        "loss",
        "augmentation",
        "ema",
        "precision",
    )
    return _equal(a, b, (*(f"training.{name}" for name in fields), "distilled", "int8"))


def _epochs(card: RunCard) -> tuple[list[float], list[str]]:
    """Epochs of the dense training, the pruning and the retraining; a scratch run has the last alone."""
    names = ("finetuning",) if card.from_scratch else ("pretraining", "pruning", "finetuning")
    stages: list[Stage] = [getattr(card, name) for name in names]
    missing = [f"{card.name}: {n}.epochs" for n, stage in zip(names, stages, strict=True) if stage.epochs is None]
    known = [stage.epochs for stage in stages if stage.epochs is not None]
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


_PREDICATES: dict[str, Callable[[RunCard, RunCard], Predicate]] = {
    "p0": _same_task,
    "pB": _same_base,
    "pE": _same_epochs("finetuning"),
    "pL": _same_rates("finetuning"),
    "pH": _same_training,
    "qE": _same_epochs("pruning"),
    "qL": _same_rates("pruning"),
    "sA": _same_total_epochs,
    "sB": _same_total_cost,
}
