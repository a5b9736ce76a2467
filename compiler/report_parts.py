"""The parts of report.json, schema version 1: frozen models whose field names carry their units.

A null says "not measured" or "unknown" and is explained under `Report.reasons`; the few fields in which null
has a meaning of its own say so with `NullMeans`. Unknown fields are errors; NaN and infinity cannot occur.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Value = TypeVar("Value")


@dataclass(frozen=True)
class NullMeans:
    """Marks a field in which null is an answer in itself and needs no reason."""

    meaning: str


def _sorted(mapping: dict[str, Value]) -> dict[str, Value]:
    return dict(sorted(mapping.items()))


SortedDict = Annotated[dict[str, Value], AfterValidator(_sorted)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
LearningRates = tuple[tuple[float, float], ...]


class Part(BaseModel):
    """Base of every part of the report: frozen, no unknown fields, finite numbers."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )


class Model(Part):
    """The dense model. `input_shapes` are one sample's shapes, without the batch dimension."""

    source_sha256: str
    architecture_sha256: str
    input_shapes: tuple[tuple[int, ...], ...]
    lost_in_capture: tuple[str, ...]
    batch_is_dynamic: bool = True


class DataInfo(Part):
    """The labelled data; hashes cover the images and labels, and what is done to them before the model."""

    sha256: str
    preprocessing_sha256: str
    train_images: Count
    validation_images: Count
    test_images: Count


class Macs(Part):
    """Multiply-accumulates per sample; `convention` says in words what is counted."""

    dense: Count
    compiled: Count
    speedup: float
    convention: str


class Parameters(Part):
    """Parameter counts; `zero_fraction` is the share of zeros among the compiled ones (2:4 masks)."""

    dense: Count
    compiled: Count
    zero_fraction: Fraction | None


class SizeBytes(Part):
    """File sizes in bytes."""

    dense_onnx: Count | None
    compiled_onnx: Count | None
    engine: Count | None


class Accuracy(Part):
    """The metric on the test images after each step, fractions 0 to 1.

    `reestimated` is with batch norm statistics measured anew, `exported` the ONNX model under ONNX Runtime, `engine`
    the engine itself on its device.
    """

    metric: str
    dense: Fraction | None
    pruned: Fraction | None
    sparse: Fraction | None
    reestimated: Fraction | None
    recovered: Fraction | None
    exported: Fraction | None
    engine: Fraction | None


class Oracle(Part):
    """The pruned program against the dense one with the same slices zeroed, float64, max|a-b| / max|b|."""

    exact: bool
    max_relative_error: float | None
    masked_max_relative_error: float | None
    inexact_groups: tuple[str, ...]


class Numerics(Part):
    """ONNX Runtime against torch, float32, max|a-b| / max|b|."""

    onnx_vs_torch_max_relative_error: float | None


class Percentiles(Part):
    """Latency percentiles in milliseconds."""

    median: float
    p90: float
    p99: float


class Latency(Part):
    """Dense and compiled measured in interleaved runs; the interval of the speed-up is a 95 % bootstrap."""

    dense_ms: Percentiles
    compiled_ms: Percentiles
    speedup: float
    speedup_interval: tuple[float, float]
    threads: Annotated[Count | None, NullMeans("measured on a GPU")]
    batch: Count
    runs: Count


class Pretraining(Part):
    """What is known of the dense training; `learning_rates` are (epoch, learning rate)."""

    epochs: float | None
    learning_rates: LearningRates | None


class PruningGroup(Part):
    """A set of filters that can only be pruned together."""

    name: str
    width: Count
    kept: Count


class Pruning(Part):
    """How filters were chosen. `epochs` and `samples` are the data spent on choosing them (one-shot: 0)."""

    base: Annotated[Literal["pretrained", "random"] | None, NullMeans("nothing tells how the checkpoint came about")]
    structure: str
    ratio: float | SortedDict[float] | None
    criterion: str
    schedule: str
    rounding: str
    round_to: int
    epochs: float
    samples: Count
    learning_rates: LearningRates = ()
    groups: tuple[PruningGroup, ...] = ()


