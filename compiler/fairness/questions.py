"""The questions that comparison levels ask about two runs, each in its own function."""

from collections.abc import Mapping
from decimal import Decimal

from prunec.compiler.fairness.names import same_name
from prunec.compiler.fairness.option_places import TRAINING_OPTIONS
from prunec.compiler.fairness.predicates import (
    Predicate,
    all_of,
    difference,
    equal,
    judged,
    no_contradiction,
    same_identity,
    same_options,
)
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.fairness.training_options import ABSENT, CardValue, TrainingOptions
from prunec.compiler.recovery.rate_pieces import Pieces, joined, same_rates, words

#: Stages of a run's training, in their order.
_STAGES = ("pretraining", "pruning", "finetuning")
#: Epochs below which two lengths are one.
_EPOCH_TOLERANCE = 1e-6
#: Operations of two runs are equal to this share of the smaller one's, or to so many epochs of dense training.
_COST_SHARE, _COST_EPOCHS = 0.005, 0.5
NO_CONCATENATION = Predicate(None)  # of a pair of which not exactly one run was trained from scratch


def same_task(a: RunCard, b: RunCard) -> Predicate:
    """A part of p0: the same data, metric and dense architecture, and the same kind of compression."""
    structure = equal(a, b, "structure")
    options = [] if structure.truth is False else [_same_known(a, b, "compression")]  # those of it say nothing more
    return all_of(
        _same_data(a, b),
        _same_known(a, b, "task_options"),
        _same_metric(a, b),
        same_identity(a, b, "architecture"),
        _undeclared_are_equal(a, b),
        structure,
        *options,
    )


def same_base(a: RunCard, b: RunCard) -> Predicate:
    """pB: the same dense weights, and nothing known that contradicts it.

    Networks from scratch have no base but chance, and share that.
    """
    if a.from_scratch and b.from_scratch:
        return Predicate(True)
    named = same_identity(a, b, "base")
    if named.truth is False:
        return named
    doubts = [] if None not in (a.base_sha256, b.base_sha256) else [_no_other_accuracy(a, b)]
    return all_of(named, _same_known(a, b, "base_options"), *doubts, *_no_other_pretraining(a, b))


def same_length(a: RunCard, b: RunCard) -> Predicate:
    """pE: as many epochs of retraining."""
    return _same_epochs(a, b, "finetuning")


def same_learning_rates(a: RunCard, b: RunCard) -> Predicate:
    """pL: the same learning rates in retraining, at every point in time."""
    return _same_rates(a, b, "finetuning")


def same_training(a: RunCard, b: RunCard) -> Predicate:
    """pH: all other options of the retraining are the same."""
    if a.finetuning.epochs == 0 and b.finetuning.epochs == 0:
        return all_of(_same_given(a, b, "training", ()), equal(a, b, "int8"))
    options = _same_given(a, b, "training", TRAINING_OPTIONS)
    return all_of(options, equal(a, b, "distilled"), equal(a, b, "int8"))


def same_pruning_length(a: RunCard, b: RunCard) -> Predicate:
    """qE: as many epochs of pruning, and removals at the same epochs of the retraining."""
    return all_of(_same_epochs(a, b, "pruning"), _same_rounds(a, b))


def same_pruning(a: RunCard, b: RunCard) -> Predicate:
    """qL: the same learning rates in pruning, and all other options of that stage."""
    trains = any(card.pruning.learning_rates for card in (a, b)) or None in (a.pruning.epochs, b.pruning.epochs)
    options = _same_given(a, b, "pruning_options", TRAINING_OPTIONS if trains else ())
    return all_of(_same_rates(a, b, "pruning"), options)


def same_total_epochs(a: RunCard, b: RunCard) -> Predicate:
    """sA: as many epochs of dense training, pruning and retraining together."""
    missing = (*_unknown_epochs(a), *_unknown_epochs(b))
    if missing:
        return Predicate(None, missing=missing)
    first, second = (sum(_epochs(card).values()) for card in (a, b))
    return judged(abs(first - second) < _EPOCH_TOLERANCE, f"epochs in all: {first:.6g} against {second:.6g}")


