"""Spellings: what has no rule is decomposed, and is pruned like the spelling that has one."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunec.passes.coupling import analyse
from prunec.passes.graphs import calls, operator_name
from tests.passes.checks import Net, captured, check_exact, normal, prunable, reasons


def in_place_masks(h: Tensor) -> Tensor:
    mask = h > 0
    mask &= h < 1
    mask |= h < -1
    mask ^= h > 0.5
    return h * mask


#: Functions of (batch, 16) channels that keep their shape, and whether removing channels equals zeroing them there.
SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "where with a number": (lambda h: torch.where(h > 0, h, 0.0), True),
    "where with another number": (lambda h: torch.where(h > 0, h, 0.5), True),
    "and": (lambda h: h * ((h > -1) & (h < 1)), True),
    "or, not, exclusive or": (lambda h: h * (((h < -1) | ~(h > 1)) ^ (h > 0.5)), True),
    "hstack": (lambda h: torch.hstack([h, h.sin()])[:, :16], True),
    "concat": (lambda h: torch.concat([h, h.sin()], 1)[:, 16:], True),
    "dstack": (lambda h: torch.dstack([h, h.sin()]).sum(-1), True),
    "tensor_split": (lambda h: torch.cat(torch.tensor_split(h, 2, 1)[::-1], 1), True),
    "swapdims": (lambda h: h.view(-1, 4, 4).swapdims(1, 2).reshape(-1, 16), True),
    "fliplr": (torch.fliplr, True),
    "diff": (lambda h: h.view(-1, 16, 1).expand(-1, 16, 3).diff(dim=2).sum(2) + h, True),
    "logsigmoid": (F.logsigmoid, True),
    "division without a rest": (lambda h: h // 0.3, True),
    "expit": (torch.special.expit, True),
    "norm": (lambda h: h / (torch.linalg.norm(h, dim=-1, keepdim=True) + 1), True),
    "vecdot": (lambda h: h * torch.linalg.vecdot(h, h)[:, None], True),
    "cosine similarity": (lambda h: h * F.cosine_similarity(h, h.sin())[:, None], True),
    "inner": (lambda h: h * torch.inner(h, h).sum(1, keepdim=True), True),
    "einsum with dots": (lambda h: h * torch.einsum("...d,...d->...", h, h)[:, None], True),
    "einsum without a result": (lambda h: h * torch.einsum("bd,cd", h, h).sum(1, keepdim=True), True),
    "the largest": (lambda h: h - h.max(-1, keepdim=True)[0], False),
    "outer": (lambda h: h * torch.outer(h.sum(1), torch.arange(16.0, dtype=h.dtype)), True),
    "a triangle": (lambda h: h.view(-1, 4, 4).tril().flatten(1), True),
    "a grid": (lambda h: h + sum(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(), True),  # type: ignore[union-attr]
    "a rotary embedding": (
        lambda h: h * h.cos() + torch.stack((-h[:, 8:], h[:, :8]), 1).flatten(1) * h.sin(), True,
    ),
    "no channels before": (lambda h: torch.cat([h[:, :0], h], 1), True),
    "no channels behind": (lambda h: torch.cat([h, h[:, 3:-14]], 1), True),
    "no channels in a part": (lambda h: h.split([0, 16], 1)[1] + h.split([0, 16], 1)[0].sum(), True),
    "flooring in place": (lambda h: h.sin().floor_divide_(0.3), True),
    "lower triangles in place": (lambda h: h.sin().view(-1, 4, 4).tril_().flatten(1), True),
    "exchanged axes in place": (lambda h: h.sin().view(-1, 4, 4).swapdims_(1, 2).flatten(1), True),
    "and, or, exclusive or in place": (in_place_masks, True),
    "identity matrix": (lambda h: h @ torch.eye(16, dtype=h.dtype), True),
    "a matrix product of several": (
        lambda h: torch.einsum("bi,ij,jk->bk", h, torch.eye(16, dtype=h.dtype), torch.eye(16, dtype=h.dtype)), True,
    ),
    "closeness": (lambda h: h * torch.isclose(h, h.abs()), True),
    "window": (lambda h: h * torch.hamming_window(16, dtype=h.dtype), True),
    "logarithmic range": (lambda h: h * torch.logspace(0, 1, 16, dtype=h.dtype), True),
    "broadcast": (lambda h: h * h.sum(1, keepdim=True).broadcast_to(h.shape), True),
    "expanded": (lambda h: h * h.sum(1, keepdim=True).expand(-1, 16), True),
    "repeated": (lambda h: h * h.sum(1, keepdim=True).repeat(1, 16), True),
    "power in place": (lambda h: h.abs().add(1).pow_(2.0), True),
    "powers in place": (lambda h: h.abs().add(1).pow_(h), True),
    "float_power in place": (lambda h: h.abs().double().float_power_(2.0).to(h.dtype), True),
    "ldexp in place": (lambda h: h.sin().ldexp_(torch.ones(16, dtype=h.dtype)), True),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name: str) -> None:
    function, exact = SPELLINGS[name]
    network = Net(lambda s, x: s.b(function(s.a(x))), a=nn.Linear(6, 16), b=nn.Linear(16, 3))
    program = captured(network, normal(3, 6))
    x = normal(5, 6, seed=1)
    assert torch.allclose(program(x), network(x), rtol=0, atol=1e-12)
    coupling = analyse(program)
    assert any(layer.partition("#")[0] == "a" for layer in prunable(coupling))
    assert not coupling.unknown_operators
    if exact:
        check_exact(program)


def test_what_cannot_be_decomposed_into_known_operators_stays_whole() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        return s.b(torch.cdist(s.a(x)[:, None], s.a(x)[:, None]).flatten(1))  # type: ignore[no-any-return]

    program = captured(Net(forward, a=nn.Linear(6, 16), b=nn.Linear(1, 3)), normal(3, 6))
    assert "cdist" in [operator_name(node.target) for node in calls(program.graph)]
    assert "operator cdist has no rule" in reasons(analyse(program), "a")


def test_what_torch_logs_while_decomposing_stays_out_of_sight(capfd: pytest.CaptureFixture[str]) -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        waves = torch.fft.rfft(s.a(x).view(-1, 4, 4), dim=2).abs()
        return s.b(waves.flatten(1))  # type: ignore[no-any-return]

    captured(Net(forward, a=nn.Linear(6, 16), b=nn.Linear(12, 3)), normal(3, 6))
    assert capfd.readouterr() == ("", "")


def test_the_number_of_samples_is_no_origin_of_unknown_values() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        ranked = s.a(x).view(-1, 4, 4).topk(4, 2)[0]
        return s.c((s.b(x).view(len(x), 4, 4) * ranked.expand(len(x), 4, 4)).flatten(1))  # type: ignore[no-any-return]

    layers = {"a": nn.Linear(6, 16), "b": nn.Linear(6, 16), "c": nn.Linear(16, 3)}
    found = reasons(analyse(captured(Net(forward, **layers), normal(3, 6))), "b")
    assert "an input of the network" not in found
    assert "operator topk has no rule" in found


def test_reasons_name_what_froze() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        ranked = s.a(x).topk(16, 1)[0].sin()
        return s.c(s.b(x) + ranked) + s.d(x.repeat(1, 2)[:, :8] + s.e(x))  # type: ignore[no-any-return]

    layers = {"a": (6, 16), "b": (6, 16), "c": (16, 3), "d": (8, 3), "e": (6, 8)}
    coupling = analyse(
        captured(Net(forward, **{name: nn.Linear(*sizes) for name, sizes in layers.items()}), normal(3, 6))
    )
    assert reasons(coupling, "a") == "operator topk has no rule"
    assert reasons(coupling, "b") == "add with values that are not tracked: operator topk has no rule"


def write_whole(x: Tensor) -> Tensor:
    return x.mul_(2)


def write_part(x: Tensor) -> Tensor:
    x[:, :2] = 0
    return x


def write_view(x: Tensor) -> Tensor:
    x.view(-1).add_(1)
    return x


@pytest.mark.parametrize("write", [write_whole, write_part, write_view])
def test_a_program_leaves_its_inputs_alone(write: Callable[[Tensor], Tensor]) -> None:
    network = Net(lambda s, x: s.b(s.a(write(x)).relu()), a=nn.Linear(6, 16), b=nn.Linear(16, 3))
    program = captured(network, normal(3, 6))
    x = normal(5, 6, seed=1)
    before = x.clone()
    actual = program(x)
    assert torch.equal(x, before)
    assert torch.equal(actual, network(x))
    assert prunable(check_exact(program)) == {"a": 16}
