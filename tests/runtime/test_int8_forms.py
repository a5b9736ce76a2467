"""Quantized networks as ONNX files: the same function in every form, and whole numbers that stand for the weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear
from torch.nn.utils.parametrizations import weight_norm

from prunec.passes import Program, capture
from prunec.passes.cost import layer_calls
from prunec.passes.costs.counting import work_of
from prunec.passes.errors import NumericMismatchError
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.made_up_ranges import quantized_untrained
from prunec.passes.quantization.quantizers import Quantizer, precision_on_grids, quantizers, without_quantizers
from prunec.runtime.costs.roofline import RooflineCosts, predict_program, roofline_costs, weights_in_float
from prunec.runtime.engines.protocol import TOLERANCES
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.int8_form import as_timed
from prunec.runtime.numerics import difference_from_torch, onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_fp32, typed_form
from prunec.runtime.onnx_quantizers import rounding_in_steps, weights_on_grids
from prunec.runtime.target import Target
from tests.passes.checks import Net
from tests.runtime.nets import small

FORMS: tuple[Form, ...] = ("symmetric", "affine", "float8")


@pytest.fixture(scope="module", params=FORMS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, Path]:
    program = quantized_untrained(small(sparse=True), request.param)
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    export_onnx(program, path)
    return program, path


@pytest.mark.parametrize("form", FORMS)
def test_a_wrong_bias_is_found_between_any_two_grids(form: Form, tmp_path: Path) -> None:
    program = quantized_untrained(small(), form)
    export_onnx(program, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "depthwise.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(model, tmp_path / "model.onnx")
    assert onnx_vs_torch(program, tmp_path / "model.onnx") > 1e-3


def test_other_grids_are_found(tmp_path: Path) -> None:
    program = quantized_untrained(small(), "affine")
    export_onnx(quantized_untrained(small(), "symmetric"), tmp_path / "model.onnx")
    with pytest.raises(NumericMismatchError, match="other grids"):
        onnx_vs_torch(program, tmp_path / "model.onnx")


def test_as_written_the_file_is_torch_and_kernels_are_near_it(exported: tuple[Program, Path]) -> None:
    program, path = exported
    assert onnx_vs_torch(program, path) < 1e-6
    precision = next(quantizers(program.graph)).precision
    with open_onnx(path) as session:
        assert difference_from_torch(session, program, (2, 3), 0) < TOLERANCES[precision]
        assert difference_from_torch(session, without_quantizers(program), (2, 3), 0) > 1e-4, "it rounds to grids"


def test_sixteen_bits_around_the_grids(exported: tuple[Program, Path], tmp_path: Path) -> None:
    program, path = exported
    half = typed_form("fp16", path, tmp_path / "half.onnx")
    before, after = (onnx.load(each).graph for each in (path, half))
    kinds = (TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT8E4M3FN)
    whole = {t.name: t.raw_data for t in before.initializer if t.data_type in kinds}
    stored = {tensor.name: tensor for tensor in after.initializer}
    assert whole
    assert all(stored[name].raw_data == data for name, data in whole.items())
    count = [sum("Linear" in node.op_type for node in graph.node) for graph in (before, after)]
    assert count[0] == count[1]
    scales = {node.input[1] for node in after.node if node.op_type == "DequantizeLinear"}
    assert {stored[name].data_type for name in scales} == {TensorProto.FLOAT16}
    to_fp32(half, tmp_path / "wide.onnx")
    assert 1e-5 < onnx_vs_torch(program, tmp_path / "wide.onnx") < TOLERANCES["fp16"]


def test_weights_are_stored_within_half_a_step(exported: tuple[Program, Path]) -> None:
    program, path = exported
    steps = rounding_in_steps(onnx.load(path), weights_on_grids(program))
    quantized = {layer.weight for call, layer in layer_calls(program.graph) if precision_on_grids(call)}
    assert set(steps) == quantized
    assert len(quantized) == 6
    assert 0.3 < max(steps.values()) <= 0.5 + 1e-3


def test_a_whole_number_that_is_off_is_found(exported: tuple[Program, Path]) -> None:
    program, path = exported
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "grouped.weight")
    values = numpy_helper.to_array(weight).copy()
    numbers = values.view(np.int8)  # of which the next magnitude of either type is one more
    numbers.flat[0] += 2 if numbers.flat[0] < 100 else -2
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    assert rounding_in_steps(model, weights_on_grids(program))["grouped.weight"] >= 1.5


def roofline(target: str, float_weights: frozenset[str] = frozenset()) -> RooflineCosts:
    costs = roofline_costs(Target.parse(target), 64, float_weights=float_weights)
    assert isinstance(costs, RooflineCosts)
    return costs


def test_layers_in_higher_precision_are_predicted_so() -> None:
    program = small()
    work, all_weights = work_of(program), frozenset(layer.weight for layer in program.layers())
    in_int8 = roofline("l4-int8").times(work)
    kept = roofline("l4-int8", frozenset({"body.weight"})).times(work)
    at = [operation.weight for operation in work.operations].index("body.weight")
    for each in ("compute_ms", "memory_ms"):
        mixed, whole = (getattr(times, each) for times in (kept, in_int8))
        assert np.array_equal(np.delete(mixed, at), np.delete(whole, at))
    assert kept.total_ms[at] > in_int8.total_ms[at]
    assert roofline("l4-int8").plain.network_ms(work) == roofline("l4").network_ms(work)
    assert predict_program(program, Target.parse("l4-int8"), 64) == predict_program(program, Target.parse("l4"), 64)
    assert weights_in_float(program) == all_weights


def test_what_is_timed_is_what_comes_of_a_compile() -> None:
    target = Target.parse("l4-2:4-int8")
    timed = as_timed(small(), target)
    assert timed.masks
    assert weights_in_float(timed) == frozenset()
    assert (target.float_precision, Target.parse("cpu-int8").float_precision) == ("fp16", "fp32")
    float_program = small()
    assert as_timed(float_program, Target.parse("l4")) is float_program


def test_weights_between_two_steps_go_to_the_one_that_torch_takes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(1024, 16, bias=False)
    largest = 0.1 + torch.rand(16, 1, generator=generator)
    with torch.no_grad():
        between = torch.randint(-126, 126, (16, 1024), generator=generator) + 0.5
        layer.weight.copy_(between * (largest / 127))
        layer.weight[:, 0] = largest[:, 0]
    program = quantized_untrained(capture(layer.eval(), (torch.rand(2, 1024),)), "affine")
    export_onnx(program, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    node = next(node for node in graph.node if node.op_type == "DequantizeLinear" and len(node.attribute))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    whole, scales = (torch.from_numpy(stored[name].copy()) for name in node.input[:2])
    whole = whole if whole.shape == (16, 1024) else whole.t()
    zeros = torch.zeros(16, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(layer.weight.detach(), scales, zeros, 0, -128, 127)
    assert torch.equal(whole * scales[:, None], expected)


def test_onnxruntime_leaves_the_relus_of_fp8(tmp_path: Path) -> None:
    """Its optimizations take them for what an unsigned grid does, and lose every value below zero."""
    layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    program = quantized_untrained(capture(layers.eval(), (torch.randn(2, 1, 8, 8),)), "float8")
    export_onnx(program, tmp_path / "model.onnx")
    with open_onnx(tmp_path / "model.onnx") as session:
        assert difference_from_torch(session, program, (2,), 0) < 1e-5


def in_half(network: nn.Module, x: torch.Tensor, folder: Path) -> tuple[Program, Path]:
    """A network on symmetric grids, and its file with float16 around them, as NVIDIA's engines are built from."""
    program = quantized_untrained(capture(network.eval(), (x,)), "symmetric")
    export_onnx(program, folder / "model.onnx")
    return program, typed_form("fp16", folder / "model.onnx", folder / "half.onnx")


