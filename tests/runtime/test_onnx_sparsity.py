"""The 2:4 checker on ONNX files, against Polygraphy's."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from benchmarks.polygraphy_agreement import polygraphy_says
from prunec.passes import Sparsify, capture
from prunec.passes.errors import InputError
from prunec.passes.fours import at_most_two_of_four
from prunec.passes.patterns.eligibility import eligibility, with_weights
from prunec.passes.two_four_words import two_four_state
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_fp16
from prunec.runtime.onnx_sparsity import LayerSparsity, check_sparsity, likely_to_gain, weight_states
from tests.architectures.densenet import densenet121
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import resnet50
from tests.architectures.vgg import vgg16_cifar
from tests.architectures.vit import vit_tiny
from tests.runtime.nets import small


def test_layers_their_axis_and_reasons(tmp_path: Path) -> None:
    export_onnx(small(sparse=True), tmp_path / "m.onnx")
    found = {entry.layer: entry for entry in check_sparsity(tmp_path / "m.onnx")}
    assert {layer for layer, entry in found.items() if entry.valid} == {"body", "classifier"}
    assert "3 input channels" in found["stem.0"].reason
    assert "32 groups" in found["depthwise"].reason
    assert "2 groups" in found["grouped"].reason
    assert found["body"].zero_fraction == pytest.approx(0.5)
    dense = tmp_path / "dense.onnx"
    export_onnx(small(), dense)
    assert not any(entry.valid for entry in check_sparsity(dense))


def convolutions() -> nn.Module:
    """Layers that can't be 2:4 for each reason, and one that is called twice."""
    twice = nn.Conv2d(16, 16, 1)
    shapes = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 3), twice, twice
    return nn.Sequential(*shapes, nn.ConvTranspose2d(16, 8, 2), nn.Flatten(), nn.Linear(8 * 27**2, 4))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("network", [convolutions, partial(vit_tiny, 32)])
def test_the_file_and_the_program_count_the_same_layers(
    tmp_path: Path, network: Callable[[], nn.Module], sparse: bool
) -> None:
    """Products of activations, as in attention, are no layers."""
    program = capture(network(), (torch.randn(2, 3, 32, 32),))
    if sparse:
        program = Sparsify(ignore=("*2",)).run(program).program
    layers = with_weights(eligibility(program), program)
    export_onnx(program, tmp_path / "m.onnx")
    states = weight_states(check_sparsity(tmp_path / "m.onnx"))
    assert Counter(states) == Counter(two_four_state(layer.eligible, layer.valid) for layer in layers)
    assert ("is 2:4" in states) == sparse


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_agrees_with_polygraphy(tmp_path: Path, sparse: bool, half: bool) -> None:
    path = tmp_path / "m.onnx"
    export_onnx(small(sparse), path)
    if half:
        to_fp16(path, path)
    theirs = polygraphy_says(path)
    assert "body.weight" in theirs
    for entry in check_sparsity(path):
        # Polygraphy looks at grouped convolutions too, which have no sparse kernels.
        if entry.groups == 1:
            assert theirs.get(entry.weight, False) == entry.valid, entry


@pytest.mark.parametrize(("transposed", "axis"), [(1, 1), (0, 0)])
def test_gemm_and_matmul_run_along_what_is_summed(tmp_path: Path, transposed: int, axis: int) -> None:
    weight = np.ones((8, 8), dtype=np.float32)
    weight[(slice(None), slice(0, None, 2)) if axis == 1 else slice(0, None, 2)] = 0
    for operator in ("Gemm", "MatMul"):
        if operator == "MatMul" and transposed:
            continue
        attributes = {"transB": transposed} if operator == "Gemm" else {}
        node = helper.make_node(operator, ["x", "layer.weight"], ["y"], name="n", **attributes)
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 8]) for name in ("x", "y")]
        graph = helper.make_graph(
            [node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "layer.weight")]
        )
        onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
        (entry,) = check_sparsity(tmp_path / "m.onnx")
        assert (entry.axis, entry.valid, entry.layer) == (axis, True, "layer")


@given(st.integers(0, 2**32 - 1), st.integers(0, 1))
def test_pattern_check_is_the_definition(seed: int, axis: int) -> None:
    weight = np.random.default_rng(seed).integers(0, 2, (8, 8))
    rows = weight if axis == 1 else weight.T
    expected = all((row[i : i + 4] != 0).sum() <= 2 for row in rows for i in (0, 4))
    assert at_most_two_of_four(weight, axis) == expected


