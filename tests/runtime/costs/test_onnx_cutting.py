"""A file that is cut out of the whole network's is the file that the pruned network is exported to."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from prunec.passes.coupling import Coupling, analyse
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.rewrite import Removed
from prunec.passes.unknown import Unknown
from prunec.runtime.costs import variant_files
from prunec.runtime.costs.onnx_cutting import CuttableOnnx
from prunec.runtime.costs.onnx_widths import cuttable
from prunec.runtime.costs.variant_files import VariantFiles
from prunec.runtime.costs.variants import removed_units, variant_widths, without
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.numerics import random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_files import save_onnx
from prunec.runtime.target import Target
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import BasicBlock, imagenet_resnet
from tests.architectures.vit import ViT
from tests.fuzz.checking import random_program
from tests.passes.checks import Net

CPU = Target.parse("cpu")


def convolutions(net: Net, x: Tensor) -> Tensor:
    """Folded batch norms, a depthwise layer between pointwise ones, squeezing, groups, a shared layer, a flattening."""
    y = net.norm(net.stem(x)).relu()
    y = y + net.point(net.deep_norm(net.deep(net.expand(y))).relu())
    y = y * net.up(net.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
    y = net.shared(net.shared(torch.cat([y, net.grouped(y)], 1)).relu())
    return net.head(torch.nn.functional.max_pool2d(y, 2).flatten(1))  # type: ignore[no-any-return]


def small(*, redrawn: bool = True) -> nn.Module:
    torch.manual_seed(0)
    net = Net(
        convolutions, stem=nn.Conv2d(3, 16, 3, bias=False), norm=nn.BatchNorm2d(16), expand=nn.Conv2d(16, 24, 1),
        deep=nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), deep_norm=nn.BatchNorm2d(24),
        point=nn.Conv2d(24, 16, 1), down=nn.Conv2d(16, 8, 1), up=nn.Conv2d(8, 16, 1),
        grouped=nn.Conv2d(16, 16, 3, padding=1, groups=4), shared=nn.Conv2d(32, 32, 1), head=nn.Linear(32 * 9, 5),
    ).eval()  # fmt: skip
    return redraw_(net, 0) if redrawn else net


def small_resnet() -> nn.Module:
    return imagenet_resnet(BasicBlock, (1, 1, 1, 1), classes=10, width=16)


def program_of(network: nn.Module, side: int = 8) -> Program:
    return capture(network.eval(), (torch.randn(2, 3, side, side),))


def exported(program: Program, folder: Path, name: str) -> ModelProto:
    export_onnx(program, folder / name)
    return onnx.load(folder / name)


def removals(coupling: Coupling, variants: int, seed: int = 0) -> list[Removed]:
    """What goes in some variants, of which the first loses some of every group."""
    counts = np.array([group.count for group in coupling.groups], dtype=np.int64)
    rows = variant_widths(counts, variants + 1, seed)[1:]
    return [removed_units(coupling, row, seed + number) for number, row in enumerate(rows)]


def essence(model: ModelProto) -> list[Any]:
    """What a model computes: its nodes in order, with constants as they are and values by where they come from."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {value.name: f"input {at}" for at, value in enumerate(model.graph.input)}

    def read(name: str) -> object:
        if name not in constants:
            return values.get(name, "")
        tensor = numpy_helper.to_array(constants[name])
        return str(tensor.dtype), tensor.shape, tensor.tobytes()

    nodes: list[Any] = []
    for number, node in enumerate(model.graph.node):
        attributes = [attribute.SerializeToString(deterministic=True) for attribute in node.attribute]
        nodes.append((node.op_type, node.domain, attributes, [read(name) for name in node.input]))
        values |= {name: f"{number}.{at}" for at, name in enumerate(node.output)}
    return [*nodes, [read(value.name) for value in model.graph.output]]


def run(path: Path, inputs: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], list[str]]:
    """What ONNX Runtime gives, and the operators that it makes of the model."""
    optimized = path.with_suffix(".optimized")
    outputs = OnnxRuntimeSession(path, optimized_path=optimized)(*inputs)
    return outputs, [node.op_type for node in onnx.load(optimized).graph.node]