def same_total_cost(a: RunCard, b: RunCard) -> Predicate:
    """sB: as many operations in all, in epochs of dense training: to half a percent, or to half of such an epoch."""
    missing = (*_unknown_cost(a), *_unknown_cost(b))
    if missing:
        return Predicate(None, missing=missing)
    first, second = _cost(a), _cost(b)
    close = abs(first - second) <= max(_COST_SHARE * min(first, second), _COST_EPOCHS)
    return judged(close, f"operations in all, in epochs of dense training: {first:.4g} against {second:.4g}")


def same_concatenation(a: RunCard, b: RunCard) -> Predicate:
    """Whether a run that was trained from scratch saw all learning rates that the other run saw, by the same options.

    Such a pair has no base in common; this is how the paper's table 4 uses S4.2. `NO_CONCATENATION` for other pairs.
    The options of the two retrainings are another question.
    """
    if a.from_scratch == b.from_scratch or None in (a.from_scratch, b.from_scratch):
        return NO_CONCATENATION
    missing = tuple(
        f"{card.name}: {stage}.learning_rates"
        for card in (a, b)
        for stage in _counted(card)
        if getattr(card, stage).learning_rates is None
    )
    if missing:
        lengths = same_total_epochs(a, b)
        return Predicate(False if lengths.truth is False else None, lengths.differs, missing)
    first, second = (joined(*(getattr(card, stage).learning_rates for stage in _counted(card))) for card in (a, b))
    said = difference("learning rates of the whole training", _in_words(first), _in_words(second))
    alike = [_trained_alike(card, other) for card, other in ((a, b), (b, a))]
    return all_of(judged(same_rates(first, second), said), *alike)


def _trained_alike(card: RunCard, other: RunCard) -> Predicate:
    """Whether what a run trained before its retraining followed the options of the other run's retraining."""
    dense = no_contradiction(_of_dense(card.pretraining_options), _of_dense(other.training))
    if not card.pruning.learning_rates:
        return dense
    options = [_of_trainings(part) for part in (card.pruning_options, other.training)]
    return all_of(dense, same_options((card, other), options, TRAINING_OPTIONS, ("pruning_options", "training")))


def _of_dense(options: TrainingOptions) -> Mapping[str, CardValue | None]:
    """Options under the names that a reader is told of the dense network's training."""
    return {f"pretraining_options.{name}": value for name, value in options.given.items()}


def _of_trainings(options: TrainingOptions) -> Mapping[str, CardValue | None]:
    """Options without those of other steps."""
    return {name: value for name, value in options.given.items() if name.partition(".")[0] in TRAINING_OPTIONS}


def _same_data(a: RunCard, b: RunCard) -> Predicate:
    identity = same_identity(a, b, "data")
    if None in (a.data_sha256, b.data_sha256):
        return all_of(identity, no_contradiction(a.task, b.task))
    return all_of(identity, same_options((a, b), (a.task, b.task), (), "task"))


def _same_metric(a: RunCard, b: RunCard) -> Predicate:
    if a.metric is not None and b.metric is not None and same_name(a.metric, b.metric):
        return Predicate(True)
    return equal(a, b, "metric")


def _same_known(a: RunCard, b: RunCard, part: str) -> Predicate:
    """Whether all options of a part are equal, where both cards have all of it; what one hasn't wasn't there."""
    ours, theirs = getattr(a, part), getattr(b, part)
    if ours is None or theirs is None:
        return Predicate(True)
    options = [{**dict.fromkeys(other, ABSENT), **own} for own, other in ((ours, theirs), (theirs, ours))]
    return same_options((a, b), options, (), part)


def _undeclared_are_equal(a: RunCard, b: RunCard) -> Predicate:
    comparison = _same_known(a, b, "undeclared")
    told = "its class states no place in a comparison, so that it counts as different everywhere"
    return Predicate(comparison.truth, tuple(f"{words} ({told})" for words in comparison.differs), comparison.missing)


def _no_other_accuracy(a: RunCard, b: RunCard) -> Predicate:
    """Whether both dense networks have one accuracy, rounded as the one that is told with fewer digits."""
    if a.dense_accuracy is None or b.dense_accuracy is None:
        return Predicate(True)
    first, second = (Decimal(str(accuracy)) for accuracy in (a.dense_accuracy, b.dense_accuracy))
    last = max(first.as_tuple().exponent, second.as_tuple().exponent)
    step = Decimal(1).scaleb(int(last))
    differs = f"accuracy of the dense network: {100 * first.normalize():f} % against {100 * second.normalize():f} %"
    return judged(first.quantize(step) == second.quantize(step), differs)


