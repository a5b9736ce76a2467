"""Layers of a built engine, from the JSON of TensorRT's engine inspector.

The keys that are read are "Layers", each with "Name", and under detailed profiling verbosity "TacticName", the kernel,
and "Metadata", which lists the ONNX nodes. They are the same before and after TensorRT 11.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunec.runtime.engines.sparsity_log import parts

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: Name that TensorRT's profiler reports.
        nodes: ONNX nodes that the layer computes.
        tactic: Name of the kernel; "" where the inspector doesn't tell.
        sparse_kernel: Whether that kernel is a sparse one; None where the inspector doesn't tell.
    """

    name: str
    nodes: frozenset[str]
    tactic: str
    sparse_kernel: bool | None


def parse_engine_layers(text: str) -> list[EngineLayer]:
    """Layers in the order of execution, from ``get_engine_information(LayerInformationFormat.JSON)``.

    Without detailed verbosity the layers in that text are bare names.
    """
    return [_layer(entry) for entry in json.loads(text).get("Layers", [])]


def _layer(entry: str | dict[str, Any]) -> EngineLayer:
    if isinstance(entry, str):
        return EngineLayer(entry, frozenset(parts(entry)), "", None)
    name, tactic = str(entry.get("Name", "")), str(entry.get("TacticName", ""))
    nodes = frozenset(_ONNX_LAYER.findall(str(entry.get("Metadata", "")))) or frozenset(parts(name))
    return EngineLayer(name, nodes, tactic, "sparse" in tactic.lower() if tactic else None)


def node_times(layers: Sequence[EngineLayer], times_ms: Mapping[str, float], nodes: Sequence[str]) -> dict[str, float]:
    """Milliseconds by weighted ONNX node, from those by the name of a layer.

    A node that several layers of the engine compute has the sum of their times. One that shares a layer with another of
    the nodes has none, since nobody can tell their times apart.
    """
    result: dict[str, float] = {}
    for node in nodes:
        mine = [layer for layer in layers if node in layer.nodes]
        shared = any(len(layer.nodes.intersection(nodes)) > 1 for layer in mine)
        if mine and not shared and all(layer.name in times_ms for layer in mine):
            result[node] = sum(times_ms[layer.name] for layer in mine)
    return result


def sparse_kernels(layers: Sequence[EngineLayer], nodes: Sequence[str]) -> dict[str, bool]:
    """Whether a sparse kernel runs an ONNX node, by node; those of which no layer tells are left out."""
    told = {node: [layer.sparse_kernel for layer in layers if node in layer.nodes] for node in nodes}
    return {node: any(kernels) for node, kernels in told.items() if any(kernels) or (kernels and None not in kernels)}
