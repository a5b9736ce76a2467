"""Run cards: what must be known of a run to compare it with another.

Every field may be missing, which means that it isn't known and nothing else: no two unknown things are equal.
"""

from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, model_validator

from prunec.compiler.fairness.names import same_name, told
from prunec.compiler.fairness.training_options import CardPart, CardValue, TrainingOptions, in_setup
from prunec.compiler.recovery.bounds import MAX_EPOCHS
from prunec.compiler.recovery.rate_fields import RatePieces
from prunec.compiler.recovery.rate_pieces import canonical, constant
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.passes.errors import UsageError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Epochs = Annotated[float, Field(ge=0, le=MAX_EPOCHS)]
Options = dict[str, CardValue]
Name = Annotated[str | None, AfterValidator(told)]

#: Bases of networks of random weights: with the shapes of a pruned one from the start, and pruned as they were drawn.
SCRATCH, RANDOM_WEIGHTS = "scratch", "random"
#: The base of a run that trained its dense network itself.
OWN_TRAINING = "pretrained by the run"
#: Runs of one comparison: every two of them are compared.
MAX_RUNS = 500
#: What rounding may change of a mean accuracy.
_MEAN_TOLERANCE = 1e-3
FILTERS = "filters"
RANKS = "ranks of layers"


class Stage(CardPart):
    """A stage of training.

    Attributes:
        epochs: Passes over the data; 0 for a stage that was left out.
        scoring_epochs: Those of them that train nothing: in which it is chosen what goes, or statistics are measured.
        learning_rates: The learning rate at every point in time, as exact pieces. Documents may give pairs (epoch,
            rate) where the rate changes, from epoch 0 on, or ``schedule``, its text.
    """

    epochs: Epochs | None = None
    scoring_epochs: Epochs = 0.0
    learning_rates: RatePieces | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        rest = {key: item for key, item in value.items() if key not in ("schedule", "learning_rates")}
        rates, epochs = value.get("learning_rates"), value.get("epochs")
        epochs = None if epochs is None else _number(epochs)
        if epochs is not None and epochs == value.get("scoring_epochs", 0):
            return rest | {"learning_rates": ()}
        if "schedule" in value:
            if rates is not None:
                raise ValueError("give a schedule or learning_rates, not both")
            return rest | _parsed(str(value["schedule"]), epochs)
        if isinstance(rates, list | tuple) and rates and isinstance(rates[0], list | tuple):
            rates = None if epochs is None else _constants(rates, epochs)
        return rest | {"learning_rates": rates or None}


class Accuracy(CardPart):
    """The finished network's accuracy on the test data.

    Attributes:
        mean: Mean accuracy over the seeds.
        standard_deviation: Sample deviation over the seeds.
        runs: Number of seeds.
        by_seed: Accuracy of each seed, where they are known.
    """

    mean: Fraction | None = None
    standard_deviation: NotNegative | None = None
    runs: Annotated[int, Field(ge=1)] | None = None
    by_seed: dict[int, Fraction] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_seeds(self) -> "Accuracy":
        if self.runs == 1 and self.standard_deviation is not None:
            raise ValueError("one run has no deviation")
        if self.by_seed and (self.mean is None or abs(self.mean - fmean(self.by_seed.values())) > _MEAN_TOLERANCE):
            raise ValueError("the mean must be given, and be that of the seeds")
        return self


class Latency(CardPart):
    """The measured time of the finished network.

    Attributes:
        median_ms: Median milliseconds of one inference.
        target: Target that it was measured on, such as "a100-2:4-fp16".
        hardware: Name of the processor or GPU.
        batch: Number of samples at once.
        threads: Number of CPU threads; 0 where they don't matter.
    """

    median_ms: Positive
    target: Name = None
    hardware: Name = None
    batch: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=0)] | None = None


