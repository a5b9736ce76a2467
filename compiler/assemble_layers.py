"""The layer table of the report: shapes, and 2:4 sparsity as the exported model shows it."""

from prunec.compiler import report as r
from prunec.compiler.backend import exported_file
from prunec.compiler.compilation import Compilation
from prunec.passes.two_four import eligibility
from prunec.runtime.onnx_sparsity import check_sparsity

NOT_PERMUTED = "the pipeline has no step permute."


def report_layers(compilation: Compilation, reasons: dict[str, str]) -> tuple[r.Layer, ...]:
    """Every layer with a weight, once; adds to ``reasons`` why fields are null."""
    sparse = bool(compilation.program.masks)
    on_device = "needs the target device: kernels are chosen and timed there."
    reasons["layers.*.dense_ms"] = "layers were not timed; `prunec profile` times them."
    reasons["layers.*.sparse_ms"] = on_device if compilation.target.is_nvidia else "CPUs have no sparse kernels."
    reasons["layers.*.predicted_ms"] = "no latency is predicted in this version."
    if sparse:
        if compilation.permuted is None:
            reasons["layers.*.sparsity.efficacy"] = reasons["layers.*.sparsity.retained_unpermuted"] = NOT_PERMUTED
        reasons["layers.*.sparsity.found_by_builder"] = on_device
        reasons["layers.*.sparsity.chosen_by_builder"] = on_device
    else:
        reasons["layers.*.sparsity"] = "the pipeline has no step that sparsifies."
    sparsity = _layer_sparsity(compilation) if sparse else {}
    found = {}
    # No step adds or removes a layer; one that folds weights names some anew.
    for layer, compiled in zip(compilation.dense.layers(), compilation.program.layers(), strict=True):
        found[layer.weight] = r.Layer(
            name=layer.name,
            operator=layer.operator,
            shape=layer.shape,
            compiled_shape=compiled.shape,
            kept=compiled.shape[0],
            sparsity=sparsity.get(compiled.weight),
            dense_ms=None,
            sparse_ms=None,
            predicted_ms=None,
        )
    return tuple(found.values())


def _layer_sparsity(compilation: Compilation) -> dict[str, r.LayerSparsity]:
    """By weight: what the exported model shows, with the passes' reason where a layer was left dense."""
    exported = {entry.layer: entry for entry in check_sparsity(exported_file(compilation))}
    permuted, result = compilation.permuted, {}
    for entry in eligibility(compilation.program):
        seen = exported.get(entry.layer)
        valid = seen.valid if seen is not None else False
        reason = entry.reason or ("" if valid else (seen.reason if seen is not None else "not in the exported model"))
        result[entry.weight] = r.LayerSparsity(
            eligible=entry.eligible,
            valid=valid,
            reason=reason,
            retained_magnitude=compilation.retained_magnitude.get(entry.layer),
            retained_unpermuted=permuted.retained_before.get(entry.layer) if permuted else None,
            efficacy=permuted.efficacy.get(entry.layer) if permuted else None,
            likely_to_gain=seen.likely_to_gain if seen is not None else False,
            gain_rule=seen.gain_rule if seen is not None else "",
            found_by_builder=None,
            chosen_by_builder=None,
        )
    return result