class Distillation(Part):
    """Distillation from the dense model: temperature, and its share of the loss (the labels have the rest)."""

    temperature: float
    weight: float


class CurvePoint(Part):
    """One epoch of the recovery; accuracies are fractions, `train` on augmented data, `seconds` is wall-clock."""

    epoch: Count
    learning_rate: float
    train_loss: float
    train: Fraction
    validation: Fraction
    test: Fraction
    seconds: float


class Recovery(Part):
    """The retraining. Trainability accuracy: mean test accuracy over the first constant-rate stage.

    `warmup_epochs`: rise to the schedule's rate. `accumulate`: parts that every batch was computed in. `early`: the
    checkpoint whose weights it started from.
    """

    epochs: Count
    steps: Count
    schedule: str
    schedule_reason: Annotated[str | None, NullMeans("the recipe names the schedule")]
    learning_rates: LearningRates
    warmup_epochs: float
    early: Annotated[str | None, NullMeans("weights were not rewound")]
    optimizer: str
    momentum: float
    nesterov: bool
    weight_decay: float
    batch_size: Count
    loss: str
    augmentation: tuple[str, ...]
    distillation: Annotated[Distillation | None, NullMeans("no distillation")]
    label_smoothing: Fraction
    clip_norm: Annotated[float | None, NullMeans("gradients were not clipped")]
    ema: Annotated[float | None, NullMeans("no moving average of the weights")]
    precision: str
    accumulate: Count
    channels_last: bool
    compiled: bool
    processes: Count
    sync_batchnorm: bool
    resumed: bool
    seeds: tuple[int, ...]
    curve: tuple[CurvePoint, ...]
    trainability_accuracy: Fraction | None
    trainability_epochs: Count | None
    diagnosis: str | None
    checkpoint: Literal["best", "last"]
    checkpoint_epoch: Count
    seconds: float


class Run(Part):
    """Final test accuracy of one seed: as exported where there is one seed, before the export where there are more."""

    seed: int
    accuracy: Fraction | None


class Control(Part):
    """A control arm: `accuracy` is its test accuracy, before any export, `note` what is to be known of it."""

    name: str
    epochs: Count
    schedule: str
    accuracy: Fraction | None
    note: str


class RunsSummary(Part):
    """Mean and sample standard deviation of the accuracy over the seeds."""

    mean: float | None
    standard_deviation: float | None


class Permutation(Part):
    """Channel permutation: groups that kept their order, with the reason, and those whose search was cut short."""

    refused: SortedDict[str]
    cut_short: tuple[str, ...]


class LayerSparsity(Part):
    """2:4 of one layer: the rule it meets, and what the engine builder found and chose.

    `retained_magnitude` is the share of the layer's absolute weights that the mask kept, `retained_unpermuted` what it
    would have kept without channel permutation, `permutation_gain` the difference, `efficacy` the share of the loss
    that the permutation undid, where 1 is each filter's own larger half kept. `likely_to_gain` is a prediction, with
    the rule behind it. `found_by_builder`: it tried sparse kernels; `chosen_by_builder`: one of them won.

    A `reason` that is not empty says why the layer is not 2:4, which explains the nulls beside it too.
    """

    eligible: bool
    valid: bool
    reason: str
    retained_magnitude: Fraction | None
    retained_unpermuted: Fraction | None
    permutation_gain: float | None
    efficacy: float | None
    likely_to_gain: bool
    gain_rule: str
    found_by_builder: bool | None
    chosen_by_builder: bool | None


