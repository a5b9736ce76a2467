"""MACs and parameters, layer by layer, by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunec.passes.cost import layer_name
from prunec.passes.coupling import analyse
from prunec.passes.frontend import capture
from prunec.passes.patterns.eligibility import eligibility
from tests.passes.checks import Net, captured, macs_at, normal, random_prune


def test_every_kind_of_layer() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.norm(s.conv(x)).relu()
        y = s.group(y) + s.depthwise(y)
        y = s.up(y)
        return s.linear(y.permute(0, 2, 3, 1))  # type: ignore[no-any-return]

    network = Net(
        forward,
        conv=nn.Conv2d(3, 8, 3, stride=2, padding=1), norm=nn.BatchNorm2d(8),
        group=nn.Conv2d(8, 8, 3, padding=1, groups=2), depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        up=nn.ConvTranspose2d(8, 6, 2, 2, bias=False), linear=nn.Linear(6, 5),
    )  # fmt: skip
    program = captured(network, normal(2, 3, 8, 8))
    macs = {layer.name: layer.macs for layer in program.layers()}
    assert macs == {
        "conv": 8 * 16 * 3 * 9, "group": 8 * 16 * 4 * 9, "depthwise": 8 * 16 * 9, "up": 8 * 16 * 6 * 4,
        "linear": 64 * 6 * 5,
    }  # fmt: skip
    assert program.macs() == sum(macs.values())
    assert [layer.operator for layer in program.layers()] == ["conv2d"] * 3 + ["conv_transpose2d", "linear"]
    assert [layer.groups for layer in program.layers()] == [1, 2, 8, 1, 1]
    assert program.layers()[3].shape == (8, 6, 2, 2)
    assert program.parameter_count() == sum(p.numel() for p in network.parameters())
    assert program.attention_macs() == 0


def test_ranks_and_grouped_transposed() -> None:
    network = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ConvTranspose1d(4, 6, 3, groups=2), nn.Conv1d(6, 2, 1, bias=False))
    program = captured(network, normal(2, 2, 8))
    assert [layer.macs for layer in program.layers()] == [4 * 6 * 2 * 3, 6 * 4 * 3 * 3, 2 * 8 * 6]
    program = captured(nn.Conv3d(2, 4, 2), normal(2, 2, 3, 4, 5))
    assert program.macs() == 4 * (2 * 3 * 4) * 2 * 8


def test_a_shared_layer_counts_each_time_its_parameters_once() -> None:
    shared = nn.Linear(4, 4)
    program = captured(nn.Sequential(shared, nn.ReLU(), shared), normal(2, 4))
    assert [layer.weight for layer in program.layers()] == ["0.weight", "0.weight"]
    assert program.macs() == 32
    assert program.parameter_count() == 20


def test_attention_is_counted_apart() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        q, k, v = s.qkv(x).unflatten(-1, (3, 8)).unbind(-2)
        y = F.scaled_dot_product_attention(q, k, v) + (q @ k.transpose(1, 2)).softmax(-1) @ v
        return s.head(y)  # type: ignore[no-any-return]

    program = captured(Net(forward, qkv=nn.Linear(6, 24), head=nn.Linear(8, 2)), normal(2, 5, 6))
    assert program.macs() == 5 * (6 * 24 + 8 * 2)
    assert program.attention_macs() == 2 * (5 * 5 * 8 * 2)


@pytest.mark.parametrize(
    ("equation", "macs"),
    [("bqc,bkc->bqk", 5 * 5 * 8), ("...qc, ...kc -> ...qk", 5 * 5 * 8), ("bqc,bqc->bq", 5 * 8), ("bqc->bcq", 0)],
)
def test_einsum_is_counted_like_matmul(equation: str, macs: int) -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum(equation, *[x] * (equation.count(",") + 1))

    assert capture(Product(), (torch.randn(2, 5, 8),)).attention_macs() == macs


def test_computed_and_root_weights() -> None:
    network = Net(
        lambda s, x: F.linear(F.linear(x, s.w), s.v * 2), w=nn.Parameter(torch.ones(4, 3)),
        v=nn.Parameter(torch.ones(2, 4)),
    )  # fmt: skip
    layers = captured(network, normal(2, 3)).layers()
    assert [layer.name for layer in layers] == ["w", ""]
    assert [layer.macs for layer in layers] == [12, 8]
    assert layer_name("a.b.weight") == "a.b"
    assert layer_name("weight") == "weight"


def test_macs_of_a_pruned_program_are_those_of_its_own_capture() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 16, 6), nn.Linear(6, 2)
    )
    program = random_prune(captured(network, normal(2, 3, 8, 8)), 3).program
    kept = [program.parameters()[f"{name}.weight"].shape for name in ("0", "2", "4")]
    a, linear = kept[0][0], kept[2][0]
    assert program.macs() == a * 36 * 27 + a * 16 * 9 + linear * a * 16 + 2 * linear


def addmm_layer(weight: nn.Parameter) -> nn.Module:
    bias = nn.Parameter(torch.ones(weight.shape[1]))
    return Net(lambda s, x: torch.addmm(s.b, x.flatten(0, 1), s.w).view(*x.shape[:2], -1), w=weight, b=bias)


#: Layers (inputs, filters) that multiply with their weight in some way.
PRODUCTS: dict[str, Callable[[nn.Parameter], nn.Module]] = {
    "matmul": lambda w: Net(lambda s, x: x @ s.w, w=w),
    "addmm": addmm_layer,
    "bmm": lambda w: Net(lambda s, x: torch.bmm(x, s.w.expand(len(x), -1, -1)), w=w),
    "bmm of any batch": lambda w: Net(lambda s, x: torch.bmm(x, s.w.expand(x.shape[0], -1, -1)), w=w),
    "transposed": lambda w: Net(lambda s, x: x @ s.w.t(), w=nn.Parameter(w.detach().t().contiguous())),
    "from the left": lambda w: Net(lambda s, x: (s.w @ x.mT).mT, w=nn.Parameter(w.detach().t().contiguous())),
    "einsum": lambda w: Net(lambda s, x: torch.einsum("btn,nm->btm", x, s.w), w=w),
    "einsum with ellipsis": lambda w: Net(lambda s, x: torch.einsum("nm, ...n -> ...m", s.w, x), w=w),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_weights_count(name: str) -> None:
    make = PRODUCTS[name]
    first, second = (make(nn.Parameter(torch.ones(*shape))) for shape in ((6, 16), (16, 8)))
    program = captured(nn.Sequential(first, nn.GELU(), second, nn.Linear(8, 3)), normal(2, 5, 6))
    assert program.macs() == 5 * (6 * 16 + 16 * 8 + 8 * 3)
    assert program.attention_macs() == 0
    layers = program.layers()
    assert [layer.inputs for layer in layers] == [5 * 6, 5 * 16, 5 * 8]
    assert [layer.outputs for layer in layers] == [5 * 16, 5 * 8, 5 * 3]
    assert [layer.eligible for layer in eligibility(program)] == [False, False, True]
    if name in ("bmm", "bmm of any batch", "einsum with ellipsis"):
        return
    assert [layer.weight for layer in layers] == ["0.w", "2.w", "3.weight"]
    coupling = analyse(program)
    for seed in range(3):
        pruned = random_prune(program, seed).program
        kept = [pruned.parameters()[g.members[0].parameter].shape[g.members[0].dim] for g in coupling.groups]
        assert macs_at(program, kept) == pruned.macs() < program.macs()
    assert {group.name for group in coupling.groups} == {"0", "2"}


def test_experts_count_each() -> None:
    network = Net(lambda s, x: torch.einsum("btn,enm->betm", x, s.w).sum(1), w=nn.Parameter(torch.ones(4, 6, 8)))
    assert captured(network, normal(2, 5, 6)).macs() == 4 * 5 * 6 * 8


def test_recurrent_layers_count() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.lstm(x)[0]
        return s.head(s.cell(s.gru(y)[0][:, -1]))  # type: ignore[no-any-return]

    network = Net(
        forward, lstm=nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True),
        gru=nn.GRU(16, 4, batch_first=True), cell=nn.RNNCell(4, 5), head=nn.Linear(5, 3),
    )  # fmt: skip
    program = captured(network, normal(2, 7, 6))
    lstm = 2 * 4 * 8 * (6 + 8) + 2 * 4 * 8 * (16 + 8)
    assert program.macs() == 7 * (lstm + 3 * 4 * (16 + 4)) + 5 * (4 + 5) + 5 * 3
    assert {layer.name for layer in program.layers()} == {"lstm", "gru", "cell", "head"}
    assert program.attention_macs() == 0
