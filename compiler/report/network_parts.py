"""Parts of report.json that tell of the network: what it is, what was removed from it, and every layer."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prunec.compiler.report.cost_parts import AllocationPart, TimedPart
from prunec.compiler.report.nulls import NOT_RECORDED, Maybe, NullMeans
from prunec.compiler.report.report_part import Count, Fraction, LearningRates, Part, SortedDict
from prunec.passes.network_inputs import NetworkInput
from prunec.runtime.devices import KernelBound


class InputPart(Part):
    """One input of the network; sizes that vary stand in its shape by their names, the batch first."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class ModelPart(Part):
    """The dense model. `input_shapes` are one sample's shapes, without the batch dimension.

    `inputs` and `outputs` are those of the ONNX files, in their order, outputs by name.
    `source_sha256` is the fingerprint of its weights and `compiled_sha256` that of the compiled ones.
    """

    name: Annotated[str | None, NullMeans("the project file names it not")] = None
    source_sha256: str
    compiled_sha256: Maybe[str] = NOT_RECORDED
    architecture_sha256: str
    input_shapes: tuple[tuple[int, ...], ...]
    lost_in_capture: tuple[str, ...]
    batch_is_dynamic: bool = True
    inputs: Maybe[tuple[InputPart, ...]] = NOT_RECORDED
    outputs: Maybe[tuple[str, ...]] = NOT_RECORDED


def input_parts(inputs: Iterable[NetworkInput]) -> tuple[InputPart, ...]:
    """What a report tells of inputs."""
    return tuple(InputPart(name=each.name, shape=each.sizes(), dtype=each.dtype) for each in inputs)


class MacsPart(Part):
    """Multiply-accumulates per sample; `convention` says in words what is counted."""

    dense: Count
    compiled: Count
    speedup: float
    convention: str


class ParametersPart(Part):
    """Parameter counts; `zero_fraction` is the share of zeros among the compiled ones (2:4 masks)."""

    dense: Count
    compiled: Count
    zero_fraction: Maybe[Fraction]


class SizeBytesPart(Part):
    """File sizes in bytes."""

    dense_onnx: Maybe[Count]
    compiled_onnx: Maybe[Count]
    engine: Maybe[Count]


class OraclePart(Part):
    """The pruned program against the dense one with the same slices zeroed, float64, max|a-b| / max|b|."""

    exact: bool
    max_relative_error: Maybe[float]
    masked_max_relative_error: Maybe[float]
    inexact_groups: tuple[str, ...]


class NumericsPart(Part):
    """Two forms of the compiled network against torch in float32, max|a-b| / max|b|: ONNX Runtime, and the engine.

    Torch rounds to the grids of an INT8 network, too; `engine_vs_fp32_relative_error` compares the engine with the
    network without grids, output by output.
    """

    onnx_vs_torch_max_relative_error: Maybe[float]
    engine_vs_torch_max_relative_error: Maybe[float] = NOT_RECORDED
    engine_vs_fp32_relative_error: Maybe[SortedDict[float]] = NOT_RECORDED


class PruningGroupPart(Part):
    """A set of filters that can only be pruned together."""

    name: str
    width: Count
    kept: Count


class PruningPart(Part):
    """The choice of filters. `epochs` and `samples` are the data spent on choosing them (one-shot: 0).

    `method` is "plan" where a given plan was applied in place of a choice.
    `removed_branches` are the residual branches that were removed as a whole, each by its last layer.
    """

    base: Annotated[
        Literal["pretrained", "random"] | None, NullMeans("nothing tells how the checkpoint came about")
    ] = None
    structure: str
    ratio: Maybe[float | SortedDict[float]]
    criterion: str
    schedule: str
    rounding: str
    round_to: int
    epochs: float
    samples: Count
    learning_rates: LearningRates = ()
    groups: tuple[PruningGroupPart, ...] = ()
    method: Annotated[str | None, NullMeans("goals or ratios and the criterion decide")] = None
    allocation: Annotated[Maybe[AllocationPart] | None, NullMeans("ratios or a plan give the widths")] = NOT_RECORDED
    timed: Annotated[TimedPart | None, NullMeans("no time was asked for")] = None
    removed_branches: tuple[str, ...] = ()


class PermutationPart(Part):
    """Channel permutation: groups that kept their order, with the reason, and those whose search was cut short."""

    refused: SortedDict[str]
    cut_short: tuple[str, ...]