def check_cut(program: Program, folder: Path, variants: int, seed: int = 0) -> CuttableOnnx | Unknown:
    """Cut variants are the exported ones; or why they can't be cut."""
    coupling = analyse(program)
    first, *others = removals(coupling, variants + 1, seed)
    whole, pruned = exported(program, folder, "w.onnx"), exported(without(program, coupling, first), folder, "p.onnx")
    found = cuttable(whole, pruned, coupling, first)
    if isinstance(found, Unknown):
        return found
    assert essence(found.without(first)) == essence(pruned)
    inputs = random_inputs(program, 2, 0)
    for number, removed in enumerate(others):
        expected = exported(without(program, coupling, removed), folder, f"e{number}.onnx")
        cut = found.without(removed)
        assert essence(cut) == essence(expected)
        onnx.checker.check_model(cut, full_check=True)
        save_onnx(cut, folder / f"c{number}.onnx")
        (given, operators), (wanted, others_) = (run(folder / f"{of}{number}.onnx", inputs) for of in "ce")
        assert operators == others_
        for one, other in zip(given, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    return found


@pytest.mark.parametrize("redrawn", [True, False])
def test_a_cut_variant_is_the_exported_one(redrawn: bool, tmp_path: Path) -> None:
    """Biases that weren't drawn anew are zeros, of which the exporter stores those of one size once."""
    program = program_of(small(redrawn=redrawn))
    found = check_cut(program, tmp_path, 1)
    assert isinstance(found, CuttableOnnx), found
    assert found.attributes  # the depthwise layer's number of groups
    whole = found.without(np.zeros(len(found.coupling.roots), dtype=bool))
    assert essence(whole) == essence(found.model)
    cut = found.without(removals(found.coupling, 1)[0])
    assert {layer.weight for layer in program.layers()} <= {tensor.name for tensor in cut.graph.initializer}
    names = [[list(node.output) for node in model.graph.node] for model in (cut, whole)]
    assert names[0] == names[1]  # by names kernels are attributed to layers


@pytest.mark.long
@pytest.mark.parametrize("network", [small_resnet, lambda: mobilenet_v2(10)])
def test_known_networks_are_cut(network: Callable[[], nn.Module], tmp_path: Path) -> None:
    found = check_cut(program_of(redraw_(network().eval(), 0), 32), tmp_path, 2)
    assert isinstance(found, CuttableOnnx), found


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_are_cut_rightly_or_not_at_all(seed: int, tmp_path: Path) -> None:
    program = random_program(seed).single()
    if analyse(program).groups:
        check_cut(program, tmp_path, 1, seed)


@pytest.mark.long
def test_attention_is_cut_rightly_or_not_at_all(tmp_path: Path) -> None:
    check_cut(program_of(redraw_(ViT(32, 8, 32, 2, 4, 10).eval(), 0), 32), tmp_path, 2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelProto, ModelProto, Coupling, Removed]:
    """A network's model, that of a variant, the analysis, and what goes."""
    folder, net = tmp_path_factory.mktemp("pair"), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    program = capture(redraw_(net.eval(), 0), (torch.randn(2, 6),))
    coupling = analyse(program)
    (removed,) = removals(coupling, 1)
    pruned = exported(without(program, coupling, removed), folder, "p.onnx")
    return exported(program, folder, "w.onnx"), pruned, coupling, removed


def _another_node(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Tanh"


def _one_node_less(model: ModelProto) -> None:
    del model.graph.node[-1]


def _another_input(model: ModelProto) -> None:
    model.graph.node[-1].input[0] = model.graph.input[0].name


def _another_value(model: ModelProto) -> None:
    tensor = next(each for each in model.graph.initializer if each.name == "0.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1e-7), tensor.name))


def _another_attribute(model: ModelProto) -> None:
    node = next(each for each in model.graph.node if each.op_type == "Gemm")
    next(each for each in node.attribute if each.name == "transB").i = 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_another_node, "exported to other nodes than"),
        (_one_node_less, "exported to other nodes."),
        (_another_input, "reads other values"),
        (_another_value, "0.weight is no slice of itself"),
        (_another_attribute, "transB is the size of no axis"),
    ],
)
def test_what_is_not_explained_is_not_cut(
    change: Callable[[ModelProto], None], words: str, pair: tuple[ModelProto, ModelProto, Coupling, Removed]
) -> None:
    whole, pruned, coupling, removed = pair
    assert isinstance(cuttable(*pair), CuttableOnnx)
    changed = ModelProto()
    changed.CopyFrom(pruned)
    change(changed)
    found = cuttable(whole, changed, coupling, removed)
    assert isinstance(found, Unknown)
    assert words in found.reason


def test_a_variant_that_keeps_a_group_tells_too_little(pair: tuple[ModelProto, ModelProto, Coupling, Removed]) -> None:
    whole, _, coupling, removed = pair
    found = cuttable(whole, whole, coupling, np.zeros_like(removed))
    assert isinstance(found, Unknown) and "keeps all units of 0" in found.reason


class Exports:
    """Counts exports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(variant_files, "export_onnx", self._export)

    def _export(self, program: Program, path: Path) -> None:
        self.count += 1
        export_onnx(program, path)


def written(program: Program, target: Target, folder: Path, variants: int = 4) -> tuple[list[Path], list[str]]:
    """The files of some variants, and what was said."""
    coupling, said = analyse(program), list[str]()
    rows = variant_widths(np.array([group.count for group in coupling.groups], dtype=np.int64), variants, 0)
    files = VariantFiles(program, coupling, target, folder, 0)
    return [files.write(row, said.append) for row in rows], said


def linear() -> Program:
    return capture(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval(), (torch.randn(2, 16),))


def test_two_variants_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports, program = Exports(monkeypatch), linear()
    paths, said = written(program, CPU, tmp_path)
    assert (exports.count, said) == (2, [])
    inputs, coupling = random_inputs(program, 1, 0), analyse(program)
    rows = variant_widths(np.array([32]), 4, 0)
    for number, (path, row) in enumerate(zip(paths, rows, strict=True)):
        removed = removed_units(coupling, row, number)
        expected = without(program, coupling, removed)(torch.from_numpy(inputs[0])).detach().numpy()
        np.testing.assert_allclose(OnnxRuntimeSession(path)(*inputs)[0], expected, rtol=1e-4, atol=1e-5)


def test_what_depends_on_values_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = Exports(monkeypatch)
    assert written(linear(), Target.parse("a100-2:4"), tmp_path)[1] == []
    assert exports.count == 4


def test_what_can_not_be_cut_is_exported_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = Exports(monkeypatch)
    monkeypatch.setattr(variant_files, "cuttable", lambda *_: Unknown("it is another one."))
    assert written(linear(), CPU, tmp_path)[1] == ["each variant is exported: it is another one."]
    assert exports.count == 4


def test_typed_forms_are_cut_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = Exports(monkeypatch)
    paths, _ = written(linear(), replace(Target.parse("a100"), precision="fp16"), tmp_path, 3)
    assert exports.count == 2 and {path.name for path in paths} == {"typed.onnx"}
    kinds = {tensor.data_type for tensor in onnx.load(paths[2]).graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}
