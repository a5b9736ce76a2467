"""ONNX export: names, dynamic batch, equal bytes, nothing of this machine, float16 form."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from prunec.passes import Sparsify, capture
from prunec.passes.errors import NumericMismatchError, UnsupportedModelError
from prunec.passes.program import Program
from prunec.runtime.engines import OnnxRuntimeSession
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx, save_with_onnx
from prunec.runtime.onnx_precision import to_bf16, to_fp16
from prunec.runtime.onnx_sparsity import check_sparsity
from tests.passes.quantization.observed import folded, on_grids
from tests.runtime.nets import small

#: Every network is captured and written here, also one that was before.
pytestmark = pytest.mark.usefixtures("exported_anew")


def test_equal_to_torch_at_every_batch_size(tmp_path: Path) -> None:
    program = small()
    export_onnx(program, tmp_path / "m.onnx")
    assert onnx_vs_torch(program, tmp_path / "m.onnx") < 1e-4
    x = torch.randn(7, 3, 8, 8)
    for actual, expected in zip(OnnxRuntimeSession(tmp_path / "m.onnx")(x.numpy()), program(x), strict=True):
        np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_names_and_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = small()
    export_onnx(program, tmp_path / "m.onnx")
    assert capsys.readouterr() == ("", "")
    model = onnx.load(tmp_path / "m.onnx")
    assert [i.type.tensor_type.shape.dim[0].dim_param for i in (*model.graph.input, *model.graph.output)] == [
        "batch"
    ] * 3
    assert [o.name for o in model.graph.output] == ["output_0", "output_1"]
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"stem.0.weight", "body.weight", "depthwise.weight", "classifier.weight", "head"} <= names
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    raw = (tmp_path / "m.onnx").read_bytes()
    for trace in (str(Path(__file__).parent).encode(), sys.prefix.encode(), b".py"):
        assert trace not in raw


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_onnx(small(sparse=True), tmp_path / name)
        to_fp16(tmp_path / name, tmp_path / f"{name}16")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a16").read_bytes() == (tmp_path / "b16").read_bytes()


def test_float16_inside_float32_outside(tmp_path: Path) -> None:
    program = small()
    export_onnx(program, tmp_path / "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx")
    model = onnx.load(tmp_path / "h.onnx")
    ends = {i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)}
    assert ends == {onnx.TensorProto.FLOAT}
    weights = {t.data_type for t in model.graph.initializer if len(t.dims) > 1}
    assert weights == {onnx.TensorProto.FLOAT16}
    assert 1e-6 < onnx_vs_torch(program, tmp_path / "h.onnx") < 1e-2


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    linear = nn.Linear(4, 4)
    with torch.no_grad():
        linear.weight[0, 0] = 1e5
    export_onnx(capture(linear, (torch.randn(2, 4),)), tmp_path / "m.onnx")
    with pytest.raises(NumericMismatchError, match="beyond float16"):
        to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx")


def test_an_operator_without_onnx_form_is_named(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvalsh(x @ x.transpose(1, 2))

    with pytest.raises(UnsupportedModelError, match="can't be exported to ONNX"):
        export_onnx(capture(Odd(), (torch.randn(2, 3, 3),)), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


class Projected(nn.Module):
    def __init__(self, bidirectional: bool) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 8, proj_size=4, bidirectional=bidirectional)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.rnn(x)[0]
        return result


@pytest.mark.parametrize("bidirectional", [False, True])
def test_projections_of_an_lstm_are_named(tmp_path: Path, bidirectional: bool) -> None:
    with pytest.raises(UnsupportedModelError, match=r"an LSTM with projections \(proj_size=4\)"):
        export_onnx(capture(Projected(bidirectional), (torch.randn(2, 3, 8),)), tmp_path / "m.onnx")


class Attention(nn.Module):
    """Attention under as many leading axes as the input has, then a reshape that depends on its strides."""

    def __init__(self, mask: torch.Tensor | None) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.scaled_dot_product_attention(x, x.flip(-1), x + 1, attn_mask=self.mask)
        return y.transpose(-2, -3).reshape(*y.shape[:-3], y.shape[-2], -1)


@pytest.mark.parametrize(
    ("shape", "mask"),
    [
        ((2, 4, 5, 6), (4, 5, 5)),
        ((2, 3, 4, 5, 6), None),
        ((2, 3, 4, 5, 6), (5, 5)),
        ((2, 3, 4, 5, 6), (3, 1, 5, 5)),
        ((2, 2, 3, 4, 5, 6), (3, 1, 5, 5)),
    ],
)
def test_attention_of_any_rank(tmp_path: Path, shape: tuple[int, ...], mask: tuple[int, ...] | None) -> None:
    bias = torch.randn(mask) if mask else None
    program = capture(Attention(bias), (torch.randn(shape),))
    export_onnx(program, tmp_path / "m.onnx")
    x = torch.randn(5, *shape[1:])
    actual = OnnxRuntimeSession(tmp_path / "m.onnx")(x.numpy())[0]
    np.testing.assert_allclose(actual, program(x).numpy(), rtol=1e-4, atol=1e-4)


def test_attention_without_heads(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    program = capture(Tokens(), (torch.randn(2, 5, 6),))
    export_onnx(program, tmp_path / "m.onnx")
    assert onnx_vs_torch(program, tmp_path / "m.onnx") < 1e-4


def test_an_input_without_a_batch(tmp_path: Path) -> None:
    class Biased(nn.Module):
        def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
            return x @ table

    program = capture(Biased(), (torch.randn(2, 5), torch.randn(5, 4)))
    export_onnx(program, tmp_path / "m.onnx")
    assert onnx_vs_torch(program, tmp_path / "m.onnx") < 1e-4


def test_bfloat16_inside_float32_outside(tmp_path: Path) -> None:
    program = small()
    export_onnx(program, tmp_path / "m.onnx")
    to_bf16(tmp_path / "m.onnx", tmp_path / "b.onnx")
    model = onnx.load(tmp_path / "b.onnx")
    bfloat16, float32 = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in types.values()
    assert types["body.weight"] == bfloat16
    assert {i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)} == {float32}
    assert {a.i for node in model.graph.node if node.op_type == "Cast" for a in node.attribute} == {bfloat16, float32}
    source = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    rounded = torch.tensor(source["body.weight"]).to(torch.bfloat16).float().numpy()
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == "body.weight")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored).astype(np.float32), rounded)


def test_bfloat16_takes_weights_beyond_float16(tmp_path: Path) -> None:
    program = capture(nn.Linear(4, 4, bias=False), (torch.randn(2, 4),))
    with torch.no_grad():
        next(iter(program.parameters().values())).fill_(1e6)
    export_onnx(program, tmp_path / "m.onnx")
    to_bf16(tmp_path / "m.onnx", tmp_path / "b.onnx")
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "b.onnx").graph.initializer]
    largest = max(float(w.astype(np.float32).max()) for w in weights if w.dtype.itemsize == 2)
    assert largest == pytest.approx(1e6, rel=1e-2)


def test_linear_weights_keep_their_names_where_they_are_transposed(tmp_path: Path) -> None:
    """Over three axes the exporter stores them transposed, under names of its own."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False))
    program = Sparsify().run(capture(layers.eval(), (torch.randn(2, 5, 8),))).program.eval()
    export_onnx(program, tmp_path / "m.onnx")
    assert onnx_vs_torch(program, tmp_path / "m.onnx") < 1e-5
    found = {entry.layer: entry for entry in check_sparsity(tmp_path / "m.onnx")}
    assert list(found) == ["0", "2", "3"]
    assert all(entry.valid and entry.operator == "MatMul" for entry in found.values())
    assert (found["0"].input_channels, found["0"].output_channels) == (8, 16)


