"""``prunec debug numerics`` finds the layer at which two forms of a network begin to differ."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from prunec.compiler.bundle.bundle_reader import bundle_program
from prunec.compiler.cli.main import run
from prunec.compiler.commands.debug_numerics import debug_numerics
from prunec.compiler.facts.settings import Settings
from prunec.compiler.stages.driver import compile_model
from prunec.passes import Program, capture
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.made_up_ranges import quantized_untrained
from prunec.passes.quantization.quantizers import quantizers
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import typed_form
from tests.compiler.test_verify_bundle import seal
from tests.runtime.nets import small

LAYERS = ["stem.0", "body", "depthwise", "grouped", "classifier", "head"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "good"
    assert compile_model(small(), "cpu", "", output=path, settings=Settings(latency_runs=3)).passed
    return path


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good, tmp_path / "b")


def with_program(folder: Path, program: Program) -> Path:
    program.save(folder / "model.pt2")
    export_onnx(program, folder / "model.onnx")
    seal(folder)
    return folder


def on_grids(form: Form = "affine") -> Program:
    """A network of linear layers whose grids hold its values: inputs are of -1 to 1, and weights shrink them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    return quantized_untrained(capture(network.eval(), (torch.randn(2, 8),)), form)


def test_a_network_that_was_exported_right_departs_nowhere(good: Path) -> None:
    found = debug_numerics(good)
    assert [row.layer for row in found.layers] == LAYERS
    assert (found.first, found.left_out, found.threshold) == (None, (), 1e-4)
    assert all(row.relative_error is not None and row.relative_error < 1e-5 for row in found.layers)


def with_typed_file(folder: Path, program: Program, precision: str) -> Path:
    with_program(folder, program)
    typed_form("fp16", folder / "model.onnx", folder / f"model.{precision}.onnx")
    seal(folder)
    return folder


def halved(path: Path, name: str) -> None:
    """Halve a bias of an ONNX file, and make the bundle's manifest fit."""
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(bias)
    bias.CopyFrom(numpy_helper.from_array(values / values.dtype.type(2), bias.name))
    onnx.save(model, path)
    seal(path.parent)


@pytest.mark.parametrize(("precision", "form"), [("fp16", None), ("int8", "symmetric"), ("fp8", "float8")])
def test_the_file_that_the_engine_is_built_from_is_compared(bundle: Path, precision: str, form: Form | None) -> None:
    folder = with_typed_file(bundle, small() if form is None else on_grids(form), precision)
    right = debug_numerics(folder)
    assert right.typed is not None
    assert right.typed.compared.startswith(f"model.{precision}.onnx under ONNX Runtime")
    assert (right.typed.first, right.typed.left_out) == (None, ())
    assert [row.layer for row in right.typed.layers] == (LAYERS if form is None else ["0", "2", "4"])
    errors = [row.relative_error or 0 for row in right.typed.layers]
    assert 1e-5 < max(errors) < right.typed.threshold / 4
    wrong = "classifier" if form is None else "2"
    halved(folder / f"model.{precision}.onnx", f"{wrong}.bias")
    found = debug_numerics(folder)
    assert found.typed is not None
    assert found.typed.first == wrong
    assert (found.layers, found.exported) == (right.layers, right.exported)


@pytest.mark.parametrize("layer", ["body", "classifier"])
def test_another_weight_in_the_onnx_file_is_found(bundle: Path, layer: str) -> None:
    model = onnx.load(bundle / "model.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == f"{layer}.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(model, bundle / "model.onnx")
    seal(bundle)
    found = debug_numerics(bundle)
    assert found.first == layer
    rows = {row.layer: row for row in found.layers}
    assert rows[layer].relative_error == pytest.approx(0.01, rel=0.5)
    assert [row.departs for row in found.layers[: LAYERS.index(layer)]] == [False] * LAYERS.index(layer)


def test_a_grid_that_is_too_narrow_is_found(bundle: Path) -> None:
    program = on_grids()
    assert debug_numerics(with_program(bundle, program), threshold=0.5).first is None
    of_activations = [quantizer.node for quantizer in quantizers(program.graph) if quantizer.grid is not None]
    assert len(of_activations) == 3
    of_activations[1].args = (of_activations[1].args[0], 1e-4, *of_activations[1].args[2:])
    found = debug_numerics(with_program(bundle, program.with_tensors(program.tensors(), program.graph)), threshold=0.5)
    assert found.first == "2"
    assert [row.departs for row in found.layers] == [False, True, True]
    assert "grids" in found.compared


def test_a_file_on_grids_is_compared_with_the_network(bundle: Path) -> None:
    right = debug_numerics(with_program(bundle, on_grids()))
    found = right.exported
    assert found is not None
    assert [row.layer for row in found.layers] == ["0", "2", "4"]
    assert (found.first, found.left_out, found.threshold) == (None, (), 0.02)
    halved(bundle / "model.onnx", "2.bias")
    wrong = debug_numerics(bundle)
    assert wrong.exported is not None
    assert wrong.layers == right.layers, "torch alone doesn't see it"
    assert wrong.exported.first == "2"


def test_the_command_prints_tables_and_json(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["debug", "numerics", str(bundle)]) == 0
    out = capfd.readouterr().out
    assert "No layer departs by more than 0.0001." in out
    assert all(name in out for name in LAYERS)
    with_program(bundle, on_grids())
    assert run(["debug", "numerics", str(bundle), "--json", "--threshold", "0.000001"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["first"], found["threshold"], len(found["layers"])) == ("0", 1e-6, 3)
    assert set(found) == {"bundle", "compared", "threshold", "first", "layers", "left_out", "exported", "typed"}
    assert (found["exported"]["threshold"], len(found["exported"]["layers"])) == (1e-6, 3)
    assert run(["debug", "numerics", str(bundle)]) == 0
    out = capfd.readouterr().out
    assert "against float32" in out
    assert "model.onnx under ONNX Runtime" in out


def test_only_intact_bundles_are_looked_at(bundle: Path) -> None:
    assert bundle_program(bundle)
    (bundle / "model.onnx").write_bytes(b"")
    assert run(["debug", "numerics", str(bundle)]) == 9
