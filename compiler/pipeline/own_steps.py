"""prunec's own steps, one entry each, and those of plug-ins. Recipes, order, dispatch and help derive from them."""

from collections.abc import Mapping
from typing import Any

from prunec.compiler.pipeline.step_kind import After, Needs, StepKind, Tables, needs_inputs, needs_labels
from prunec.passes.allocation.goals import GOALS
from prunec.passes.errors import MissingDependencyError
from prunec.passes.notation import REPEAT, is_name
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.plugins import Catalogue
from prunec.runtime.target import Target

#: Filters kept at least in every group where a recipe doesn't say otherwise.
MIN_CHANNELS = 8
#: Dense MACs over pruned MACs, where a recipe says neither a ratio nor a goal.
DEFAULT_SPEEDUP = 2.0
#: Epochs of the recovery finetune, where a recipe doesn't say them.
DEFAULT_EPOCHS = 20
_LOST_FOR_GOOD = "after the last finetune cost accuracy that nothing wins back"
_MEASURED_ON = "what it changes is what the batch norms' statistics are measured on"
_OF_WHOLE_LAYERS = "a plan tells of slices of layers as the network has them, and then of ranks"
_SHIFTED = "removing channels shifts the groups of input channels that"
_TORN = "so that it has its pattern no more"
_RANGES_OF = "ranges are those of the network that is deployed, and its grids fit no other weights"


def _half_the_macs(target: Target, tables: Tables) -> Mapping[str, object]:
    widths = {"round_to": target.channel_multiple, "min_channels": MIN_CHANNELS}
    given = tables.get("prune-filters", {})
    if "plan" in given:
        return {}
    is_asked = any(name in given for name in ("ratio", *GOALS))
    return widths if is_asked else {"speedup": DEFAULT_SPEEDUP, **widths}


def _ranks_of_target(target: Target, tables: Tables) -> Mapping[str, object]:
    """Ranks are numbers of channels: as widths, what an engine computes at a time; given ones are left as they are."""
    return {} if "rank" in tables.get("decompose", {}) else {"round_to": target.channel_multiple}


def _default_length(_target: Target, _tables: Tables) -> Mapping[str, object]:
    return {"epochs": DEFAULT_EPOCHS}


def _dense_layers(_: Target, tables: Tables) -> Mapping[str, object]:
    """Layers that stay dense gain nothing by an order of their channels."""
    ignored = tables.get("sparsify", {}).get("ignore")
    return {"ignore": ignored} if ignored else {}


def _criterion_needs(options: Any) -> Needs:
    needs: frozenset[str] = options.needs
    if needs & {"gradients", "labels"}:
        return "labels"
    return "inputs" if needs & {"inputs", "outputs"} else "nothing"


def _training_needs(options: Any) -> Needs:
    return "labels" if options.epochs else "nothing"


def _calibration_needs(options: Any) -> Needs:
    return "inputs" if options.max_drop_points is None else "labels"


#: The order is that of pipelines that are made of recipe tables.
_OWN = (
    StepKind(
        name="pretrain",
        options="prunec.compiler.recovery.pretrain_options:Pretrain",
        runs="prunec.compiler.stages.pretrain_step:pretrain",
        summary="train the dense network from fresh weights",
        needs=_training_needs,
        makes_dense=True,
    ),
    StepKind(
        name="fold-parameters",
        options="prunec.passes.fold:FoldParameters",
        runs="prunec.compiler.stages.pass_steps:fold",
        summary="make plain weights of computed ones",
    ),
    StepKind(
        name="prune-filters",
        options="prunec.passes.prune_filters:PruneFilters",
        runs="prunec.compiler.stages.pass_steps:prune",
        summary="remove the least important filters",
        after=(After("fold-parameters", "a plan names the parameters that are there when filters are pruned"),),
        needs=_criterion_needs,
        accuracy="pruned",
        measures_accuracy=True,
        defaults=_half_the_macs,
        default_sources={"round_to": "target"},
    ),
    StepKind(
        name="permute",
        options="prunec.passes.permute:Permute",
        runs="prunec.compiler.stages.pass_steps:permute",
        summary="reorder channels so that 2:4 keeps more magnitude",
        after=(After("prune-filters", f"{_SHIFTED} an order was searched for"),),
        defaults=_dense_layers,
        default_sources={"ignore": "[recipe.sparsify]"},
    ),
    StepKind(
        name="decompose",
        options="prunec.passes.low_rank:Decompose",
        runs="prunec.compiler.stages.pass_steps:decompose",
        summary="put two layers of low rank in the place of one",
        after=(
            After("fold-parameters", "a plan names the parameters that are there when layers are decomposed"),
            After("prune-filters", _OF_WHOLE_LAYERS),
            After("permute", _OF_WHOLE_LAYERS),
        ),
        accuracy="decomposed",
        measures_accuracy=True,
        place="sparsify",
        defaults=_ranks_of_target,
        default_sources={"round_to": "target"},
    ),
    StepKind(
        name="sparsify",
        options="prunec.passes.sparsify:Sparsify",
        runs="prunec.compiler.stages.pass_steps:sparsify",
        summary="mask weights: 2:4, single ones, blocks and other patterns",
        after=(
            After("prune-filters", f"{_SHIFTED} a mask was made for, {_TORN}"),
            After("permute", f"another order of the channels tears the groups of a mask apart, {_TORN}"),
            After("decompose", "a layer whose weight is masked stays whole"),
        ),
        needs=_criterion_needs,
        accuracy="sparse",
        measures_accuracy=True,
    ),
    StepKind(
        name="re-estimate-batchnorm",
        options="prunec.calibration.batchnorm:ReestimateBatchNorm",
        runs="prunec.compiler.stages.pass_steps:reestimate",
        summary="measure the statistics of batch norms anew",
        after=tuple(After(name, _MEASURED_ON, last=True) for name in ("prune-filters", "decompose", "sparsify")),
        needs=needs_inputs,
        accuracy="reestimated",
        measures_accuracy=True,
    ),
    StepKind(
        name="recover",
        options="prunec.compiler.recovery.recover_options:Recover",
        runs="prunec.compiler.stages.recover_step:recover_step",
        summary="retrain what is left",
        after=(
            After("prune-filters", f"filters removed {_LOST_FOR_GOOD}", last=True),
            After("decompose", f"ranks lowered {_LOST_FOR_GOOD}", last=True),
            After("sparsify", f"weights masked {_LOST_FOR_GOOD}", last=True),
        ),
        needs=needs_labels,
        accuracy="recovered",
        measures_accuracy=True,
        place="",
        defaults=_default_length,
    ),
    StepKind(
        name="calibrate",
        options="prunec.calibration.quantization.calibrate:Calibrate",
        runs="prunec.compiler.stages.calibrate_step:calibrate",
        summary="put values on the grids of INT8 or FP8, or weights on those of INT4",
        after=tuple(
            After(name, _RANGES_OF)
            for name in (
                *("fold-parameters", "prune-filters", "permute", "decompose", "sparsify"),
                *("re-estimate-batchnorm", "recover"),
            )
        ),
        needs=_calibration_needs,
        accuracy="quantized",
        measures_accuracy=True,
        place="",
    ),
)
#: Steps in every pipeline of recipe tables for a target that asks for 2:4, and in no other.
_OF_SPARSE_TARGETS = ("permute", "sparsify")
#: The step in every pipeline of recipe tables for a target on grids, and in no other.
CALIBRATE = "calibrate"
#: The end of every compile, after its steps.
TAIL = ("export", "build", "measure")
OWN_STEPS: dict[str, StepKind] = {kind.name: kind for kind in _OWN}
STEPS = Catalogue("step", "prunec.steps", dict.fromkeys(OWN_STEPS, f"{__name__}:OWN_STEPS"))
#: Stages at which accuracy is measured, in their order: the report has a field for each.
ACCURACY_STAGES = ("dense", *(kind.accuracy for kind in _OWN if kind.accuracy), "exported", "engine")


