"""The options of a recovery finetune, as a recipe gives them."""

import contextlib
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from prunec.compiler.recovery.default_schedule import AUTO
from prunec.compiler.recovery.hooks import HOOKS, TrainingHook, load_hooks
from prunec.compiler.recovery.schedules import WEIGHT_REWINDING, OriginalUnknownError, parse_schedule
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.options import CATALOGUE

Keep = Literal["best", "last"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Recover:
    """Retrain a pruned network with SGD, its sparsity masks held.

    Attributes:
        epochs: Passes over the training data.
        schedule: Learning rate over the epochs (`parse_schedule`); "auto" depends on how much was pruned
            (`choose_schedule`).
        batch_size: Samples per step, of all processes together.
        momentum: Momentum of SGD, in [0, 1).
        nesterov: Whether momentum is of Nesterov's form.
        weight_decay: L2 penalty on all parameters.
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
        UsageError: A value is out of its range, or a hook is unknown.
    """

    name: ClassVar[str] = "recover"

    epochs: int
    schedule: str = AUTO
    batch_size: int = 128
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    distill: float = 0.0
    distill_weight: float = 0.9
    keep: Keep = "best"
    label_smoothing: float = 0.0
    warmup: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    sync_batchnorm: bool = False
    early: str = ""
    probe: int | None = None
    over_pruned_points: float = 1.5
    hooks: str | tuple[TrainingHook, ...] = field(default="", metadata={CATALOGUE: HOOKS})

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "nesterov": (not self.nesterov or self.momentum > 0, "false where momentum is 0"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "at least 0"),
            "distill": (0 <= self.distill < float("inf"), "a temperature above 0, or 0 for none"),
            "distill_weight": (0 < self.distill_weight <= 1, "above 0 and at most 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "at least 0 and below 1"),
            "warmup": (0 <= self.warmup < self.epochs, f"at least 0 and below the {self.epochs} epochs"),
            "clip_norm": (0 <= self.clip_norm < float("inf"), "a norm above 0, or 0 for none"),
            "ema": (0 <= self.ema < 1, "a decay below 1, or 0 for none"),
            "probe": (self.probe is None or self.probe >= 0, "a number of epochs, or 0 for none"),
            "over_pruned_points": (0 < self.over_pruned_points < 100, "above 0 and below 100 points"),
            "early": (bool(self.early) == (self.rewinds_weights), "given for the schedule wr, and only for it"),
            "accumulate": (1 <= self.accumulate <= self.batch_size // 2, "at least 1, with 2 samples a part or more"),
        }
        for option, (holds, expected) in ranges.items():
            if not holds:
                raise UsageError(f"recover: {option} must be {expected}, got {getattr(self, option)}.")
        for option, known in (("keep", get_args(Keep)), ("precision", get_args(Precision))):
            value = getattr(self, option)
            if value not in known:
                raise UsageError(f"recover: {option} = {value!r} is unknown.", hint=did_you_mean(value, known))
        if self.schedule != AUTO:
            with contextlib.suppress(OriginalUnknownError):  # it is known when the training starts
                parse_schedule(self.schedule, epochs=self.epochs)
        load_hooks(self.hooks)

    @property
    def probe_epochs(self) -> int:
        """Number of epochs of the probe."""
        if self.probe is not None:
            return self.probe
        return self.epochs // 10 if self.epochs >= 10 else min(2, self.epochs)

    @property
    def rewinds_weights(self) -> bool:
        """Whether training starts from weights of an early epoch."""
        return self.schedule == WEIGHT_REWINDING