class LayerSparsityPart(Part):
    """2:4 of one layer: the rule it meets, and what the engine builder tried and chose.

    `retained_magnitude` is the share of the layer's absolute weights that the mask kept, `retained_unpermuted` what it
    would have kept without channel permutation, `permutation_gain` the difference, `efficacy` the share of the loss
    that the permutation undid, where 1 is each filter's own larger half kept. `likely_to_gain` is a prediction, with
    the rule behind it. `found_by_builder`: it tried sparse kernels; `chosen_by_builder`: one of them won.

    A `reason` that is not empty says why the layer is not 2:4, which explains the nulls beside it too.
    """

    eligible: bool
    valid: bool
    reason: str
    retained_magnitude: Maybe[Fraction] | None
    retained_unpermuted: Maybe[Fraction] | None = NOT_RECORDED
    permutation_gain: Maybe[float] | None = NOT_RECORDED
    efficacy: Maybe[float] | None
    likely_to_gain: Maybe[bool] = NOT_RECORDED
    gain_rule: Maybe[str] = NOT_RECORDED
    found_by_builder: Maybe[bool] | None
    chosen_by_builder: Maybe[bool] | None

    @model_validator(mode="after")
    def _explain_nulls(self) -> Self:
        absent = [name for name in type(self).model_fields if getattr(self, name) is None]
        if absent and not self.reason:
            raise ValueError(f"null without an entry in reasons: {', '.join(absent)} of a layer's sparsity")
        return self


class LayerPart(Part):
    """One layer with a weight: `shape` dense, `compiled_shape` after pruning, `kept` output filters.

    `onnx_nodes` compute it in the exported model. `dense_ms` and `sparse_ms` are measured on the device, in engines of
    the compiled network without and with sparse kernels; `gain` is their ratio. What begins with `predicted` is a
    roofline, of the layer with what follows it up to the next: `predicted_ms` as compiled, `predicted_dense_ms` without
    sparse kernels.

    `removed_with` is the residual branch that the layer was removed with: then it keeps no filters, `compiled_shape` is
    empty, and the rest is not known.

    `rank` is that of a layer in the place of which two stand: `compiled_shape` is that of their product, and what
    follows is told of the two, which come next. These name it in `factor_of`, and their own `shape` is empty, since the
    dense network doesn't have them.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    compiled_shape: tuple[int, ...]
    kept: Count
    sparsity: Maybe[LayerSparsityPart]
    dense_ms: Maybe[float]
    sparse_ms: Maybe[float]
    gain: Maybe[float] = NOT_RECORDED
    predicted_dense_ms: Maybe[float] = NOT_RECORDED
    predicted_ms: Maybe[float] = NOT_RECORDED
    predicted_bound: Maybe[KernelBound] = NOT_RECORDED
    onnx_nodes: tuple[str, ...] = ()
    removed_with: Annotated[str | None, NullMeans("the layer is in the compiled network")] = None
    rank: Annotated[Count | None, NullMeans("the layer isn't decomposed")] = None
    factor_of: Annotated[str | None, NullMeans("the dense network has the layer")] = None

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled network has the layer."""
        return self.removed_with is None and self.rank is None


class AimPart(Part):
    """The amount that a step was asked for, 0 where nothing was, and what it reached; `reason` says what kept the rest.

    `what` is counted.
    """

    what: str
    asked: Annotated[float, Field(ge=0)]
    got: Annotated[float, Field(ge=0)]
    reason: str

    @property
    def share(self) -> float:
        """Reached over asked, 1 where nothing was asked for."""
        return self.got / self.asked if self.asked else 1.0


class PreflightPart(Part):
    """What follows the last step, tried before a training with the network that the steps will leave, not yet trained.

    `macs` are that network's, `accuracy` is the metric on a few samples under ONNX Runtime, `parsed_by` the library
    whose parser took the model.
    """

    macs: Count
    difference_from_torch: Maybe[float]
    accuracy: Maybe[float]
    parsed_by: Maybe[str]
    seconds: float


class StepPart(Part):
    """The network after one step of the pipeline; the first is the dense network, named "dense".

    `nonzero_weights` counts the weights of convolutions and linear layers that are not zero, `predicted_ms` is the
    sum of the layers' rooflines, `accuracy` a fraction on the test data. `note` is a remark on what it did.
    """

    name: str
    macs: Count
    nonzero_weights: Count
    predicted_ms: Maybe[float]
    accuracy: Maybe[Fraction]
    aim: Annotated[Maybe[AimPart] | None, NullMeans("the step is asked for no amount of anything")] = NOT_RECORDED
    note: Annotated[str | None, NullMeans("there is nothing to remark")] = None
    preflight: Annotated[
        Maybe[PreflightPart] | None, NullMeans("the step doesn't train, or the same was tried before")
    ] = NOT_RECORDED
