"""What differs between two ONNX files that should hold the same network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from prunec.passes.errors import InputError, first_line

#: Largest difference of a weight, over the largest magnitude of its tensor: machines round folded weights otherwise.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class OnnxDifference:
    """The first difference of two files in words, and whether it is one of operators or shapes, not of weights."""

    text: str
    is_structural: bool


def onnx_difference(expected: Path, got: Path) -> OnnxDifference | None:
    """The first difference of two files that is more than rounding; None where there is none.

    Raises:
        InputError: A file can't be read.
    """
    first, second = (_graph(path) for path in (expected, got))
    for a, b in zip_longest(_described(first), _described(second), fillvalue=("nothing", b"")):
        if a[1] != b[1]:
            return OnnxDifference(f"{b[0]} where {a[0]} is expected", is_structural=True)
    return _of_weights(first, second)


def weights_difference(expected: Path, got: Path) -> OnnxDifference | None:
    """The first weight that two files both have, by name, in other values or another shape; None where there is none.

    Raises:
        InputError: A file can't be read.
    """
    return _of_weights(_graph(expected), _graph(got))


def _of_weights(expected: onnx.GraphProto, got: onnx.GraphProto) -> OnnxDifference | None:
    present = {weight.name: weight for weight in got.initializer}
    for weight in expected.initializer:
        if weight.name not in present:
            continue
        want, have = (numpy_helper.to_array(w).astype(np.float64) for w in (weight, present[weight.name]))
        limit = _ROUNDING * np.abs(want).max(initial=0.0)
        if have.shape != want.shape:
            return OnnxDifference(f"the weight {weight.name} has shape {have.shape}, expected {want.shape}", False)
        if not np.allclose(have, want, rtol=0, atol=limit, equal_nan=True):
            return OnnxDifference(f"the weight {weight.name} differs by {np.abs(have - want).max():.2g}", False)
    return None


def _graph(path: Path) -> onnx.GraphProto:
    try:
        return onnx.load(path).graph
    except Exception as error:
        raise InputError(f"{path} can't be read as an ONNX file: {first_line(error)}.") from error


def _described(graph: onnx.GraphProto) -> Iterator[tuple[str, bytes]]:
    """Inputs, outputs, weights without their values, and nodes: in words, and all that they are.

    The order of weights, names of nodes and names of values between nodes say nothing of a network, and are left out.
    """
    for value in (*graph.input, *graph.output):
        yield f"the value {value.name}", value.SerializeToString(deterministic=True)
    for weight in sorted(graph.initializer, key=lambda weight: weight.name):
        shape = list(weight.dims)
        yield f"the weight {weight.name} {shape}", f"{weight.name} {weight.data_type} {shape}".encode()
    yield from _described_nodes(graph, {})


def _described_nodes(graph: onnx.GraphProto, outer: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Nodes with the values between them called by the numbers of the nodes; ``outer``: those of the graph around."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    names = dict(outer)
    for number, node in enumerate(graph.node):
        names |= {
            name: f"{number}.{len(outer)}.{k}" for k, name in enumerate(node.output) if name and name not in fixed
        }
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.name = ""
        plain.input[:] = [names.get(name, name) for name in node.input]
        plain.output[:] = [names.get(name, name) for name in node.output]
        bodies = [body for attribute in plain.attribute for body in (attribute.g, *attribute.graphs) if body.node]
        inner = [part for body in bodies for _, part in _described_nodes(body, names)]
        for body in bodies:
            del body.node[:]
        yield (
            f"the operator {node.op_type} {node.name}",
            b"".join([plain.SerializeToString(deterministic=True), *inner]),
        )