class Standardised(nn.Module):
    """A convolution whose weight is computed anew at every run, and a parameter that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unread = nn.Conv2d(3, 8, 3), nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight
        return nn.functional.conv2d(x, weight - weight.mean((1, 2, 3), keepdim=True)).flatten(2).mean(2)


class Tied(nn.Module):
    """An embedding whose weight also reads the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner, self.head = nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 12, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.inner(self.embedding(x).mean(1))))
        return logits


def test_tied_weights_have_the_programs_name_for_them(tmp_path: Path) -> None:
    program = capture(Tied().eval(), (torch.randint(0, 12, (2, 5)),))
    export_onnx(program, tmp_path / "m.onnx")
    assert {entry.layer for entry in check_sparsity(tmp_path / "m.onnx")} == {layer.name for layer in program.layers()}


class TiedLayers(nn.Module):
    """Layers that share weights, or are one layer under two names; a parameter and a result that nothing reads."""

    def __init__(self, shared: str) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        if shared == "weights":
            self.b.weight, self.b.bias = self.a.weight, self.a.bias
        if shared == "layers":
            self.b = self.a
        self.unread = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.c(x)
        y: torch.Tensor = self.b(torch.relu(self.c(self.a(x))))
        return y


def tied_layers(shared: str) -> Program:
    return capture(TiedLayers(shared).eval(), (torch.randn(2, 8, 6, 6),))