def test_onnxruntime_keeps_biases_as_a_float16_file_has_them(tmp_path: Path) -> None:
    """Its optimizations round them to steps that are products of float16 scales, which overflow or become zero."""
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        network[2].weight[:4] *= 1e-7  # channels that weight decay left with a constant
        network[2].bias[:4] = torch.tensor([0.3, 0.6, 0.9, 1.2])
    program, half = in_half(network, torch.randn(2, 1, 8, 8), tmp_path)
    with open_onnx(half) as session, open_onnx(half, as_written=True) as written:
        assert difference_from_torch(written, program, (2,), 0) < TOLERANCES["fp16"]
        assert difference_from_torch(session, program, (2,), 0) < TOLERANCES["fp16"]


def test_onnxruntime_runs_a_concatenation_of_a_float16_file(tmp_path: Path) -> None:
    """Its optimizations make an operator of it that has no float16."""
    network = Net(
        lambda n, x: n.head(torch.cat([n.a(x), n.b(x)], 1)),
        a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1), head=nn.Conv2d(8, 2, 1),
    )  # fmt: skip
    program, half = in_half(network, torch.randn(2, 3, 5, 5), tmp_path)
    with open_onnx(half) as session:
        assert difference_from_torch(session, program, (2,), 0) < TOLERANCES["fp16"]