@pytest.mark.parametrize(
    ("operator", "shape", "axis", "likely"),
    [
        ("Conv", (256, 256, 1, 1), 1, True),
        ("Conv", (256, 128, 1, 1), 1, False),
        ("Conv", (64, 64, 3, 3), 1, True),
        ("Conv", (64, 16, 3, 3), 1, False),
        ("Conv", (16, 512, 3, 3), 1, False),
        ("Gemm", (1000, 512), 1, True),
        ("Gemm", (512, 10), 0, False),
        ("MatMul", (768, 3072), 0, True),
    ],
)
def test_what_is_likely_to_gain(operator: str, shape: tuple[int, ...], axis: int, likely: bool) -> None:
    found, rule = likely_to_gain(operator, shape, axis, "float16")
    assert found == likely
    assert str(shape[axis]) in rule
    assert likely_to_gain(operator, shape, axis, "float32") == (
        False,
        "sparse kernels are of 16 and 8 bits, the weight has 32",
    )


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_a_constant_first_operand_runs_along_its_last_axis(tmp_path: Path, operator: str) -> None:
    weight = np.ones((12, 8), dtype=np.float32)
    weight[:, ::2] = 0
    node = helper.make_node(operator, ["layer.weight", "x"], ["y"], name="n")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [n, 2]) for name, n in (("x", 8), ("y", 12))]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "layer.weight")])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    (entry,) = check_sparsity(tmp_path / "m.onnx")
    assert (entry.axis, entry.input_channels, entry.output_channels, entry.valid) == (1, 8, 12, True)
    assert polygraphy_says(tmp_path / "m.onnx") == {"layer.weight": True}


def test_weights_that_are_computed_are_not_eligible_and_say_why(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8, 8]) for name in ("x", "w", "y")]
    nodes = [helper.make_node("Relu", ["w"], ["v"]), helper.make_node("MatMul", ["x", "v"], ["y"], name="n")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values[:2], values[2:])), tmp_path / "m.onnx")
    (entry,) = check_sparsity(tmp_path / "m.onnx")
    assert (entry.eligible, entry.valid, entry.reason) == (False, False, "the weight is computed, not a constant")
    assert polygraphy_says(tmp_path / "m.onnx") == {}


def quantised(tmp_path: Path, weight: np.ndarray, nodes: list[onnx.NodeProto], *others: np.ndarray) -> LayerSparsity:
    """What is said of a convolution whose weight "c" is made of "w" by nodes that take "s" and "z"."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    arrays = zip(("w", "s", "z"), (weight, *others), strict=False)
    graph = helper.make_graph(
        [*nodes, helper.make_node("Conv", ["x", "c"], ["y"], name="n")],
        "g",
        values[:1],
        values[1:],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    (entry,) = check_sparsity(tmp_path / "m.onnx")
    return entry


def test_float_weights_behind_a_pair_are_what_the_pair_leaves_of_them(tmp_path: Path) -> None:
    """Small ones become zero; the kernel's type is that of the whole numbers."""
    weight = np.tile(np.float32([0.001, -0.002, 1, -1]), (8, 2)).reshape(8, 8, 1, 1)
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["c"]),
    ]
    entry = quantised(tmp_path, weight, nodes, np.float32(0.01), np.int8(0))
    assert (entry.valid, entry.zero_fraction, entry.dtype, entry.weight) == (True, 0.5, "int8", "w")


@pytest.mark.parametrize("axis", [None, 0])
def test_a_weight_is_zero_where_it_is_the_zero_point(tmp_path: Path, axis: int | None) -> None:
    weight = np.tile(np.uint8([128, 0, 128, 255]), (8, 2)).reshape(8, 8, 1, 1)
    scale, zero = (np.float32(0.1), np.uint8(128)) if axis is None else (np.ones(8, np.float32), np.full(8, 128, "u1"))
    nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["c"], **({} if axis is None else {"axis": axis}))]
    entry = quantised(tmp_path, weight, nodes, scale, zero)
    assert (entry.valid, entry.zero_fraction, entry.dtype) == (True, 0.5, "uint8")
    without = [helper.make_node("DequantizeLinear", ["w", "s"], ["c"], **({} if axis is None else {"axis": axis}))]
    entry = quantised(tmp_path, weight, without, scale)
    assert (entry.valid, entry.zero_fraction) == (False, 0.25)


