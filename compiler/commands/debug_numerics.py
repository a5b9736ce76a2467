"""``prunec debug numerics``: where along a bundle's network its forms begin to differ."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from prunec.compiler.bundle.bundle_names import MODEL_ONNX, MODEL_PT2, TYPED_ONNX
from prunec.compiler.bundle.bundle_reader import bundle_onnx, bundle_program, intact_bundle
from prunec.passes.cost import Layer, layer_calls
from prunec.passes.feeding import flat_inputs
from prunec.passes.program import Program
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.quantizers import is_quantized, quantizers, without_quantizers
from prunec.runtime import children
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.numerics import as_arguments, batch_sizes, random_inputs
from prunec.runtime.onnx_files import save_onnx
from prunec.runtime.onnx_precision import to_fp32
from prunec.runtime.onnx_sparsity import check_sparsity

#: Relative error from which a layer on grids departs from the one in float32, by precision: what rounding makes of a
#: layer, and of those before it: twelve linear layers of random weights in a row differ by 0.045, 0.14 and 0.39.
GRIDS_THRESHOLDS: Mapping[str, float] = {"int8": 0.1, "fp8": 0.2, "int4": 0.5}
#: Relative error from which a layer of an ONNX file departs from the one in torch: in float32; on grids, where values
#: on the border of two numbers fall to either side, which layers behind carry on; and in 16 bits, by precision.
EXPORT_THRESHOLD, GRIDS_EXPORT_THRESHOLD = 1e-4, 0.02
TYPED_THRESHOLDS: Mapping[str, float] = {"fp16": 0.02, "bf16": 0.1, "int8": 0.05, "fp8": 0.05, "int4": 0.02}
_ON_GRIDS = "values on grids against float32, in torch"
_BATCH = 2
LayerValues = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class LayerDifference:
    """The difference of one call of a layer.

    Attributes:
        layer: Path of the layer.
        operator: ATen operator.
        relative_error: Root of the squared differences over that of the squared expected values; None where one of the
            two has values that are not finite.
        departs: Whether that is above the threshold.
    """

    layer: str
    operator: str
    relative_error: float | None
    departs: bool


@dataclass(frozen=True)
class NumericsComparison:
    """Two forms of a bundle's network, compared layer by layer in the order of execution.

    Attributes:
        bundle: Folder of the bundle.
        compared: The two forms, in words.
        threshold: Relative error from which a layer departs.
        first: The first layer that departs; None where none does.
        layers: The layers that both forms have.
        left_out: Layers that the ONNX file computes in another way, so that there is nothing to compare.
        exported: The ONNX file in float32 of a network on grids against the same network in torch; None for others.
        typed: The ONNX file that the engine is built from against the network in torch, where that is another file than
            the one in float32: its numbers of 16 bits are as they were rounded, and computed with in float32.
    """

    bundle: str
    compared: str
    threshold: float
    first: str | None
    layers: tuple[LayerDifference, ...]
    left_out: tuple[str, ...]
    exported: "NumericsComparison | None" = None
    typed: "NumericsComparison | None" = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def debug_numerics(path: Path, *, seed: int = 0, threshold: float | None = None) -> NumericsComparison:
    """Compare the ONNX files of a bundle with its network in torch, and a quantized one with the one in float32 first.

    All of them run on the same random inputs, two samples of the form that is known of the network's.

    Args:
        path: The bundle's folder.
        seed: Seed of the inputs.
        threshold: Relative error from which a layer departs; by default `GRIDS_THRESHOLDS`, of the float32 file
            `GRIDS_EXPORT_THRESHOLD`, `EXPORT_THRESHOLD` where nothing is on grids, and of another `TYPED_THRESHOLDS`.

    Raises:
        InputError: There is no intact bundle.
        NativeCrashError: ONNX Runtime dies.
    """
    bundle = intact_bundle(path)
    program = bundle_program(bundle.folder)
    on_grids = is_quantized(program.graph)
    inputs = random_inputs(program, batch_sizes(program, (_BATCH,))[0], seed)
    program = program if on_grids else fold_batch_norms(program).program  # as the export does
    layers, expected = list(layer_calls(program.graph)), _in_torch(program, inputs)

    def of_file(file: Path, limit: float) -> NumericsComparison:
        values = _in_onnx(file, layers, inputs), expected
        compared = f"{file.name} under ONNX Runtime against {MODEL_PT2} in torch"
        return _comparison(path, compared, layers, values, limit if threshold is None else threshold)

    exported = of_file(bundle.folder / MODEL_ONNX, GRIDS_EXPORT_THRESHOLD if on_grids else EXPORT_THRESHOLD)
    typed = _typed_comparison(bundle.folder, of_file)
    if not on_grids:
        return replace(exported, typed=typed)
    limit = GRIDS_THRESHOLDS[next(quantizers(program.graph)).precision] if threshold is None else threshold
    values = expected, _in_torch(without_quantizers(program), inputs)
    return replace(_comparison(path, _ON_GRIDS, layers, values, limit), exported=exported, typed=typed)


def _typed_comparison(folder: Path, of_file: Callable[[Path, float], NumericsComparison]) -> NumericsComparison | None:
    """The comparison of the file in 16 bits that the engine is built from; None where that is the one in float32."""
    typed = bundle_onnx(folder)
    precision = next((each for each, name in TYPED_ONNX.items() if name == typed.name), None)
    if precision is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        widened = Path(scratch) / typed.name
        children.call(f"ONNX read {typed.name}", to_fp32, typed.absolute(), widened)
        return of_file(widened, TYPED_THRESHOLDS[precision])


def _comparison(
    path: Path, compared: str, layers: list[tuple[Node, Layer]], values: tuple[LayerValues, LayerValues], limit: float
) -> NumericsComparison:
    """What the layers of two forms yield, compared."""
    got, expected = values
    rows = tuple(_differences(layers, got, expected, limit))
    return NumericsComparison(
        bundle=str(path),
        compared=compared,
        threshold=limit,
        first=next((row.layer for row in rows if row.departs), None),
        layers=rows,
        left_out=tuple(layer.name for call, layer in layers if not _can_compare(call.name, got, expected)),
    )


def _differences(
    layers: list[tuple[Node, Layer]], got: LayerValues, expected: LayerValues, limit: float
) -> Iterator[LayerDifference]:
    for call, layer in layers:
        if _can_compare(call.name, got, expected):
            error = _relative_error(got[call.name], expected[call.name])
            yield LayerDifference(layer.name, layer.operator, error, error is None or error > limit)


def _can_compare(name: str, got: LayerValues, expected: LayerValues) -> bool:
    return name in got and name in expected and got[name].shape == expected[name].shape


def _relative_error(got: NDArray[Any], expected: NDArray[Any]) -> float | None:
    """The root of the squared differences over that of the squared expected values; 0 for equal values."""
    difference = float(np.linalg.norm((got.astype(np.float64) - expected).ravel()))
    scale = float(np.linalg.norm(expected.astype(np.float64).ravel()))
    if not (math.isfinite(difference) and math.isfinite(scale)):
        return None
    return difference / scale if scale else float(difference > 0)


class _Recorder(Interpreter):
    """Runs a graph and keeps what its layers yield."""

    def __init__(self, program: Program) -> None:
        super().__init__(GraphModule(program.module, program.graph))
        self.names = {call.name for call, _ in layer_calls(program.graph)}
        self.yielded: dict[str, NDArray[Any]] = {}

    def run_node(self, n: Node) -> Any:
        """The value of a node, kept where it is a layer's tensor."""
        value = super().run_node(n)
        if n.name in self.names and isinstance(value, Tensor):
            self.yielded[n.name] = value.numpy(force=True).copy()
        return value