@pytest.mark.parametrize("shared", ["weights", "layers", "nothing"])
def test_layers_that_share_their_weights_keep_the_programs_names_for_them(tmp_path: Path, shared: str) -> None:
    program = tied_layers(shared)
    save_with_onnx(program, tmp_path / "m.pt2", tmp_path / "m.onnx")
    assert {entry.layer for entry in check_sparsity(tmp_path / "m.onnx")} == {layer.name for layer in program.layers()}


@pytest.mark.parametrize(("make", "times"), [(small, 1), (lambda: tied_layers("weights"), 2)])
def test_both_files_take_one_trace_where_nothing_is_tied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Program], times: int
) -> None:
    program, traces, export = make(), [], torch.export.export

    def counted(*args: Any, **kwargs: Any) -> Any:
        traces.append(bool(getattr(torch.fx.config, "do_not_emit_stack_traces", True)))
        return export(*args, **kwargs)

    monkeypatch.setattr(torch.export, "export", counted)
    save_with_onnx(program, tmp_path / "m.pt2", tmp_path / "m.onnx")
    assert traces == [True] * times, "traced so often, without lines"


TRACED: dict[str, Callable[[], Program]] = {
    "convolutions": small,
    "training form": lambda: small().train(),
    "masked": lambda: Sparsify().run(small()).program,
    "attention under five axes": lambda: capture(Attention(None), (torch.randn(2, 3, 4, 5, 6),)),
    "tied": lambda: capture(Tied().eval(), (torch.randint(0, 12, (2, 5)),)),
    "tied weights": lambda: tied_layers("weights"),
    "tied layers": lambda: tied_layers("layers"),
    "what nothing reads": lambda: tied_layers("nothing"),
    "computed weights": lambda: capture(Standardised().eval(), (torch.randn(2, 3, 8, 8),)),
    "on grids": lambda: on_grids(folded(Standardised().eval(), 2, 3, 8, 8)),
}


@pytest.mark.parametrize("name", TRACED)
def test_a_program_that_is_traced_once_for_both_files_gives_the_files_of_two_traces(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    program = TRACED[name]()
    training, nodes = program.training, str(program.graph)
    save_with_onnx(program, tmp_path / "once.pt2", tmp_path / "once.onnx")
    assert (program.training, str(program.graph)) == (training, nodes)
    program.save(tmp_path / "twice.pt2")
    export_onnx(program, tmp_path / "twice.onnx")
    for ending in ("pt2", "onnx"):
        once, twice = (tmp_path / f"{times}.{ending}" for times in ("once", "twice"))
        assert once.read_bytes() == twice.read_bytes(), ending


def test_the_archive_is_there_where_the_network_has_no_onnx_form(tmp_path: Path) -> None:
    program = capture(Projected(bidirectional=False), (torch.randn(2, 3, 8),))
    with pytest.raises(UnsupportedModelError, match="projections"):
        save_with_onnx(program, tmp_path / "m.pt2", tmp_path / "m.onnx")
    assert Program.load(tmp_path / "m.pt2").graph.nodes
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("small_number", [1e-8, 1e-12, 1e-15])
def test_small_numbers_beside_zeros_are_kept(tmp_path: Path, small_number: float) -> None:
    """The optimizer of the exporter takes them for zero: what is divided by them would be NaN."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.cat([self.linear(x), x * 0], 1).relu()
            down = y / (torch.stack([y, y]).amax(0) + small_number) + y / (y - -small_number)
            return down / (y.sum(1, keepdim=True).add(small_number))

    program = capture(Normed(), (torch.randn(3, 4),))
    export_onnx(program, tmp_path / "model.onnx")
    assert onnx_vs_torch(program, tmp_path / "model.onnx") < 1e-5


def test_squeezes_of_nothing_and_masks_of_whole_numbers(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(16, 4), nn.Linear(4, 3)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            y = self.embed(ids) * (1.0 - mask)[..., None]
            return self.head(y.mean(1)).squeeze(1)  # type: ignore[no-any-return]

    program = capture(Masked(), (torch.randint(16, (3, 5)), torch.randint(2, (3, 5))))
    export_onnx(program, tmp_path / "model.onnx")
    assert onnx_vs_torch(program, tmp_path / "model.onnx") < 1e-5
