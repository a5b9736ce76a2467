"""Layers of a built engine, from the JSON of TensorRT's engine inspector.

Keys that are read: "Layers", each with "Name", and under detailed profiling verbosity "TacticName", the kernel, and
"Metadata", which lists the ONNX nodes. They are the same before and after TensorRT 11.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from prunec.runtime.engines.sparsity_log import parts

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: as TensorRT's profiler reports it.
        nodes: ONNX nodes that it computes.
        tactic: name of the kernel; "" where it isn't told.
        sparse_kernel: whether that kernel is a sparse one; None where it isn't told.
    """

    name: str
    nodes: frozenset[str]
    tactic: str
    sparse_kernel: bool | None


def parse_engine_layers(text: str) -> list[EngineLayer]:
    """Layers in the order of execution.

    Args:
        text: what ``get_engine_information(LayerInformationFormat.JSON)`` gives; without detailed verbosity its
            layers are bare names.
    """
    return [_layer(entry) for entry in json.loads(text).get("Layers", [])]


def _layer(entry: str | dict[str, Any]) -> EngineLayer:
    if isinstance(entry, str):
        return EngineLayer(entry, frozenset(parts(entry)), "", None)
    name, tactic = str(entry.get("Name", "")), str(entry.get("TacticName", ""))
    nodes = frozenset(_ONNX_LAYER.findall(str(entry.get("Metadata", "")))) or frozenset(parts(name))
    return EngineLayer(name, nodes, tactic, "sparse" in tactic.lower() if tactic else None)
