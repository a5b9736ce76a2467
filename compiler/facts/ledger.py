"""The ledger of a compile: what every stage spent, in order, and on which weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunec.compiler.recovery.rate_pieces import RatePiece
from prunec.passes.unknown import Unknown

#: Weights that nothing was trained to.
RANDOM = "random"
#: Stage of the entry for the dense network's own training.
PRETRAINING = "pretraining"


@dataclass(frozen=True)
class MacsPerSample:
    """Multiply-accumulates for one sample of what was trained or run (`prunec.passes.cost.CONVENTION`).

    Attributes:
        forward: The network's outputs.
        backward: Its gradients; 0 where none were taken.
        teacher: The outputs of a teacher.
        regulariser: The work of training hooks beyond the training's own, in the mean over the samples.
    """

    forward: float = 0.0
    backward: float = 0.0
    teacher: float = 0.0
    regulariser: float = 0.0


@dataclass(frozen=True)
class LedgerEntry:
    """The cost of one stage.

    Attributes:
        run: The control arm or further seed that it belongs to; empty for the compile itself.
        stage: Name of the step, "pretraining" or "probe".
        options: All options as they were followed, by name; those of criteria and hooks under dotted names.
        places: Places in a comparison of the options whose classes state one (`prunec.passes.options.stated_places`).
        removed: Whether it removed or masked weights.
        epochs: Passes over the training data.
        steps: Optimizer steps.
        samples: Training samples that it looked at, repeated ones counted again.
        macs_per_sample: Operations for each of them.
        learning_rates: The learning rate over its epochs; empty where nothing was trained.
        data: Fingerprint of the data; None where it looked at none.
        split: The part of the data, in words; None likewise.
        seed: Seed of its random choices: its own where its options name one, else the run's. Samples of one-shot steps
            are always drawn by the run's.
        weights_in: Fingerprint of the weights that it was given, or "random". A recovery that rewinds weights trains
            those of ``early_sha256`` among its options instead, pruned and masked alike.
        weights_out: Fingerprint of the weights that it left; None where they were thrown away.
    """

    run: str
    stage: str
    options: Mapping[str, Any]
    places: Mapping[str, str]
    removed: bool
    epochs: float | Unknown
    steps: int | Unknown
    samples: int | Unknown
    macs_per_sample: MacsPerSample | Unknown
    learning_rates: tuple[RatePiece, ...] | Unknown
    data: str | Unknown | None
    split: str | Unknown | None
    seed: int | Unknown
    weights_in: str | Unknown
    weights_out: str | Unknown | None
