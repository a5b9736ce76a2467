"""Comparison of a quantized ONNX file with its program from grid to grid.

A value that lies between two steps of a grid goes to the one or the other by the last bit of a sum, and everything that
is computed of it moves along: outputs of deep networks differ, though every operator is right. So the file's quantizers
are given torch's own values, as its grids have them, and what is computed up to the next ones, or the outputs, is
compared; scales and zero points are compared as such.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

from prunec.passes.errors import NumericMismatchError
from prunec.passes.feeding import flat_inputs
from prunec.passes.graphs import copied_graph
from prunec.passes.oracle import relative_errors
from prunec.passes.outputs import OutputForm
from prunec.passes.program import Program
from prunec.passes.quantization.placement import from_inputs
from prunec.passes.quantization.quantizers import Quantizer, fold_clips, quantizers
from prunec.passes.tensors import Inputs
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.onnx_files import save_onnx

#: Relative and absolute error of a scale in float16.
_ROUNDED, _LEAST = 2.0**-10, 2.0**-24
Arguments = tuple[list[NDArray[Any]], Inputs]


def difference_between_grids(program: Program, onnx_path: Path, runs: list[Arguments]) -> float:
    """Largest relative difference of ONNX Runtime from torch over all that is computed between grids.

    Args:
        program: The program, which is quantized.
        onnx_path: Its float32 ONNX file.
        runs: The inputs of every run, as arrays in their order and as the program's arguments.

    Returns:
        max|a-b| / max|b|.

    Raises:
        NumericMismatchError: The file has other grids than the program, or values are not finite.
        NativeCrashError: ONNX Runtime dies.
    """
    recorder, model = _Recorder(program), onnx.load(onnx_path)
    given = [(arrays, flat_inputs(program.graph, *inputs)) for arrays, inputs in runs]
    recorder.run(*given[0][1])
    cut = _cut(model, _aligned(recorder, _grids(model)))
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / onnx_path.name
        save_onnx(model, path)
        with open_onnx(path, as_written=True) as session:
            for arrays, arguments in given:
                outputs = recorder.run(*arguments)
                fed = [recorder.values[own[0].node.name] for own in cut.own]
                got = session(*arrays, *(value.numpy(force=True) for value in fed))
                actual = OutputForm.of(program.graph).of_arrays(got[: cut.outputs])
                between = zip(got[cut.outputs :], [cut.own[place] for place in cut.compared], strict=True)
                pairs = [
                    (torch.from_numpy(np.asarray(value)), recorder.values[each.source.name])
                    for value, own in between for each in own
                ]  # fmt: skip
                values, computed = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
                worst = max(worst, *relative_errors((actual, values), (outputs, computed)))
    return worst


def _grids(model: onnx.ModelProto) -> list[tuple[float, float]]:
    """Scale and zero point of every quantizer of a file, whose weights are stored as whole numbers."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    nodes = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    grids = [tuple(numpy_helper.to_array(constants[name]) for name in node.input[1:3]) for node in nodes]
    if any(each.ndim for grid in grids for each in grid):
        raise NumericMismatchError("The ONNX file has grids of channels that belong to no stored weight.")
    return [(float(scale), float(zero_point)) for scale, zero_point in grids]