SCALES = {
    "of the file": [],
    "cast": [helper.make_node("Cast", ["s"], ["t"], to=TensorProto.FLOAT)],
    "a number": [helper.make_node("Constant", [], ["t"], value_float=0.1)],
    "a tensor": [helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.float32(0.1)))],
}


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("scale", SCALES)
def test_scales_and_quantisation_as_exporters_write_them(tmp_path: Path, scale: str, domain: str) -> None:
    weight = np.tile(np.int8([3, 0, 3, 7]), (8, 2))
    nodes = [
        *SCALES[scale],
        helper.make_node("DequantizeLinear", ["w", "t" if SCALES[scale] else "s", "z"], ["d"], domain=domain),
        helper.make_node("Constant", [], ["shape"], value_ints=[8, 8, 1, 1]),
        helper.make_node("Reshape", ["d", "shape"], ["c"]),
    ]
    entry = quantised(tmp_path, weight, nodes, np.float32(0.1), np.int8(3))
    assert (entry.valid, entry.zero_fraction, entry.dtype, entry.shape) == (True, 0.5, "int8", (8, 8, 1, 1))


def test_a_scale_that_is_computed_leaves_the_weight_unknown(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["s", "s"], ["t"]), helper.make_node("DequantizeLinear", ["w", "t", "z"], ["c"])]
    entry = quantised(tmp_path, np.ones((8, 8, 1, 1), np.int8), nodes, np.float32(0.1), np.int8(3))
    assert entry.reason == "the weight is computed, not a constant"


def test_casts_count_in_the_type_and_in_what_underflows(tmp_path: Path) -> None:
    weight = np.tile(np.float32([1e-9, 1e-9, 1, -1]), (8, 2)).reshape(8, 8, 1, 1)
    entry = quantised(tmp_path, weight, [helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT16)])
    assert (entry.valid, entry.dtype) == (True, "float16")


def test_scales_that_fit_no_axis_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["c"], axis=0)]
    with pytest.raises(InputError, match="scales of shape"):
        quantised(tmp_path, np.ones((1, 8, 1, 1), np.int8), nodes, np.ones(1_000_000, np.float32))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8,), (8, 1, False)), ((3, 8, 4), (8, 4, False)), ((8, 0), (8, 0, True)), ((0, 4), (0, 4, True))],
)
def test_weights_of_odd_shapes(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, int, bool]) -> None:
    """As an initializer and as the value of a Constant node."""
    weight = numpy_helper.from_array(np.ones(shape, np.float32), "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    product = helper.make_node("MatMul", ["x", "w"], ["y"], name="n")
    constant = helper.make_node("Constant", [], ["w"], value=weight)
    for nodes, weights in (([product], [weight]), ([constant, product], [])):
        graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
        onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
        (entry,) = check_sparsity(tmp_path / "m.onnx")
        assert (entry.input_channels, entry.output_channels, entry.valid) == expected


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet50": (resnet50, 64),
    "mobilenet_v2": (mobilenet_v2, 64),
    "densenet121": (densenet121, 64),
    "vgg16_cifar": (vgg16_cifar, 32),
    "vit": (lambda: vit_tiny(64), 64),
}


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_polygraphy_on_real_architectures(tmp_path: Path, name: str) -> None:
    """Half of the layers masked, so that both answers occur."""
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    program = capture(redraw_(make(), seed=0), (torch.randn(2, 3, size, size),))
    names = [layer.name for layer in program.layers()]
    masked = Sparsify(ignore=tuple(dict.fromkeys(names[::2]))).run(program).program.eval()
    export_onnx(masked, tmp_path / "m.onnx")
    to_fp16(tmp_path / "m.onnx", tmp_path / "m.onnx")
    theirs = polygraphy_says(tmp_path / "m.onnx")
    ours = [entry for entry in check_sparsity(tmp_path / "m.onnx") if entry.groups == 1]
    assert {entry.valid for entry in ours} == {True, False}
    for entry in ours:
        assert theirs.get(entry.weight, False) == entry.valid, entry
    assert {name for name, sparse in theirs.items() if sparse} <= {entry.weight for entry in ours}
