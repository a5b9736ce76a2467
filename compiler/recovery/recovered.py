"""A finished retraining: the network, its learning curve and what it took."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from prunec.compiler.recovery.diagnosis import Diagnosis
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.rate_pieces import Pieces
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.scores import Scores
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown

#: Operations of a backward pass over those of a forward pass: gradients by the inputs and by the weights take one
#: product each (Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1).
BACKWARD_OVER_FORWARD = 2


@dataclass(frozen=True)
class HookFact:
    """The facts that a training hook leaves.

    Attributes:
        text: The hook with the options that differ from their defaults, ``NAME{option=value}``.
        held_out_samples: Samples of the training data that were set aside for it.
        samples: Samples that it ran through a network, beyond each step's own.
        macs: Multiply-accumulates that it added in all.
        figures: Figures for the report, plain values of JSON by name.
        decided: Tensors and plain values by name that tell later steps about the network that was kept.
    """

    name: str
    text: str
    held_out_samples: int
    samples: int
    macs: int
    figures: Mapping[str, object]
    decided: Mapping[str, object]


@dataclass(frozen=True)
class EarlyEnd:
    """An end of a training before the epochs of its recipe.

    Attributes:
        hook: Name of the hook that ended it.
        epoch: The last epoch, counted from 1.
        reason: The reason in the hook's words.
    """

    hook: str
    epoch: int
    reason: str


@dataclass(frozen=True)
class Spent:
    """The cost of a retraining, without evaluations.

    MACs are multiply-accumulates for one sample (`prunec.passes.cost.CONVENTION`).

    Attributes:
        epochs: Passes over the training data.
        learning_rates: The learning rate over them, exactly.
        steps: Updates of the weights.
        samples: Samples that the network was trained on, in all processes together; each counts in every epoch.
        forward_macs: Operations of the network for one sample.
        backward_macs: Operations of its gradients for one sample.
        teacher_macs: Operations of the teacher for one sample; 0 where none took part.
        hook_macs: Operations of training hooks beyond these, in the mean over the samples.
    """

    epochs: int
    learning_rates: Pieces
    steps: int
    samples: int
    forward_macs: int
    backward_macs: int
    teacher_macs: int
    hook_macs: float


@dataclass(frozen=True)
class Probe:
    """A probe of a finished retraining: a short continuation on a copy, whose weights were thrown away.

    Attributes:
        options: The recipe that it followed, all of it.
        spent: The cost of it; not known where it diverged.
        weights_in: Fingerprint of the weights that it began with (`prunec.passes.identity.weights_sha256`).
    """

    options: Recover
    spent: Spent | Unknown
    weights_in: str


@dataclass(frozen=True)
class Retraining:
    """The course of a retraining.

    Attributes:
        options: The recipe, with the schedule that was followed and the optimizer with its options.
        schedule_reason: Reason for the choice of the schedule; empty where the recipe names it.
        optimizer_reason: Reason for the choice of the optimizer; empty where the recipe names it.
        optimizer_settings: The optimizer's class with all settings of its parameter groups, as text.
        curve: One record per epoch.
        learning_rates: [epoch, learning rate] at every change, or of every epoch where it always changes.
        best_epoch: The epoch whose network was kept, counted from 1.
        trainability_accuracy: Mean test metric over the first stage of constant learning rate.
        trainability_epochs: Length of that stage.
        hooks: One fact for each training hook, in the order of the recipe.
        early_end: The hook that ended the training, and when; None where it ran to its end.
        processes: Number of processes that trained together.
        resumed: Whether the training went on from a saved state.
        seconds: Duration of the whole retraining, without its probe.
        diagnosis: What was wrong with it, if anything.
        probe: The probe that the diagnosis rests on; None where there was none.
        dense_scores: Scores of the dense network, for the diagnoses of later retrainings; None where there are none.
    """

    options: Recover
    schedule_reason: str
    optimizer_reason: str
    optimizer_settings: str
    curve: tuple[EpochRecord, ...]
    learning_rates: list[list[float]]
    best_epoch: int
    trainability_accuracy: float | Unknown
    trainability_epochs: int | Unknown
    diagnosis: Diagnosis | Unknown
    hooks: tuple[HookFact, ...]
    early_end: EarlyEnd | None
    spent: Spent
    processes: int
    resumed: bool
    seconds: float
    probe: Probe | None = None
    dense_scores: Scores | None = None


@dataclass(frozen=True, kw_only=True)
class Recovered(Retraining):
    """A retrained network, in inference form, masks held, and how it came about."""

    program: Program

    def without_program(self) -> Retraining:
        """The retraining without the weights of its network."""
        return Retraining(**{field.name: getattr(self, field.name) for field in fields(Retraining)})