def _masks_anywhere(name: str, tables: Tables) -> bool:
    """Whether a table is of masks that no target asks for, and every target takes."""
    return name == "sparsify" and str(tables[name].get("pattern", TWO_FOUR)) != TWO_FOUR


def step_kind(name: str) -> StepKind:
    """The kind of step of a name.

    Raises:
        UsageError: There is none, or several packages bring one.
        MissingDependencyError: The package that brings it can't be imported, or brings something that is no step.
    """
    loaded = STEPS.load(name)
    if name in OWN_STEPS:
        return OWN_STEPS[name]
    if problem := _problem(name, loaded):
        raise MissingDependencyError(
            f"The entry point {name!r} of the group {STEPS.group} {problem}.",
            hint="Mend or uninstall the package that registers it.",
        )
    return loaded  # type: ignore[no-any-return]


def _problem(name: str, kind: object) -> str:
    """Why a plug-in can't be a step; empty where it can."""
    labels, places = [own.accuracy for own in _OWN if own.accuracy], [own.name for own in _OWN if not own.makes_dense]
    if not isinstance(kind, StepKind):
        return f"holds {kind!r}; expected a StepKind"
    if name in (*TAIL, REPEAT) or not is_name(name):
        return "has a name that pipelines can't have for a step"
    if kind.accuracy and (kind.accuracy not in labels or not kind.measures_accuracy):
        return (
            f"has the label {kind.accuracy!r} for its accuracy; expected one of {', '.join(labels)}, and a measurement"
        )
    if kind.place and kind.place not in places:
        return f"has the place {kind.place!r}; expected one of {', '.join(places)}, or none for the end"
    if kind.makes_dense:
        return "makes the dense network, which prunec's own step pretrain alone does"
    return "" if all(isinstance(rule, After) for rule in kind.after) else "has an order that isn't told by After(...)"


def steps_of_recipe(tables: Tables, target: Target, has_data: bool) -> dict[str, str]:
    """The steps that run where a recipe doesn't list them, in their order, each with what decides that.

    Filters are pruned; channels are permuted and weights masked to 2:4 where the target asks for it, and not elsewhere;
    the network is retrained where there are data, and calibrated for a target on grids. Of other steps, and of masks of
    other patterns, those with a table run.
    """
    order = list(_OWN)
    for kind in (step_kind(name) for name in tables if name not in OWN_STEPS):
        places = [position for position, other in enumerate(order) if other.name == kind.place]
        order.insert(places[0] if places else len(order), kind)
    by_target = (*_OF_SPARSE_TARGETS, CALIBRATE)
    by_table = [name for name in tables if name not in by_target or _masks_anywhere(name, tables)]
    decided = {name: f"table [recipe.{name}]" for name in by_table}
    decided |= {"prune-filters": "default"} | ({"recover": "default"} if has_data else {})
    decided |= dict.fromkeys(_OF_SPARSE_TARGETS, "target") if target.sparse else {}
    decided |= {CALIBRATE: "target"} if target.on_grids else {}
    return {kind.name: decided[kind.name] for kind in order if kind.name in decided}
