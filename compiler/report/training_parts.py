"""Parts of report.json that tell of data, accuracy and training."""

from typing import Annotated

from prunec.compiler.recovery.recover_options import Keep
from prunec.compiler.recovery.verdicts import Verdict
from prunec.compiler.report.nulls import NOT_RECORDED, Figures, Maybe, NullMeans
from prunec.compiler.report.report_part import Count, Fraction, LearningRates, Part


class DataPart(Part):
    """The labelled data; hashes cover the images and labels, and what is done to them before the model.

    `split` says how the validation images were chosen.
    """

    name: Annotated[str | None, NullMeans("the project file names them not")] = None
    sha256: str
    preprocessing_sha256: str
    split: Maybe[str] = NOT_RECORDED
    train_images: Count
    validation_images: Count
    test_images: Count


class PlausibilityPart(Part):
    """The check of the data with the dense network on at most `samples` of each part.

    `distance`: of the test inputs from what the first batch norm saw in training, in its standard deviations, mean over
    channels. `findings`: likely mistakes in the data in words, which were allowed (`--allow-implausible`).
    """

    samples: Count
    distance: Maybe[float]
    findings: tuple[str, ...]


class AccuracyPart(Part):
    """The metric on the test images after each step, fractions 0 to 1.

    `decomposed` is with layers of low rank, `reestimated` with batch norm statistics measured anew, `quantized` with
    values on the grids of INT8, `exported` the ONNX model under ONNX Runtime, `engine` the engine itself on its device.
    """

    metric: str
    dense: Maybe[Fraction]
    pruned: Maybe[Fraction]
    decomposed: Maybe[Fraction] = NOT_RECORDED
    sparse: Maybe[Fraction]
    reestimated: Maybe[Fraction] = NOT_RECORDED
    recovered: Maybe[Fraction]
    quantized: Maybe[Fraction] = NOT_RECORDED
    exported: Maybe[Fraction]
    engine: Maybe[Fraction]


class PretrainingPart(Part):
    """The known facts of the dense training; `learning_rates` are (epoch, learning rate).

    `by_this_run` says whether the run itself drew and trained the network, and `kept_step` after how many steps of that
    its weights were kept.
    """

    epochs: Maybe[float]
    learning_rates: Maybe[LearningRates]
    optimizer: Maybe[str] = NOT_RECORDED
    by_this_run: Maybe[bool] = NOT_RECORDED
    kept_step: Annotated[Count | None, NullMeans("the run didn't train the dense network")] = None


class DistillationPart(Part):
    """Distillation from the dense model: temperature, and its share of the loss (the labels have the rest)."""

    temperature: float
    weight: float


class CurvePointPart(Part):
    """One epoch of the recovery; accuracies are fractions, `train` on augmented data, `seconds` is wall-clock."""

    epoch: Count
    learning_rate: float
    train_loss: Maybe[float] = NOT_RECORDED
    train: Maybe[Fraction] = NOT_RECORDED
    validation: Fraction
    test: Fraction
    seconds: float


class HookPart(Part):
    """A training hook that took part in the retraining, with the figures that it tells of itself.

    `text` names it with its options, `held_out_samples` of the training data were set aside for it, `samples` it ran
    through a network beyond the training's own, and `macs` it added in all.
    """

    name: str
    text: str
    held_out_samples: Count
    samples: Count
    macs: Count
    figures: Figures


class EarlyEndPart(Part):
    """The end of a retraining that a hook ended: its last epoch, and why."""

    hook: str
    epoch: Count
    reason: str


class EstimatePart(Part):
    """A difference of accuracies in percentage points, with its standard error."""

    points: float
    standard_error: float


class EvidencePart(Part):
    """The numbers that a diagnosis rests on: accuracies on training and validation data as fractions, both networks in
    inference form, and differences between them; training data are a sample of it, not augmented.

    `missing`: dense network less the one that was kept. `probe_gain`: what a short continuation won. `probe_distance`:
    its learning rates summed up, over those of the run. `projected_gain`: what a longer run would win by the learning
    curve. `last_rate_share`: last learning rate over the highest. `scatter_points`: validation accuracy about its
    curve, from epoch to epoch. `fallen_points`: the best epoch less the last one.
    """

    limit_points: float
    dense_train: Maybe[Fraction]
    kept_train: Maybe[Fraction]
    dense_validation: Fraction
    kept_validation: Fraction
    missing: EstimatePart
    missing_train: Maybe[EstimatePart]
    probe_epochs: Count
    probe_learning_rate: Maybe[float]
    probe_gain: Maybe[EstimatePart]
    probe_gain_train: Maybe[EstimatePart]
    probe_distance: Maybe[float]
    projected_gain: Maybe[EstimatePart]
    projected_gain_train: Maybe[EstimatePart]
    last_rate_share: float
    scatter_points: Maybe[float]
    fallen_points: float
    fallen_train_points: float