class RunCard(CardPart):
    """The known facts of one run.

    A document may also give ``setup``, words such as "Wang et al. 2023, appendix A": what it doesn't say of a training
    is the same in all runs of that setup.

    Attributes:
        name: Name in the comparison.
        arm_of: Name of the run whose control arm it is.
        data: Name of the images, their split and what is done to them.
        data_sha256: Fingerprint of the images and labels; where both runs have one it decides, with ``task``.
        task: Details of the data that the fingerprint doesn't cover, such as the size of images and of the split.
        metric: Metric of the accuracy, such as "top1".
        architecture: Name of the dense network without its weights.
        architecture_sha256: Fingerprint of it; where both runs have one it decides.
        base: Name of the dense weights; "scratch" for a network that was trained from random ones, "random" for one
            that was pruned before any training.
        base_sha256: Fingerprint of them; where both runs have one it decides.
        structure: What was removed: "filters" where a card doesn't say otherwise, "2:4", "elements", "filters, 2:4"
            and the like, "none".
        compression: All options of the structure by ``STEP.OPTION``.
        base_options: All options of steps that change the dense weights, likewise.
        task_options: All options of steps that change the task, likewise.
        speedup: Dense over compiled multiply-accumulates.
        latency: Measured time of one inference, with what it holds for.
        zero_fraction: Share of zeros among the compiled network's parameters.
        method: What is compared, in short: the criterion, and how much of what it removes.
        method_options: All options of it by ``STEP.OPTION``.
        kept_magnitude: Share of the absolute weights that masks kept, in the mean over layers.
        undeclared: Options that state no place in a comparison, by ``STEP.OPTION``.
        without_effect: Options that change nothing in what is compared.
        pretraining: Training of the dense network.
        pretraining_options: Options of it, as far as they are told.
        pruning: Training while it was pruned, and what was looked at to choose; no epochs where pruning is one-shot.
        pruning_options: Options of the pruning stage.
        rounds: Epochs of the retraining at which something is removed; at its start where the pruning is known.
        finetuning: The retraining. A scratch run's training is this one.
        training: Options of the retraining.
        operations: Operations of the whole training over those of one epoch of dense training.
        distilled: Whether a teacher took part.
        int8: Whether the network computes in 8 bits.
        dense_accuracy: Accuracy before pruning.
        accuracy: Accuracy at the end.
        trainability_accuracy: Mean accuracy over the first stage of the retraining.
    """

    name: Annotated[str, Field(min_length=1)]
    arm_of: str | None = None
    data: Name = None
    data_sha256: str | None = None
    task: Options = Field(default_factory=dict)
    metric: Name = None
    architecture: Name = None
    architecture_sha256: str | None = None
    base: Name = None
    base_sha256: str | None = None
    structure: Name = FILTERS
    compression: Options | None = None
    base_options: Options | None = None
    task_options: Options | None = None
    speedup: Positive | None = None
    latency: Latency | None = None
    zero_fraction: Fraction | None = None
    method: str | None = None
    method_options: Options = Field(default_factory=dict)
    kept_magnitude: Fraction | None = None
    undeclared: Options = Field(default_factory=dict)
    without_effect: Options = Field(default_factory=dict)
    pretraining: Stage = Stage()
    pretraining_options: TrainingOptions = TrainingOptions()
    pruning: Stage = Stage()
    pruning_options: TrainingOptions = TrainingOptions()
    rounds: tuple[NotNegative, ...] | None = None
    finetuning: Stage = Stage()
    training: TrainingOptions = TrainingOptions()
    operations: NotNegative | None = None
    distilled: StrictBool | None = None
    int8: StrictBool | None = None
    dense_accuracy: Fraction | None = None
    accuracy: Accuracy = Accuracy()
    trainability_accuracy: Fraction | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_setup(cls, value: Any) -> Any:
        """Options of a setup stand for themselves, so that a field which is taken away isn't filled again."""
        if not isinstance(value, Mapping) or "setup" not in value:
            return value
        rest, setup = {key: item for key, item in value.items() if key != "setup"}, value["setup"]
        if not isinstance(setup, str) or told(setup) is None:
            raise ValueError(f"expected words that name a setup, got {setup!r}")
        return rest | {part: in_setup(rest.get(part, {}), setup) for part in ("training", "pruning_options")}

    @property
    def from_scratch(self) -> bool | None:
        """Whether it was trained from random weights; None where that isn't known."""
        if self.base is not None:
            return any(same_name(self.base, name) for name in (SCRATCH, RANDOM_WEIGHTS))
        return None if self.pretraining.epochs is None else False

    @property
    def pruned_at(self) -> tuple[float, ...] | None:
        """Epochs of the retraining at which something is removed; None where nothing is known of the pruning."""
        return (0.0,) if self.rounds is None and self.pruning.epochs is not None else self.rounds

    @property
    def drop(self) -> float | None:
        """The loss of accuracy from the dense network to the finished one; None where it isn't known."""
        if self.dense_accuracy is None or self.accuracy.mean is None:
            return None
        return self.dense_accuracy - self.accuracy.mean


def _parsed(text: str, epochs: float | None) -> dict[str, Any]:
    try:
        schedule = parse_schedule(text, epochs=epochs)
    except UsageError as error:
        raise ValueError(error.message.removesuffix(".")) from error
    if schedule.epochs is None:  # no length, so that there are no rates to compare
        return {"learning_rates": None}
    return {"epochs": schedule.epochs, "learning_rates": schedule.pieces(schedule.epochs)}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)


def _constants(changes: Any, epochs: float) -> Any:
    """Pairs (epoch, rate) as constant pieces up to the end of the stage."""
    starts = [_number(start) for start, _ in changes]
    if starts[0] != 0 or any(after <= before for before, after in pairwise(starts)):
        raise ValueError("learning rates must change at epochs that increase, the first of them 0")
    ends = [*starts[1:], epochs]
    pieces = zip(starts, ends, changes, strict=True)
    return canonical(
        constant(start, min(end, epochs), _number(rate)) for start, end, (_, rate) in pieces if start < epochs
    )