@torch.no_grad()
def _in_torch(program: Program, inputs: list[NDArray[Any]]) -> LayerValues:
    """What the layers of a program yield, by the name of the call."""
    recorder = _Recorder(program.eval())
    recorder.run(*flat_inputs(program.graph, *as_arguments(program, inputs)))
    return recorder.yielded


def _in_onnx(path: Path, layers: list[tuple[Node, Layer]], inputs: list[NDArray[Any]]) -> LayerValues:
    """What the layers of an ONNX file yield, by the name of the call in the program."""
    model = onnx.load(path)
    calls: dict[str, list[str]] = {}
    for call, layer in layers:
        calls.setdefault(layer.name, []).append(call.name)
    wanted: dict[str, str] = {}
    for node in check_sparsity(path):
        if node.weight and calls.get(node.layer):
            wanted[calls[node.layer].pop(0)] = _with_bias(model.graph, node.name)
    own = [value.name for value in model.graph.output]
    further = [name for name in dict.fromkeys(wanted.values()) if name not in own]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in further)
    with tempfile.TemporaryDirectory() as scratch:
        probed = Path(scratch) / path.name
        save_onnx(model, probed)
        with open_onnx(probed, as_written=True) as session:
            values = dict(zip([*own, *further], session(*inputs), strict=True))
    return {call: values[name] for call, name in wanted.items()}


def _with_bias(graph: onnx.GraphProto, name: str) -> str:
    """The value that a layer yields, its bias added: of matrix products that is a node of its own."""
    node = next(node for node in graph.node if node.name == name)
    readers = [reader for reader in graph.node if node.output[0] in reader.input]
    constants = {tensor.name for tensor in graph.initializer}
    has_bias = len(readers) == 1 and readers[0].op_type == "Add" and constants.intersection(readers[0].input)
    return str(readers[0].output[0] if node.op_type == "MatMul" and has_bias else node.output[0])
