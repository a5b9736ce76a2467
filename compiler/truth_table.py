"""What a layer's row of the truth table knows of the engine: the builder's word on sparse kernels, and measured times.

Both `prunec compile` and `prunec build` fill it in; what can't be known has a reason instead.
"""

from collections.abc import Mapping, Sequence

from prunec.compiler.report import Layer, LayerSparsity
from prunec.runtime.engines.building import EngineInfo
from prunec.runtime.engines.measuring import DeviceMeasurement
from prunec.runtime.target import Target

#: Fields that are filled in here, which reasons may be for.
FIELDS = (
    "layers.*.dense_ms",
    "layers.*.sparse_ms",
    "layers.*.gain",
    "layers.*.sparsity.found_by_builder",
    "layers.*.sparsity.chosen_by_builder",
)
_FUSED = "the engine computes the layer together with others, so that their times can't be told apart."


def with_engine_facts(
    layers: Sequence[Layer], engine: EngineInfo | None, measured: DeviceMeasurement | None
) -> tuple[Layer, ...]:
    """Rows with what the builder said and what was measured on the device; null where neither knows."""
    return tuple(_with_times(_with_builder(layer, engine, measured), measured) for layer in layers)


def engine_reasons(target: Target, engine: EngineInfo | None, measured: DeviceMeasurement | None) -> dict[str, str]:
    """Why fields that `with_engine_facts` leaves null are null, by dotted path."""
    if not target.is_nvidia:
        times = "layers are not timed on CPUs here; `prunec profile` times them."
        no_kernels = "CPUs have no sparse kernels."
        reasons = (times, no_kernels, no_kernels, no_kernels, no_kernels)
    else:
        builder, away = _builder_reason(engine), "needs the target device: kernels are chosen and timed there."
        unmeasured = away if measured is None else _FUSED
        sparse = unmeasured if target.sparse else "the target is dense."
        chosen = builder if measured is None else f"{builder} The engine's inspector doesn't name its kernel."
        reasons = (unmeasured, sparse, sparse, builder, chosen)
    return dict(zip(FIELDS, reasons, strict=True))


def _builder_reason(engine: EngineInfo | None) -> str:
    if engine is None:
        return "no engine was built."
    if engine.kind == "tensorrt_rtx":
        return "TensorRT-RTX chooses kernels when it loads an engine on the device, and says nothing of them before."
    return "the builder's log says nothing of sparse kernels."


def _with_builder(layer: Layer, engine: EngineInfo | None, measured: DeviceMeasurement | None) -> Layer:
    if layer.sparsity is None:
        return layer
    said = engine.sparsity if engine is not None else None
    found = None if said is None else any(map(said.has_found, layer.onnx_nodes))
    chosen = None if said is None else any(map(said.has_chosen, layer.onnx_nodes))
    if chosen is None and measured is not None:
        kernels = [measured.sparse_kernel.get(node) for node in layer.onnx_nodes]
        chosen = None if None in kernels or not kernels else any(kernels)
    sparsity: LayerSparsity = layer.sparsity.model_copy(update={"found_by_builder": found, "chosen_by_builder": chosen})
    return layer.model_copy(update={"sparsity": sparsity})


def _with_times(layer: Layer, measured: DeviceMeasurement | None) -> Layer:
    dense = sparse = None
    if measured is not None:
        dense, sparse = (_total(times, layer.onnx_nodes) for times in (measured.dense_ms, measured.sparse_ms))
    gain = dense / sparse if dense is not None and sparse else None
    return layer.model_copy(update={"dense_ms": dense, "sparse_ms": sparse, "gain": gain})


def _total(times_ms: Mapping[str, float], nodes: Sequence[str]) -> float | None:
    """Of all nodes of a layer; None where one isn't known."""
    known = [times_ms[node] for node in nodes if node in times_ms]
    return sum(known) if known and len(known) == len(nodes) else None
