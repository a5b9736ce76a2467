"""Attention in parts: the same function, both products on grids, softmax, norms and residual sums not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunec.passes.frontend import capture
from prunec.passes.graphs import calls, operator_name, unquantized
from prunec.passes.oracle import relative_error
from prunec.passes.program import Program
from prunec.passes.quantization.attention import decompose_attention
from prunec.passes.quantization.placement import place
from tests.architectures.redraw import redraw_
from tests.architectures.vit import ViT
from tests.passes.checks import Net, assert_shapes_known, captured, images, normal
from tests.passes.quantization.observed import folded, on_grids
from tests.passes.quantization.test_quantized_onnx import difference


def vit() -> ViT:
    return ViT(16, 4, 24, depth=2, heads=3, classes=5)


def kept() -> Tensor:
    """A mask that leaves some rows nothing."""
    return torch.rand(5, 5, generator=torch.Generator().manual_seed(1)) < 0.4


@torch.no_grad()
def check(program: Program) -> Program:
    result = decompose_attention(program)
    assert result.modified
    assert result.stats["decomposed"] == len(list(calls(program.graph, "scaled_dot_product_attention")))
    assert not list(calls(result.program.graph, "scaled_dot_product_attention"))
    x = images(program)
    assert relative_error(result.program(*x), program(*x)) < 1e-12
    assert_shapes_known(result.program)
    assert result.program.macs() == program.macs()
    assert result.program.attention_macs() == program.attention_macs() > 0
    return result.program


def test_a_vision_transformer_equals_its_parts_in_float64() -> None:
    check(captured(vit(), normal(2, 3, 16, 16)))


@pytest.mark.parametrize(
    "arguments_",
    [{"is_causal": True}, {"scale": 0.3}, {"attn_mask": kept()}, {"attn_mask": normal(5, 5, seed=3)},
     {"attn_mask": torch.zeros(5, 5, dtype=torch.float64).masked_fill(~kept(), -torch.inf)}],
    ids=["causal", "scale", "bool mask", "float mask", "float mask with empty rows"],
)  # fmt: skip
def test_masks_and_scales(arguments_: dict[str, object], tmp_path: Path) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        q, k, v = net.qkv(x).reshape(-1, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mask = {"attn_mask": net.mask} if "attn_mask" in arguments_ else {}
        return functional.scaled_dot_product_attention(q, k, v, **{**arguments_, **mask})

    members = {"mask": arguments_["attn_mask"]} if "attn_mask" in arguments_ else {}
    network = Net(forward, qkv=nn.Linear(8, 24), **members)
    program = captured(network, normal(2, 5, 8))
    assert len(place(check(program)).sites) == 5, "the input, queries, keys, weights, values"
    single = decompose_attention(program.single()).program
    assert difference(on_grids(single), tmp_path / "q.onnx") < 1e-5


def test_attention_with_fewer_key_heads_stays_whole() -> None:
    network = Net(
        lambda n, x: functional.scaled_dot_product_attention(n.q(x), n.k(x), n.k(x), enable_gqa=True),
        q=nn.Conv2d(2, 4, 1), k=nn.Conv2d(2, 2, 1),
    )  # fmt: skip
    program = captured(network, normal(2, 2, 5, 8))
    result = decompose_attention(program)
    assert not result.modified
    assert str(result.program.graph) == str(program.graph)


def check_transformer(program: Program, products: int) -> None:
    """Both products of every attention read grids; softmax, norms and residual sums don't."""
    quantized = on_grids(program)
    found = 0
    for node in calls(quantized.graph):
        name = operator_name(node.target)
        on_grid = [unquantized(source) is not source for source in node.all_input_nodes]
        if name == "matmul":
            assert on_grid == [True, True]
            found += 1
        elif name in ("softmax", "layer_norm", "add", "mul", "div", "gelu"):
            assert not any(on_grid), node
    assert found == products
    assert all(row.is_quantized for row in place(program).layers)


def test_a_vision_transformer_on_grids() -> None:
    check_transformer(decompose_attention(folded(vit(), 2, 3, 16, 16)).program, products=4)


class HubBlock(nn.Module):
    """Attention and perceptron as BERT's modules in Hugging Face's transformers write them, norms behind the sums."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.dense, self.norm, self.dropout = nn.Linear(width, width), nn.LayerNorm(width), nn.Dropout(0.1)
        self.up, self.down, self.last = nn.Linear(width, 2 * width), nn.Linear(2 * width, width), nn.LayerNorm(width)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, self.head_dim).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.matmul(self.split(self.query(x)), self.split(self.key(x)).transpose(-1, -2))
        weights = self.dropout(functional.softmax(scores / self.head_dim**0.5, dim=-1))
        context = torch.matmul(weights, self.split(self.value(x))).permute(0, 2, 1, 3).contiguous()
        x = self.norm(self.dropout(self.dense(context.view(*context.shape[:-2], -1))) + x)
        out: Tensor = self.last(self.dropout(self.down(functional.gelu(self.up(x)))) + x)
        return out


def test_attention_by_products_is_on_grids_as_it_stands(tmp_path: Path) -> None:
    network = nn.Sequential(HubBlock(), HubBlock(), nn.Linear(8, 3))
    program = capture(redraw_(network.eval(), 0), (torch.randn(2, 6, 8),))
    assert not decompose_attention(program).modified
    check_transformer(program, products=4)
    assert difference(on_grids(program), tmp_path / "q.onnx") < 1e-5