def _aligned(recorder: "_Recorder", grids: list[tuple[float, float]]) -> list[list[Quantizer]]:
    """The program's quantizers that each of the file's stands for.

    Both are in the order of execution. The exporter makes one of equal ones: of those with one grid and, in a run, one
    value the file has the first, and has the others or doesn't.

    Args:
        recorder: The program, after a run.
        grids: Scale and zero point of the file's quantizers.

    Raises:
        NumericMismatchError: The file has other grids than the program.
    """
    own = [(quantizer, quantizer.grid) for quantizer in recorder.quantizers if quantizer.grid is not None]
    alike = [_first_alike(recorder, place) for place in range(len(own))]
    told = [(grid.scale, float(grid.zero_point)) for _, grid in own]
    # fits[i][k]: whether the program's quantizers from the i-th on can be those of the file from the k-th on
    fits = np.zeros((len(own) + 1, len(grids) + 1), dtype=bool)
    fits[-1, -1] = True
    same = _same_grids(told, grids)
    for at in reversed(range(len(own))):
        fits[at, :-1] = same[at] & fits[at + 1, 1:]
        if alike[at] < at:
            fits[at] |= fits[at + 1]
    if not fits[0, 0]:
        raise NumericMismatchError(f"The ONNX file has other grids than the program: {grids[:3]} and {told[:3]} ...")
    result: list[list[Quantizer]] = []
    place_of: dict[int, int] = {}
    for at, (quantizer, _) in enumerate(own):
        if alike[at] < at and fits[at + 1, len(result)]:
            result[place_of[alike[at]]].append(quantizer)
        else:
            place_of[at] = len(result)
            result.append([quantizer])
    return result


def _same_grids(told: list[tuple[float, float]], grids: list[tuple[float, float]]) -> NDArray[np.bool_]:
    """Whether each grid of a program (rows) is each of a file (columns), but for float16's rounding."""
    ours, theirs = np.reshape(told, (-1, 1, 2)), np.reshape(grids, (1, -1, 2))
    same: NDArray[np.bool_] = np.isclose(theirs, ours, rtol=_ROUNDED, atol=_LEAST).all(-1)
    return same


def _first_alike(recorder: "_Recorder", place: int) -> int:
    """The place of the first quantizer with the grid of that at a place, and with its value in the last run."""
    own = recorder.quantizers[place]
    value = recorder.values[own.source.name]
    return next(
        at for at, other in enumerate(recorder.quantizers[: place + 1])
        if other.grid == own.grid and torch.equal(recorder.values[other.source.name], value)
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Cut:
    """A model that is cut at its quantizers.

    Attributes:
        own: The program's quantizers that each of the model's stands for.
        outputs: Number of the network's own outputs; what reaches quantizers comes after them.
        compared: Positions of the quantizers that get something else than inputs of the network.
    """

    own: list[list[Quantizer]]
    outputs: int
    compared: tuple[int, ...]


def _cut(model: onnx.ModelProto, own: list[list[Quantizer]]) -> _Cut:
    """Give every quantizer an input of its own, in place, and what reached it before as an output."""
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    inputs, outputs, compared = {value.name for value in graph.input}, [value.name for value in graph.output], []
    for place, node in enumerate(nodes):
        value, fed = node.input[0], f"torch_value_{place}"
        graph.input.append(helper.make_tensor_value_info(fed, TensorProto.FLOAT, None))
        node.input[0] = fed
        if value not in inputs:
            compared.append(place)
            if value in outputs:  # a model has each of its values as an output once
                graph.node.append(helper.make_node("Identity", [value], [f"{fed}_before"]))
                value = f"{fed}_before"
            outputs.append(value)
            graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    return _Cut(own, len(outputs) - len(compared), tuple(compared))


class _Recorder(Interpreter):
    """Runs a program as it is exported; keeps what reaches its quantizers of activations and what they make of it."""

    def __init__(self, program: Program) -> None:
        graph = copied_graph(program.eval().graph)
        fold_clips(graph, program.tensors())
        super().__init__(GraphModule(program.module, graph))
        self.quantizers = _of_activations(graph)
        self._names = {node.name for quantizer in self.quantizers for node in (quantizer.source, quantizer.node)}
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """The value of a node, kept where it reaches a quantizer, or is its result."""
        value = super().run_node(n)
        if n.name in self._names:
            self.values[n.name] = value
        return value


def _of_activations(graph: Graph) -> list[Quantizer]:
    """The quantizers of a graph whose values depend on its inputs, in the order of execution."""
    activations = from_inputs(graph)
    return [quantizer for quantizer in quantizers(graph) if quantizer.source in activations]