def _no_other_pretraining(a: RunCard, b: RunCard) -> tuple[Predicate, ...]:
    """Whether nothing that is known of the dense networks' training differs."""
    answers = (
        _same_epochs(a, b, "pretraining"),
        _same_rates(a, b, "pretraining"),
        no_contradiction(_of_dense(a.pretraining_options), _of_dense(b.pretraining_options)),
    )
    return tuple(answer for answer in answers if answer.truth is False)[:1]


def _same_epochs(a: RunCard, b: RunCard, stage: str) -> Predicate:
    first, second = (getattr(card, stage).epochs for card in (a, b))
    if first is not None and second is not None and abs(first - second) < _EPOCH_TOLERANCE:
        return Predicate(True)
    return equal(a, b, f"{stage}.epochs")


def _same_rates(a: RunCard, b: RunCard, stage: str) -> Predicate:
    rates = [getattr(card, stage).learning_rates for card in (a, b)]
    if None not in rates:
        return judged(same_rates(*rates), difference(f"{stage}.learning_rates", *map(_in_words, rates)))
    lacking = zip((a, b), rates, strict=True)
    missing = tuple(f"{card.name}: {stage}.learning_rates" for card, known in lacking if known is None)
    epochs = _same_epochs(a, b, stage)
    return Predicate(False if epochs.truth is False else None, epochs.differs, missing)


def _in_words(rates: Pieces) -> str:
    return f"{words(rates)} to {rates[-1].end:g}" if rates else words(rates)


def _same_rounds(a: RunCard, b: RunCard) -> Predicate:
    first, second = a.pruned_at, b.pruned_at
    if first is None or second is None:
        return equal(a, b, "pruned_at")
    close = len(first) == len(second) and all(abs(x - y) < _EPOCH_TOLERANCE for x, y in zip(first, second, strict=True))
    return judged(close, difference("epochs of the retraining at which something is removed", first, second))


def _same_given(a: RunCard, b: RunCard, part: str, required: tuple[str, ...]) -> Predicate:
    ours, theirs = getattr(a, part), getattr(b, part)
    return same_options((a, b), (_filled(ours, theirs), _filled(theirs, ours)), required, part)


def _filled(own: TrainingOptions, other: TrainingOptions) -> Mapping[str, CardValue | None]:
    """Options that are known, with those that the other run has and this one is known not to have."""
    given = own.given
    absent = {name: ABSENT if _is_absent(own, name) else None for name in other.given if name not in given}
    return {**given, **absent}


def _is_absent(options: TrainingOptions, name: str) -> bool:
    """Whether an option is known not to have been there: nothing that it belongs to was."""
    owner, dot, _ = name.partition(".")
    return options.is_complete and name not in TRAINING_OPTIONS and not (dot and owner in options.given)


def _counted(card: RunCard) -> tuple[str, ...]:
    """Stages that a run's training consists of; one from scratch has no dense training, and may have no pruning."""
    if not card.from_scratch:
        return _STAGES
    return _STAGES[2:] if card.pruning.epochs == 0 else _STAGES[1:]


def _epochs(card: RunCard) -> dict[str, float]:
    return {stage: getattr(card, stage).epochs for stage in _counted(card)}


def _unknown_epochs(card: RunCard) -> tuple[str, ...]:
    """Fields that the number of epochs in all needs and that aren't known."""
    missing = tuple(f"{card.name}: {stage}.epochs" for stage, epochs in _epochs(card).items() if epochs is None)
    return (*missing, f"{card.name}: base") if card.from_scratch is None else missing


def _cost(card: RunCard) -> float:
    """Epochs of dense training that cost as much; while it was pruned the network is counted as dense."""
    if card.operations is not None:
        return card.operations
    epochs = _epochs(card)
    retraining = epochs.pop("finetuning")
    assert card.speedup is not None, "it is known where nothing is missing"
    return sum(epochs.values()) + retraining / card.speedup


def _unknown_cost(card: RunCard) -> tuple[str, ...]:
    if card.operations is not None:
        return ()
    fields = ["speedup"] if card.speedup is None else []
    # A teacher's work isn't told, nor the network's size until it was pruned.
    if card.distilled is not False or any(card.pruned_at or ()):
        fields.append("operations")
    return (*_unknown_epochs(card), *(f"{card.name}: {name}" for name in fields))
