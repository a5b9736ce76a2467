"""The layer table of the report: shapes, 2:4 sparsity as the exported model shows it, and the roofline."""

from collections.abc import Callable, Mapping

from prunec.compiler.facts.outcome import Exported, Steps
from prunec.compiler.facts.pass_facts import Permuted, Sparsified
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import facts_of, last_fact, whole_plan
from prunec.compiler.report.network_parts import LayerPart, LayerSparsityPart
from prunec.passes.applying import as_rewritten
from prunec.passes.branch_removal import branch_of_layers
from prunec.passes.cost import Layer
from prunec.passes.costs.counting import work_of
from prunec.passes.factors import factor_names
from prunec.passes.patterns.eligibility import LayerEligibility, eligibility
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime.costs.roofline import Prediction, roofline_costs, weights_in_float
from prunec.runtime.onnx_sparsity import LayerSparsity

NOT_PERMUTED = "the pipeline has no step permute."
#: What is told of layers that the compiled network has.
_OF_COMPILED = ("sparsity", "dense_ms", "sparse_ms", "gain", "predicted_dense_ms", "predicted_ms", "predicted_bound")
_NO_ORDER = Permuted({}, {}, {}, {}, ())
_NO_ORDER_SEARCHED = "no order of its channels was searched for."
_NOT_RUN = Unknown("the engine was not run.")
_OTHER_KERNEL = Unknown("it runs in the kernel of the layer's first weight.")
_NOT_SPARSIFIED = Unknown("the pipeline has no step that sparsifies.")


def layer_parts(request: Request, steps: Steps, exported: Exported) -> tuple[LayerPart, ...]:
    """Every layer with a weight, once; what only an engine tells is put in later (`engine_facts`)."""
    by_layer: dict[str, list[LayerSparsity]] = {}
    for entry in exported.sparsity:
        by_layer.setdefault(entry.layer, []).append(entry)
    sparsity = _sparsity(steps, by_layer)
    before, left = request.dense.layers(), iter(steps.program.layers())
    sparse = frozenset(weight for weight, part in sparsity.items() if part.valid and request.target.sparse)
    as_dense, as_compiled = (_predicted(request, steps, weights) for weights in (frozenset[str](), sparse))

    def row(compiled: Layer, **further: object) -> LayerPart:
        predicted, predicted_dense = as_compiled(compiled.weight), as_dense(compiled.weight)
        return LayerPart.of(
            compiled,
            compiled_shape=compiled.shape,
            kept=compiled.shape[0],
            sparsity=sparsity[compiled.weight],
            **dict.fromkeys(("dense_ms", "sparse_ms", "gain"), _NOT_RUN),
            predicted_dense_ms=predicted_dense if isinstance(predicted_dense, Unknown) else predicted_dense.ms,
            predicted_ms=predicted if isinstance(predicted, Unknown) else predicted.ms,
            predicted_bound=predicted if isinstance(predicted, Unknown) else predicted.kernel_bound,
            onnx_nodes=[entry.name for entry in by_layer.get(compiled.name, ())],
            **further,
        )

    plan = whole_plan(steps.history)
    ranks = {factor_names(weight)[0]: rank for weight, rank in plan.ranks.items()}
    rows: dict[str, LayerPart] = {}
    # No step adds a layer but by decomposing one, or removes one but with its branch; one that folds names some anew.
    for dense, branch in zip(before, _branches(request.dense, plan), strict=True):
        if branch is not None:
            rows.setdefault(dense.weight, _removed(dense, branch))
            continue
        compiled = next(left)
        if (rank := ranks.get(compiled.weight)) is None:
            rows[dense.weight] = row(compiled, name=dense.name, operator=dense.operator, shape=dense.shape)
            continue
        pair = compiled, next(left)
        rows[dense.weight] = _decomposed(dense, rank, *pair)
        rows |= {each.weight: row(each, shape=(), factor_of=dense.name) for each in pair}
    return tuple(rows.values())


def _predicted(request: Request, steps: Steps, sparse: frozenset[str]) -> Callable[[str], Prediction | Unknown]:
    """The roofline of the layer that has a weight, all its calls together."""
    in_float = weights_in_float(steps.program)
    costs = roofline_costs(request.target, request.settings.latency_batch, sparse, in_float)
    if isinstance(costs, Unknown):
        return lambda _: costs
    predictions = costs.by_weight(work_of(steps.program))
    return lambda weight: predictions.get(weight, _OTHER_KERNEL)


def _branches(dense: Program, plan: PruningPlan) -> list[str | None]:
    """The branch that each layer of the dense network was removed with; None for those that are left."""
    if not plan.removed_branches:
        return [None] * len(dense.layers())
    return branch_of_layers(as_rewritten(dense, plan), [branch.name for branch in plan.removed_branches])


def _removed(layer: Layer, branch: str) -> LayerPart:
    gone = Unknown(f"the layer was removed with the branch {branch}.")
    return LayerPart.of(layer, compiled_shape=(), kept=0, removed_with=branch, **dict.fromkeys(_OF_COMPILED, gone))


def _decomposed(layer: Layer, rank: int, first: Layer, second: Layer) -> LayerPart:
    """The row of a layer of which two stand in the place, which have rows of their own."""
    shape = (second.shape[0], *first.shape[1:])
    two = Unknown(f"{first.name} and {second.name} stand in its place.")
    return LayerPart.of(layer, compiled_shape=shape, kept=shape[0], rank=rank, **dict.fromkeys(_OF_COMPILED, two))


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
    permuted = last_fact(steps.history, Permuted)
    unpermuted = None if reason else Unknown(NOT_PERMUTED if permuted is None else _NO_ORDER_SEARCHED)
    retained: dict[str, float] = {}
    for fact in facts_of(steps.history, Sparsified):
        retained |= fact.retained_magnitude
    order = permuted or _NO_ORDER
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