class TwinHeads(nn.Module):
    """Reads one value through two equal calls, which the exporter makes one of."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Conv2d(3, 8, 1), nn.Linear(200, 4), nn.Linear(200, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x).relu()
        return self.left(y.flatten(1)), self.right(y.flatten(1))


def biased(program: Program, name: str) -> Program:
    """The program with a tensor that is off by 0.01."""
    tensors = dict(program.tensors())
    tensors[name] = nn.Parameter(tensors[name].detach() + 0.01)
    return program.with_tensors(tensors, program.graph)


@pytest.mark.parametrize("form", ["symmetric", "affine"])
def test_equal_grids_that_the_exporter_merged_are_compared_by_function(form: Form, tmp_path: Path) -> None:
    program = quantized_untrained(capture(TwinHeads().eval(), (torch.randn(2, 3, 5, 5),)), form)
    export_onnx(program, tmp_path / "model.onnx")
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert sum(node.op_type == "QuantizeLinear" for node in nodes) < len(of_activations(program))
    assert onnx_vs_torch(program, tmp_path / "model.onnx") < 1e-6
    for name in ("body.bias", "left.bias", "right.bias"):
        assert onnx_vs_torch(biased(program, name), tmp_path / "model.onnx") > 1e-3, name


def of_activations(program: Program) -> list[Quantizer]:
    """The quantizers of activations."""
    return [each for each in quantizers(program.graph) if each.grid is not None]


class ComputedWeights(nn.Module):
    """Weights that are computed: normalised, standardised, and one matrix that is read both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = weight_norm(nn.Conv2d(3, 32, 3))
        self.body = nn.Conv2d(32, 40, 3)
        self.matrix = nn.Parameter(torch.randn(40, 40) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).relu()
        weight = self.body.weight - self.body.weight.mean((1, 2, 3), keepdim=True)
        y = conv2d(y, weight, self.body.bias).relu().mean((2, 3))
        return linear(linear(y, self.matrix).relu(), self.matrix.t())


@pytest.mark.parametrize("form", ["symmetric", "affine"])
def test_computed_weights_are_stored_as_whole_numbers(form: Form, tmp_path: Path) -> None:
    program = quantized_untrained(capture(ComputedWeights().eval(), (torch.randn(2, 3, 8, 8),)), form)
    export_onnx(program, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    whole = sorted(tuple(t.dims) for t in graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1)
    assert whole == [(32, 3, 3, 3), (40, 32, 3, 3), (40, 40), (40, 40)]
    assert {n.op_type for n in graph.node}.isdisjoint({"ReduceL2", "Sqrt", "Sub", "Div"})
    assert onnx_vs_torch(program, tmp_path / "model.onnx") < 1e-6
    half = typed_form("fp16", tmp_path / "model.onnx", tmp_path / "half.onnx")
    to_fp32(half, tmp_path / "wide.onnx")
    assert onnx_vs_torch(program, tmp_path / "wide.onnx") < TOLERANCES["fp16"]
    assert onnx_vs_torch(biased(program, "matrix"), tmp_path / "model.onnx") > 1e-3


def numbers_changed(model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """Move one whole number of the weight of a shape by two."""
    weight = next(
        each for each in model.graph.initializer if each.data_type == TensorProto.INT8 and tuple(each.dims) == shape
    )
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 2 if values.flat[0] < 100 else -2
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def test_the_rounding_of_computed_weights_is_told(tmp_path: Path) -> None:
    program = quantized_untrained(capture(ComputedWeights().eval(), (torch.randn(2, 3, 8, 8),)), "symmetric")
    export_onnx(program, tmp_path / "model.onnx")
    weights = weights_on_grids(program)
    assert sorted(each.shape for each in weights.values()) == [(32, 3, 3, 3), (40, 32, 3, 3), (40, 40), (40, 40)]
    right = rounding_in_steps(onnx.load(tmp_path / "model.onnx"), weights)
    assert right.keys() == weights.keys()
    assert 0.3 < max(right.values()) <= 0.5 + 1e-3
    # Other names, as another process may give computed weights.
    renamed = {f"{name}_": weight for name, weight in weights.items()}
    found = rounding_in_steps(onnx.load(tmp_path / "model.onnx"), renamed)
    assert renamed.keys() < found.keys(), "numbers of no weight's name are told, too"
    assert 0.3 < max(found.values()) <= 0.5 + 1e-3
    wrong = onnx.load(tmp_path / "model.onnx")
    numbers_changed(wrong, (40, 32, 3, 3))
    for each in (weights, renamed):
        far = [name for name, distance in rounding_in_steps(wrong, each).items() if distance > 1]
        assert far, "in what follows by name, and in what is nearest"
    assert rounding_in_steps(onnx.load(tmp_path / "model.onnx"), weights | {"w": np.zeros((3, 5))})["w"] == np.inf


def test_the_rounding_of_a_weight_that_others_read_in_floating_point_is_told(tmp_path: Path) -> None:
    table, last = nn.Embedding(24, 16), nn.Linear(16, 24, bias=False)
    last.weight = table.weight
    network = Net(
        lambda n, ids: n.last(n.hidden(n.table(ids)).relu()), table=table, hidden=nn.Linear(16, 16), last=last
    )
    program = quantized_untrained(capture(network.eval(), (torch.randint(0, 24, (2, 6)),)), "symmetric")
    export_onnx(program, tmp_path / "model.onnx")
    steps = rounding_in_steps(onnx.load(tmp_path / "model.onnx"), weights_on_grids(program))
    assert len(steps) >= len(weights_on_grids(program)) == 2
    assert max(steps.values()) <= 0.5 + 1e-3
