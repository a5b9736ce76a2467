"""Facts about one layer in an engine: the builder's word on sparse kernels, and measured times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunec.passes.unknown import Unknown
from prunec.runtime.engines.measuring import Measurement
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.protocol import EngineInfo, EngineKind
from prunec.runtime.engines.sparsity_log import BuilderSparsity
from prunec.runtime.target import Target

_FUSED = Unknown("the engine computes the layer together with others, so that their times can't be told apart.")
_NO_ENGINE = Unknown("no engine was built.")


@dataclass(frozen=True)
class LayerFacts:
    """The figures of one layer, each known or with the reason why it isn't.

    Attributes:
        dense_ms: Milliseconds without sparse kernels.
        sparse_ms: Milliseconds in the engine itself.
        gain: ``dense_ms`` over ``sparse_ms``.
        found_by_builder: Whether the builder tried sparse kernels for it.
        chosen_by_builder: Whether a sparse kernel runs it.
    """

    dense_ms: float | Unknown
    sparse_ms: float | Unknown
    gain: float | Unknown
    found_by_builder: bool | Unknown
    chosen_by_builder: bool | Unknown


def layer_facts(
    kind: EngineKind, target: Target, engine: EngineInfo | None, measured: Measurement | None, nodes: Sequence[str]
) -> LayerFacts:
    """The facts about a layer, each a figure or the reason why it is unknown.

    Args:
        kind: The engine's kind, or the one that would build it.
        target: The engine's target.
        engine: The engine; None where none was built.
        measured: The engine's figures; None where it wasn't run.
        nodes: The ONNX nodes that compute the layer.
    """
    with ENGINES.blame(kind.name):
        never = kind.why_no_sparse_kernels(target)
        untimed = Unknown(kind.why_not_timed(target))
    dense_ms = _total(untimed if measured is None else measured.dense_ms, nodes)
    sparse_ms = Unknown(never) if never else _total(untimed if measured is None else measured.sparse_ms, nodes)
    tried_and_chosen = _sparse_kernels(_NO_ENGINE if engine is None else engine.sparsity, never, measured, nodes)
    return LayerFacts(dense_ms, sparse_ms, _gain(dense_ms, sparse_ms), *tried_and_chosen)


def _total(times_ms: Mapping[str, float] | Unknown, nodes: Sequence[str]) -> float | Unknown:
    """Milliseconds of all nodes of a layer together."""
    if isinstance(times_ms, Unknown):
        return times_ms
    if not nodes or not times_ms.keys() >= set(nodes):
        return _FUSED
    return sum(times_ms[node] for node in nodes)


def _gain(dense_ms: float | Unknown, sparse_ms: float | Unknown) -> float | Unknown:
    if isinstance(sparse_ms, Unknown):
        return sparse_ms
    if isinstance(dense_ms, Unknown):
        return dense_ms
    return dense_ms / sparse_ms if sparse_ms else Unknown("the layer took less time than the profiler can tell.")


def _sparse_kernels(
    said: BuilderSparsity | Unknown, never: str, measured: Measurement | None, nodes: Sequence[str]
) -> tuple[bool | Unknown, bool | Unknown]:
    """Whether the builder tried sparse kernels for a layer, and whether one runs it."""
    if not isinstance(said, Unknown):
        return any(map(said.has_tried, nodes)), any(map(said.has_chosen, nodes))
    if never:
        return Unknown(never), Unknown(never)
    if measured is None:
        return said, said
    if nodes and measured.sparse_kernel.keys() >= set(nodes):
        return said, any(measured.sparse_kernel[node] for node in nodes)
    return said, Unknown(f"{said.reason} The loaded engine doesn't name its kernel either.")
