"""The layer table of the report: shapes, 2:4 sparsity as the exported model shows it, and the roofline."""

from collections.abc import Mapping

from prunec.compiler.facts.outcome import Exported, Steps
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import Permuted, Sparsified, facts_of, last_fact, whole_plan
from prunec.compiler.report.network_parts import LayerPart, LayerSparsityPart
from prunec.passes.applying import as_rewritten
from prunec.passes.branch_removal import branch_of_layers
from prunec.passes.cost import Layer
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.two_four import LayerEligibility, eligibility
from prunec.passes.unknown import Unknown
from prunec.runtime.onnx_sparsity import LayerSparsity
from prunec.runtime.roofline import Prediction, predict_layer

NOT_PERMUTED = "the pipeline has no step permute."
_NO_ORDER = Permuted({}, {}, {}, {}, ())
_NOT_RUN = Unknown("the engine was not run.")
_NOT_SPARSIFIED = Unknown("the pipeline has no step that sparsifies.")


def layer_parts(request: Request, steps: Steps, exported: Exported) -> tuple[LayerPart, ...]:
    """Every layer with a weight, once; what only an engine tells is put in later (`engine_facts`)."""
    by_layer: dict[str, list[LayerSparsity]] = {}
    for entry in exported.sparsity:
        by_layer.setdefault(entry.layer, []).append(entry)
    sparsity = _sparsity(steps, by_layer)
    before, after = request.dense.layers(), steps.program.layers()
    rows: dict[str, LayerPart] = {}
    left = iter(after)
    # No step adds a layer, or removes one but with its branch; one that folds weights names some anew.
    for dense, branch in zip(before, _branches(request.dense, whole_plan(steps.history)), strict=True):
        if branch is not None:
            rows.setdefault(dense.weight, _removed(dense, branch))
            continue
        compiled = next(left)
        calls = [layer for layer in after if layer.weight == compiled.weight]
        is_sparse = sparsity[compiled.weight].valid
        as_compiled, as_dense = (_predicted(request, calls, two_four) for two_four in (is_sparse, False))
        rows[dense.weight] = LayerPart.of(
            dense,
            compiled_shape=compiled.shape,
            kept=compiled.shape[0],
            sparsity=sparsity[compiled.weight],
            **dict.fromkeys(("dense_ms", "sparse_ms", "gain"), _NOT_RUN),
            predicted_dense_ms=as_dense if isinstance(as_dense, Unknown) else as_dense.ms,
            predicted_ms=as_compiled if isinstance(as_compiled, Unknown) else as_compiled.ms,
            predicted_bound=as_compiled if isinstance(as_compiled, Unknown) else as_compiled.bound,
            onnx_nodes=[entry.name for entry in by_layer.get(compiled.name, ())],
        )
    return tuple(rows.values())


def _branches(dense: Program, plan: PruningPlan) -> list[str | None]:
    """The branch that each layer of the dense network was removed with; None for those that are left."""
    if not plan.removed_branches:
        return [None] * len(dense.layers())
    return branch_of_layers(as_rewritten(dense, plan), [branch.name for branch in plan.removed_branches])


def _removed(layer: Layer, branch: str) -> LayerPart:
    gone = Unknown(f"the layer was removed with the branch {branch}.")
    unknown = ("sparsity", "dense_ms", "sparse_ms", "gain", "predicted_dense_ms", "predicted_ms", "predicted_bound")
    return LayerPart.of(layer, compiled_shape=(), kept=0, removed_with=branch, **dict.fromkeys(unknown, gone))


def _predicted(request: Request, calls: list[Layer], two_four: bool) -> Prediction | Unknown:
    """The roofline of all calls of one weight together; what bounds the longest of them bounds it."""
    target, batch = request.target, request.settings.latency_batch
    each = [predict_layer(call, target, batch, two_four=two_four and target.sparse) for call in calls]
    predictions = [prediction for prediction in each if prediction is not None]
    if len(predictions) < len(each):
        return Unknown(f"no source gives the peak rate of {target.info.title} in {target.precision} or its bandwidth.")
    longest = max(predictions, key=lambda prediction: prediction.ms)
    return Prediction(sum(prediction.ms for prediction in predictions), longest.bound)


def _sparsity(steps: Steps, exported: Mapping[str, list[LayerSparsity]]) -> dict[str, LayerSparsityPart]:
    """The sparsity of the exported model by weight, with the passes' reason where a layer was left dense."""
    return {
        entry.weight: _layer_sparsity(entry, exported.get(entry.layer, []), steps)
        for entry in eligibility(steps.program)
    }


def _layer_sparsity(entry: LayerEligibility, nodes: list[LayerSparsity], steps: Steps) -> LayerSparsityPart:
    node = nodes[-1] if nodes else None
    valid = node is not None and node.valid
    reason = entry.reason or ("" if valid else "not in the exported model" if node is None else node.reason)
    # A reason why the layer isn't 2:4 explains what is missing beside it; an `Unknown` does where there is none.
    absent = None if reason else _NOT_RUN
    unpermuted = None if reason else Unknown(NOT_PERMUTED)
    retained: dict[str, float] = {}
    for fact in facts_of(steps.history, Sparsified):
        retained |= fact.retained_magnitude
    order = last_fact(steps.history, Permuted) or _NO_ORDER
    return LayerSparsityPart.of(
        entry,
        valid=valid,
        reason=reason,
        retained_magnitude=retained.get(entry.layer, None if reason else _NOT_SPARSIFIED),
        retained_unpermuted=order.retained_before.get(entry.layer, unpermuted),
        permutation_gain=order.gain.get(entry.layer, unpermuted),
        efficacy=order.efficacy.get(entry.layer, unpermuted),
        likely_to_gain=node is not None and node.likely_to_gain,
        gain_rule="" if node is None else node.gain_rule,
        found_by_builder=absent,
        chosen_by_builder=absent,
    )