class Layer(Part):
    """One layer with a weight: `shape` dense, `compiled_shape` after pruning, `kept` output filters.

    `onnx_nodes` compute it in the exported model. `dense_ms` and `sparse_ms` are measured on the device, in engines of
    the compiled network without and with sparse kernels; `gain` is their ratio. What begins with `predicted` is a
    roofline: `predicted_ms` of the layer as compiled, `predicted_dense_ms` of the same without sparse kernels.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    compiled_shape: tuple[int, ...]
    kept: Count
    sparsity: LayerSparsity | None
    dense_ms: float | None
    sparse_ms: float | None
    gain: float | None
    predicted_dense_ms: float | None
    predicted_ms: float | None
    predicted_bound: Literal["compute", "memory"] | None
    onnx_nodes: tuple[str, ...] = ()


class Step(Part):
    """The network after one step of the pipeline; the first is the dense network, named "dense".

    `nonzero_weights` counts the weights of convolutions and linear layers that are not zero, `predicted_ms` is the
    sum of the layers' rooflines, `accuracy` a fraction on the test data.
    """

    name: str
    macs: Count
    nonzero_weights: Count
    predicted_ms: float | None
    accuracy: Fraction | None


Verdict = Literal["passed", "failed", "unknown"]


class Gate(Part):
    """A limit that was asked for, the value found, and the verdict; `allow_unknown` lets one that isn't known pass."""

    name: str
    limit: float
    value: float | None
    verdict: Verdict
    allow_unknown: bool = False


class Engine(Part):
    """The engine: `kind` is the runtime that loads it, `path` is relative to the bundle.

    `builder` is library and version, `gpu` what it was built on. One built ahead of time is for
    `compute_capabilities`. `dimensions` are the sizes it takes, as smallest:tuned:largest.
    """

    kind: str
    path: str
    builder: str
    gpu: Annotated[str | None, NullMeans("built without a GPU")]
    built_ahead_of_time: bool
    compute_capabilities: tuple[str, ...]
    dimensions: SortedDict[str]
    run_on_device: bool
    notes: tuple[str, ...] = ()


class EngineRequest(Part):
    """What was asked of the engine, for `prunec build`: sizes of dynamic dimensions, further devices."""

    dimensions: SortedDict[str]
    also_for: tuple[str, ...]


class GpuState(Part):
    """The GPU right after latency was measured on it; `performance_state` 0 is the fastest."""

    name: str
    driver: str
    sm_clock_mhz: Count
    max_sm_clock_mhz: Count
    memory_clock_mhz: Count
    power_w: Annotated[float | None, NullMeans("this GPU doesn't tell")]
    power_limit_w: Annotated[float | None, NullMeans("this GPU doesn't tell")]
    temperature_c: int
    performance_state: Count
    clocks_held_by: tuple[str, ...]


class Environment(Part):
    """Where the report was made: versions of the tools, processor, threads, GPU and its state."""

    versions: SortedDict[str]
    processor: str
    threads: Count
    gpu: Annotated[str | None, NullMeans("no GPU seen")]
    gpu_state: GpuState | None


def summarise_runs(runs: tuple[Run, ...]) -> tuple[RunsSummary, dict[str, str]]:
    """Mean and sample standard deviation over the seeds, with the reasons for what cannot be known.

    Returns:
        the summary, and entries for `Report.reasons`.
    """
    measured = [run.accuracy for run in runs if run.accuracy is not None]
    if not measured or len(measured) < len(runs):
        summary = RunsSummary(mean=None, standard_deviation=None)
        reason = "the accuracy was not measured for every seed."
        return summary, {"runs_summary": reason} | ({"runs": reason} if runs else {})
    mean = sum(measured) / len(measured)
    if len(measured) == 1:
        reason = "one seed only; a deviation needs at least two."
        return RunsSummary(mean=mean, standard_deviation=None), {"runs_summary.standard_deviation": reason}
    variance = sum((accuracy - mean) ** 2 for accuracy in measured) / (len(measured) - 1)
    return RunsSummary(mean=mean, standard_deviation=variance**0.5), {}
