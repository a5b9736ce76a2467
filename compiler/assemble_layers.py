"""The layer table of the report: shapes, 2:4 sparsity as the exported model shows it, and the roofline."""

from prunec.compiler import report as r
from prunec.compiler.backend import exported_file
from prunec.compiler.compilation import Compilation
from prunec.compiler.truth_table import engine_reasons, with_engine_facts
from prunec.passes.cost import Layer
from prunec.passes.two_four import eligibility
from prunec.runtime.onnx_sparsity import LayerSparsity, check_sparsity
from prunec.runtime.roofline import Prediction, predict_layer

NOT_PERMUTED = "the pipeline has no step permute."


def report_layers(compilation: Compilation, reasons: dict[str, str]) -> tuple[r.Layer, ...]:
    """Every layer with a weight, once; adds to ``reasons`` why fields are null."""
    sparse = bool(compilation.program.masks)
    exported: dict[str, list[LayerSparsity]] = {}
    for entry in check_sparsity(exported_file(compilation)):
        exported.setdefault(entry.layer, []).append(entry)
    sparsity = _layer_sparsity(compilation, exported) if sparse else {}
    dense, compiled = compilation.dense.layers(), compilation.program.layers()
    found = {}
    # No step adds or removes a layer; one that folds weights names some anew.
    for before, after in zip(dense, compiled, strict=True):
        calls = [layer for layer in compiled if layer.weight == after.weight]
        holds = sparsity[after.weight].valid if after.weight in sparsity else False
        as_compiled, as_dense = (_predicted(compilation, calls, two_four) for two_four in (holds, False))
        found[before.weight] = r.Layer(
            name=before.name,
            operator=before.operator,
            shape=before.shape,
            compiled_shape=after.shape,
            kept=after.shape[0],
            sparsity=sparsity.get(after.weight),
            dense_ms=None,
            sparse_ms=None,
            gain=None,
            predicted_dense_ms=as_dense.ms if as_dense else None,
            predicted_ms=as_compiled.ms if as_compiled else None,
            predicted_bound=as_compiled.bound if as_compiled else None,
            onnx_nodes=tuple(entry.name for entry in exported.get(after.name, ())),
        )
    rows = with_engine_facts(tuple(found.values()), compilation.engine, compilation.on_device)
    reasons.update(r.needed_reasons(_reasons(compilation, sparse), rows, "layers"))
    return rows


def _reasons(compilation: Compilation, sparse: bool) -> dict[str, str]:
    target = compilation.target
    unknown = f"no source gives the peak rate of {target.info.title} in {target.precision} or its bandwidth."
    reasons = {
        **engine_reasons(target, compilation.engine, compilation.on_device),
        **{f"layers.*.predicted_{name}": unknown for name in ("dense_ms", "ms", "bound")},
    }
    if not sparse:
        reasons["layers.*.sparsity"] = "the pipeline has no step that sparsifies."
    elif compilation.permuted is None:
        for name in ("efficacy", "retained_unpermuted", "permutation_gain"):
            reasons[f"layers.*.sparsity.{name}"] = NOT_PERMUTED
    return reasons


def _predicted(compilation: Compilation, calls: list[Layer], two_four: bool) -> Prediction | None:
    """Of all calls of one weight together; what bounds the longest of them bounds it."""
    settings, target = compilation.settings, compilation.target
    two_four = two_four and target.sparse
    each = [predict_layer(call, target, settings.latency_batch, two_four=two_four) for call in calls]
    known = [prediction for prediction in each if prediction is not None]
    if len(known) < len(each):
        return None
    longest = max(known, key=lambda prediction: prediction.ms)
    return Prediction(sum(prediction.ms for prediction in known), longest.bound)


def _layer_sparsity(compilation: Compilation, exported: dict[str, list[LayerSparsity]]) -> dict[str, r.LayerSparsity]:
    """By weight: what the exported model shows, with the passes' reason where a layer was left dense."""
    permuted, result = compilation.permuted, {}
    for entry in eligibility(compilation.program):
        seen = exported[entry.layer][-1] if entry.layer in exported else None
        valid = seen.valid if seen is not None else False
        reason = entry.reason or ("" if valid else (seen.reason if seen is not None else "not in the exported model"))
        result[entry.weight] = r.LayerSparsity(
            eligible=entry.eligible,
            valid=valid,
            reason=reason,
            retained_magnitude=compilation.retained_magnitude.get(entry.layer),
            retained_unpermuted=permuted.retained_before.get(entry.layer) if permuted else None,
            permutation_gain=permuted.gain.get(entry.layer) if permuted else None,
            efficacy=permuted.efficacy.get(entry.layer) if permuted else None,
            likely_to_gain=seen.likely_to_gain if seen is not None else False,
            gain_rule=seen.gain_rule if seen is not None else "",
            found_by_builder=None,
            chosen_by_builder=None,
        )
    return result
