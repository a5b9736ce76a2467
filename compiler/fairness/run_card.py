"""Run cards: what must be known of a run to compare it with another.

Every field may be missing, which means that it isn't known and nothing else: no two unknown things are equal.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from prunec.compiler.recovery.schedules import parse_schedule
from prunec.passes.errors import UsageError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Part):
    """A stage of training.

    Attributes:
        epochs: Passes over the data; 0 for a stage that was left out.
        learning_rates: (epoch, rate) where the rate changes, from epoch 0 on; ``schedule`` may give them as text.
    """

    epochs: NotNegative | None = None
    learning_rates: tuple[tuple[NotNegative, NotNegative], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """``schedule: P30F90,1e-2`` as the rates of its run, one per epoch where they change smoothly."""
        if not isinstance(value, dict) or "schedule" not in value:
            return value
        rest = {key: item for key, item in value.items() if key != "schedule"}
        if "learning_rates" in rest:
            raise ValueError("give a schedule or learning_rates, not both")
        try:
            schedule = parse_schedule(str(value["schedule"]), epochs=rest.get("epochs"))
        except UsageError as error:
            raise ValueError(error.message.removesuffix(".")) from error
        if schedule.epochs is None:
            return rest | {"learning_rates": schedule.trace(1)}
        return rest | {"epochs": schedule.epochs, "learning_rates": schedule.trace(int(schedule.epochs))}

    def rates(self) -> list[float] | None:
        """Learning rate at the start of every epoch; None where it isn't known."""
        if self.epochs == 0:
            return []
        if self.epochs is None or not self.learning_rates:
            return None
        changes = self.learning_rates
        return [max(change for change in changes if change[0] <= epoch + 1e-9)[1] for epoch in range(int(self.epochs))]


class TrainingOptions(_Part):
    """Options of a retraining besides its learning rates; "none" says that there was none of it."""

    optimizer: str | None = None
    momentum: float | None = None
    nesterov: StrictBool | None = None
    weight_decay: float | None = None
    batch_size: int | None = None
    loss: str | None = None
    augmentation: tuple[str, ...] | None = None
    ema: float | Literal["none"] | None = None
    clip_norm: float | Literal["none"] | None = None
    precision: str | None = None


class Accuracy(_Part):
    """The finished network's accuracy on the test data; over several seeds mean and sample deviation."""

    mean: Fraction | None = None
    standard_deviation: NotNegative | None = None


class RunCard(_Part):
    """The known facts of one run.

    Attributes:
        name: Name in the comparison.
        data: Identifier of the images, their split and what is done to them.
        metric: Metric of the accuracy, such as "top1".
        architecture: Identifier of the dense network without its weights.
        base: Identifier of the dense weights; "scratch" for a network that was trained from random ones.
        speedup: Dense over compiled multiply-accumulates.
        method: The removed structure and the criterion.
        pretraining: Training of the dense network.
        pruning: Training while it was pruned; no epochs where pruning is one-shot.
        finetuning: The retraining. A scratch run's training is this one.
        training: Options of the retraining.
        distilled: Whether a teacher took part.
        int8: Whether the network computes in 8 bits.
        dense_accuracy: Accuracy before pruning.
        accuracy: Accuracy at the end.
        trainability_accuracy: Mean accuracy over the first stage of the retraining.
    """

    name: str
    data: str | None = None
    metric: str | None = None
    architecture: str | None = None
    base: str | None = None
    speedup: Positive | None = None
    method: str | None = None
    pretraining: Stage = Stage()
    pruning: Stage = Stage()
    finetuning: Stage = Stage()
    training: TrainingOptions = TrainingOptions()
    distilled: StrictBool | None = None
    int8: StrictBool | None = None
    dense_accuracy: Fraction | None = None
    accuracy: Accuracy = Accuracy()
    trainability_accuracy: Fraction | None = None

    @property
    def from_scratch(self) -> bool | None:
        """Whether it was trained from random weights; None where that isn't known."""
        return None if self.base is None else self.base == "scratch"