class DiagnosisPart(Part):
    """What was wrong with a retraining, if anything: the verdict, its numbers, and advice, the cheapest first."""

    verdict: Verdict
    evidence: EvidencePart
    advice: tuple[str, ...]


class RecoveryPart(Part):
    """The retraining. Trainability accuracy: mean test accuracy over the first constant-rate stage.

    `warmup_epochs`: rise to the schedule's rate. `accumulate`: parts that every batch was computed in. `early`: the
    checkpoint whose weights it started from. `optimizer_settings`: all settings of the optimizer as text. `diagnosis`
    is text in reports of earlier versions.
    """

    epochs: Count
    steps: Count
    schedule: str
    schedule_reason: Annotated[str | None, NullMeans("the recipe names the schedule")] = None
    learning_rates: LearningRates
    warmup_epochs: Maybe[float] = NOT_RECORDED
    early: Annotated[str | None, NullMeans("weights were not rewound")] = None
    optimizer: str
    optimizer_reason: Annotated[str | None, NullMeans("the recipe names the optimizer")] = None
    optimizer_settings: Maybe[str] = NOT_RECORDED
    momentum: Annotated[float | None, NullMeans("the optimizer has no such option in recipes")]
    nesterov: bool
    betas: Annotated[tuple[float, float] | None, NullMeans("the optimizer has no such option in recipes")] = None
    eps: Annotated[float | None, NullMeans("the optimizer has no such option in recipes")] = None
    weight_decay: Annotated[float | None, NullMeans("the optimizer has no such option in recipes")]
    decay_norms_and_biases: Maybe[bool] = NOT_RECORDED
    batch_size: Count
    loss: str
    augmentation: tuple[str, ...]
    distillation: Annotated[DistillationPart | None, NullMeans("no distillation")]
    label_smoothing: Maybe[Fraction] = NOT_RECORDED
    clip_norm: Annotated[Maybe[float] | None, NullMeans("gradients were not clipped")] = NOT_RECORDED
    ema: Annotated[float | None, NullMeans("no moving average of the weights")]
    precision: str
    accumulate: Maybe[Count] = NOT_RECORDED
    channels_last: Maybe[bool] = NOT_RECORDED
    compiled: Maybe[bool] = NOT_RECORDED
    processes: Maybe[Count] = NOT_RECORDED
    sync_batchnorm: Maybe[bool] = NOT_RECORDED
    resumed: Maybe[bool] = NOT_RECORDED
    seeds: tuple[int, ...]
    hooks: tuple[HookPart, ...] = ()
    early_end: Annotated[EarlyEndPart | None, NullMeans("it ran to its end")] = None
    curve: tuple[CurvePointPart, ...]
    trainability_accuracy: Maybe[Fraction]
    trainability_epochs: Maybe[Count] = NOT_RECORDED
    diagnosis: Maybe[DiagnosisPart | str] = NOT_RECORDED
    checkpoint: Keep
    checkpoint_epoch: Count
    seconds: float


class RunPart(Part):
    """Final test accuracy of one seed: as exported where there is one seed, before the export where there are more."""

    seed: int
    accuracy: Maybe[Fraction]


class RunsSummaryPart(Part):
    """Mean and sample standard deviation of the accuracy over the seeds."""

    mean: Maybe[float]
    standard_deviation: Maybe[float]


class ControlPart(Part):
    """A control arm: `accuracy` is its test accuracy before any export, `note` a remark that a reader needs.

    `macs` are those of its network for one sample, `zero_fraction` is the share of zeros among its parameters; `runs`
    are its accuracies by seed, of which `accuracy` is the first, and `summary` sums them up.
    """

    name: str
    epochs: Count
    schedule: str
    accuracy: Maybe[Fraction]
    macs: Maybe[Count] = NOT_RECORDED
    zero_fraction: Maybe[Fraction] = NOT_RECORDED
    runs: Maybe[tuple[RunPart, ...]] = NOT_RECORDED
    summary: Maybe[RunsSummaryPart] = NOT_RECORDED
    note: str
