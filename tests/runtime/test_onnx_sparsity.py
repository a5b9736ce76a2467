"""The 2:4 checker on ONNX files, against Polygraphy's."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from benchmarks.polygraphy_agreement import polygraphy_says
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_fp16
from prunec.runtime.onnx_sparsity import check_sparsity, is_two_four, likely_to_gain
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
    assert is_two_four(weight, axis) == expected


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
    found, rule = likely_to_gain(operator, shape, axis)
    assert found == likely
    assert str(shape[axis]) in rule
