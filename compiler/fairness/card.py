"""Run cards: what must be known of a run to compare it with another.

Every field may be missing, which means that it isn't known and nothing else: no two unknown things are equal.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from prunec.compiler.recovery.schedules import parse_schedule
from prunec.passes.errors import UsageError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Part):
    """A stage of training.

    Attributes:
        epochs: passes over the data; 0 for a stage that there was none of.
        learning_rates: (epoch, rate) where it changes, from epoch 0 on. Instead, ``schedule`` may be given as text.
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
        changes = list(self.learning_rates)
        return [
            max((start, rate) for start, rate in changes if start <= epoch + 1e-9)[1]
            for epoch in range(int(self.epochs))
        ]


class Training(_Part):
    """How a network was retrained, besides its learning rates; "none" says that there was none of it."""

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
    """Of the finished network, a fraction on the test data; over several seeds mean and sample deviation."""

    mean: Annotated[float, Field(ge=0, le=1)] | None = None
    standard_deviation: NotNegative | None = None


class RunCard(_Part):
    """What is known of one run.

    Attributes:
        name: in the comparison.
        data: identifies the images, their split and what is done to them.
        metric: what accuracy is, "top1" for example.
        architecture: identifies the dense network without its weights.
        base: identifies the dense weights; "scratch" for a network that was trained from random ones.
        speedup: dense over compiled multiply-accumulates.
        method: what was removed by which criterion.
        pretraining: of the dense network.
        pruning: of the pruning itself; no epochs where it is one-shot.
        finetuning: the retraining. A scratch run's training is this one.
        training: of the retraining.
        distilled: whether a teacher took part.
        int8: whether it computes in 8 bits.
        dense_accuracy: before pruning.
        accuracy: at the end.
        trainability_accuracy: mean over the first stage of the retraining.
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
    training: Training = Training()
    distilled: StrictBool | None = None
    int8: StrictBool | None = None
    dense_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    accuracy: Accuracy = Accuracy()
    trainability_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def from_scratch(self) -> bool | None:
        """Whether it was trained from random weights; None where that isn't known."""
        return None if self.base is None else self.base == "scratch"
