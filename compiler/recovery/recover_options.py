"""The options of a recovery finetune, as a recipe gives them."""

import contextlib
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self, get_args

from prunec.compiler.recovery.bounds import MAX_BATCH, MAX_EPOCHS
from prunec.compiler.recovery.hooks import HOOKS, TrainingHook, load_hooks
from prunec.compiler.recovery.optimizer_kinds import (
    AUTO,
    KINDS,
    OPTIONS,
    OwnOptimizer,
    check_optimizer,
    choose_optimizer,
    optimizer_title,
)
from prunec.compiler.recovery.schedules import WEIGHT_REWINDING, OriginalUnknownError, parse_schedule
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.options import CATALOGUE, SEVERAL
from prunec.runtime.devices import FloatPrecision

Keep = Literal["best", "last"]
#: Kinds of schedules that have a learning rate of their own, which is one for SGD.
_RATED_FOR_SGD = ("slr", "clr")


@dataclass(frozen=True)
class Recover:
    """Retrain a pruned network, its sparsity masks held.

    Options of the optimizer that are None take its defaults (`optimizer_kinds.KINDS`); those that it doesn't have are
    refused.

    Attributes:
        epochs: Passes over the training data.
        schedule: Learning rate over the epochs (`parse_schedule`); "auto" depends on how much was pruned
            (`choose_schedule`).
        batch_size: Samples per step, of all processes together.
        optimizer: "sgd", "adam", "adamw", or ``module:callable``, a function that makes one of the parameter groups;
            "auto" is the one that the dense network was trained with, else SGD (`choose_optimizer`).
        momentum: Momentum of SGD, in [0, 1).
        nesterov: Whether momentum of SGD is of Nesterov's form.
        betas: Decay rates of Adam's and AdamW's averages of the gradient and of its square, both in [0, 1).
        eps: Term that Adam and AdamW add to the denominator.
        weight_decay: L2 penalty by SGD and Adam; by AdamW the share of a weight that goes per step, over the rate.
        decay_norms_and_biases: Whether weight decay acts on norms, biases and other vectors too.
        distill: Temperature at which the network also learns from the dense one's outputs; 0 turns that off.
        distill_weight: Share of distillation in the loss, up to 1; the loss on the labels has the rest.
        keep: "best" keeps the epoch that is best on the validation data (the latest of equals), "last" the last.
        label_smoothing: Share of each label that is spread evenly over all classes (Szegedy et al., 2016).
        warmup: Epochs over which the learning rate rises to the schedule's, linearly from 0.
        clip_norm: Largest Euclidean norm of the network's gradients, all parameters together; larger ones are scaled
            down to it. 0 for no limit.
        ema: Decay per step of a moving average of all weights, which is what is evaluated and kept; 0 for none.
        accumulate: Parts that every batch is computed in, one after the other, to save memory.
        precision: Number format that operators compute in where that is safe (`torch.autocast`); weights stay float32.
        channels_last: Whether the channels of images and filters come last in memory.
        compile: Whether the training form runs through `torch.compile`.
        sync_batchnorm: Whether batch norms take the batch of all processes together; CUDA only.
        early: Checkpoint of an early epoch of the dense training, whose weights the schedule ``wr`` starts from.
        probe: Epochs that are trained further on a copy, from a restarted learning rate down to zero, to tell whether
            training was done; hooks take no part in them, and the copy is thrown away. By default a tenth of the
            epochs, or 2 where there are fewer than 10 (1 for 1); 0 for none.
        over_pruned_points: Points that must be missing after a finished training for the network to be called
            over-pruned, and that count as a gain.
        hooks: Training hooks in the order in which they act: ``NAME{option=value} NAME2``, or the hooks themselves.

    Raises:
        UsageError: A value is out of its range, the optimizer or a hook is unknown, or the optimizer doesn't have an
            option.
    """

    name: ClassVar[str] = "recover"

    epochs: int
    schedule: str = AUTO
    batch_size: int = 128
    optimizer: str | OwnOptimizer = AUTO
    momentum: float | None = None
    nesterov: bool = False
    betas: tuple[float, float] | None = None
    eps: float | None = None
    weight_decay: float | None = None
    decay_norms_and_biases: bool = True
    distill: float = 0.0
    distill_weight: float = 0.9
    keep: Keep = "best"
    label_smoothing: float = 0.0
    warmup: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    precision: FloatPrecision = "fp32"
    channels_last: bool = False
    compile: bool = False
    sync_batchnorm: bool = False
    early: str = ""
    probe: int | None = None
    over_pruned_points: float = 1.5
    hooks: str | tuple[TrainingHook, ...] = field(default="", metadata={CATALOGUE: HOOKS, SEVERAL: True})

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", "".join(self.schedule.split()))  # blanks don't count
        ranges = {
            "epochs": (1 <= self.epochs <= MAX_EPOCHS, f"at least 1 and at most {MAX_EPOCHS}"),
            "batch_size": (2 <= self.batch_size <= MAX_BATCH, f"at least 2 and at most {MAX_BATCH}"),
            "momentum": (0 <= (self.momentum or 0) < 1, "at least 0 and below 1"),
            "nesterov": (not self.nesterov or self.momentum != 0, "false where momentum is 0"),
            "betas": (self.betas is None or _are_decays(self.betas), "two numbers of at least 0 and below 1"),
            "eps": (0 <= (self.eps or 0) < float("inf"), "at least 0"),
            "weight_decay": (0 <= (self.weight_decay or 0) < float("inf"), "at least 0"),
            "distill": (0 <= self.distill < float("inf"), "a temperature above 0, or 0 for none"),
            "distill_weight": (0 < self.distill_weight <= 1, "above 0 and at most 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "at least 0 and below 1"),
            "warmup": (0 <= self.warmup < self.epochs, f"at least 0 and below the {self.epochs} epochs"),
            "clip_norm": (0 <= self.clip_norm < float("inf"), "a norm above 0, or 0 for none"),
            "ema": (0 <= self.ema < 1, "a decay below 1, or 0 for none"),
            "probe": (0 <= (self.probe or 0) <= MAX_EPOCHS, f"a number of epochs up to {MAX_EPOCHS}, or 0 for none"),
            "over_pruned_points": (0 < self.over_pruned_points < 100, "above 0 and below 100 points"),
            "early": (bool(self.early) == (self.rewinds_weights), "given for the schedule wr, and only for it"),
            "accumulate": (1 <= self.accumulate <= self.batch_size // 2, "at least 1, with 2 samples a part or more"),
        }
        for option, (holds, expected) in ranges.items():
            if not holds:
                raise UsageError(f"recover: {option} must be {expected}, got {getattr(self, option)}.")
        for option, known in (("keep", get_args(Keep)), ("precision", get_args(FloatPrecision))):
            value = getattr(self, option)
            if value not in known:
                raise UsageError(f"recover: {option} = {value!r} is unknown.", hint=did_you_mean(value, known))
        if self.schedule != AUTO:
            with contextlib.suppress(OriginalUnknownError):  # it is known when the training starts
                parse_schedule(self.schedule, epochs=self.epochs)
        self._check_preparation()
        if self.optimizer != AUTO:
            self._check_optimizer()

    def _check_preparation(self) -> None:
        """Refuse hooks that can't take part, and other weights than the last where a hook readies these for pruning."""
        preparing = [hook.name for hook in load_hooks(self.hooks) if hook.prepares_pruning]
        if preparing and (self.keep != "last" or self.ema):
            raise UsageError(
                f"recover: the training hook {preparing[0]} readies the weights of the last step for pruning, and "
                "others are kept.",
                hint="Add keep=last, and leave ema out.",
            )

    def _check_optimizer(self) -> None:
        if isinstance(self.optimizer, str):
            check_optimizer(self.optimizer)
        kind = KINDS.get(str(self.optimizer))
        known = kind.defaults if kind is not None else {}
        for option in OPTIONS:
            value = getattr(self, option)
            if value is not None and value is not False and option not in known:
                raise UsageError(
                    f"recover: the optimizer {optimizer_title(self.optimizer)} has no option {option}.",
                    hint=f"It has {', '.join(known)}." if known else "Your function sets the options of its optimizer.",
                )
        bare = self.bare_schedule
        if bare in _RATED_FOR_SGD and str(self.optimizer) != "sgd":
            raise UsageError(
                f"recover: {bare} without a learning rate means one for SGD, and the optimizer is "
                f"{optimizer_title(self.optimizer)}.",
                hint=f"Name the highest rate, as in {bare}:{kind.usual_learning_rate if kind else 1e-3:g}.",
            )

    def resolved(self, dense_optimizer: str | None) -> Self:
        """The same options with an optimizer that is chosen, and its options filled in.

        Args:
            dense_optimizer: The optimizer that the dense network was trained with; None where it isn't known.

        Raises:
            UsageError: The optimizer that is chosen doesn't have an option that is given.
        """
        optimizer = choose_optimizer(dense_optimizer).optimizer if self.optimizer == AUTO else self.optimizer
        kind = KINDS.get(str(optimizer))
        defaults = {} if kind is None else {n: v for n, v in kind.defaults.items() if getattr(self, n) is None}
        return replace(self, optimizer=optimizer, **defaults)

    def with_optimizer(self, optimizer: str | OwnOptimizer) -> Self:
        """The same options with another optimizer, whose own options are at their defaults."""
        return replace(
            self, optimizer=optimizer, momentum=None, nesterov=False, betas=None, eps=None, weight_decay=None
        )

    @property
    def probe_epochs(self) -> int:
        """Number of epochs of the probe."""
        if self.probe is not None:
            return self.probe
        return self.epochs // 10 if self.epochs >= 10 else min(2, self.epochs)

    @property
    def bare_schedule(self) -> str:
        """The schedule without ``rest(...):`` before it, whose rates are those of the whole."""
        return self.schedule.rpartition("):")[2]

    @property
    def rewinds_weights(self) -> bool:
        """Whether training starts from weights of an early epoch."""
        return self.schedule == WEIGHT_REWINDING


def _are_decays(betas: tuple[float, ...]) -> bool:
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
