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
    cut = _cut(model, recorder.quantizers)
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / onnx_path.name
        save_onnx(model, path)
        with open_onnx(path, as_written=True) as session:
            for arrays, (args, kwargs) in runs:
                outputs = recorder.run(*flat_inputs(program.graph, args, kwargs))
                fed = [recorder.values[quantizer.node.name] for quantizer in recorder.quantizers]
                got = session(*arrays, *(value.numpy(force=True) for value in fed))
                computed = [recorder.values[recorder.quantizers[place].source.name] for place in cut.compared]
                actual = OutputForm.of(program.graph).of_arrays(got[: cut.outputs])
                between = [torch.from_numpy(np.asarray(each)) for each in got[cut.outputs :]]
                worst = max(worst, *relative_errors((actual, between), (outputs, computed)))
    return worst


@dataclass(frozen=True)
class _Cut:
    """A model that is cut at its quantizers.

    Attributes:
        outputs: Number of the network's own outputs; what reaches quantizers comes after them.
        compared: Positions of the quantizers that get something else than inputs of the network.
    """

    outputs: int
    compared: tuple[int, ...]


def _cut(model: onnx.ModelProto, own: list[Quantizer]) -> _Cut:
    """Give every quantizer of activations an input of its own, in place, and what reached it before as an output."""
    graph = model.graph
    nodes = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    grids = [[float(numpy_helper.to_array(constants[name])) for name in node.input[1:3]] for node in nodes]
    told = [[quantizer.grid.scale, quantizer.grid.zero_point] for quantizer in own if quantizer.grid is not None]
    if np.shape(grids) != np.shape(told) or not np.allclose(grids, told, rtol=_ROUNDED, atol=_LEAST):
        raise NumericMismatchError(f"The ONNX file has other grids than the program: {grids[:3]} and {told[:3]} ...")
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
            graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))
    return _Cut(len(outputs), tuple(compared))


class _Recorder(Interpreter):
    """Runs a program as it is exported; keeps what reaches its quantizers of activations and what they make of it."""

    def __init__(self, program: Program) -> None:
        graph = copied_graph(program.eval().graph)
        fold_clips(graph, program.tensors())
        super().__init__(GraphModule(program.module, graph))
        self.quantizers = list(_of_activations(graph))
        self._names = {node.name for quantizer in self.quantizers for node in (quantizer.source, quantizer.node)}
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """The value of a node, kept where it reaches a quantizer, or is its result."""
        value = super().run_node(n)
        if n.name in self._names:
            self.values[n.name] = value
        return value


def _of_activations(graph: Graph) -> list[Quantizer]:
    computed: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not computed.isdisjoint(node.all_input_nodes):
            computed.add(node)
    return [quantizer for quantizer in quantizers(graph) if quantizer.source in computed]
