"""Copies of networks that are elsewhere: the processor plays the other device here, and "meta" the processor."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunec.passes import module_copy
from prunec.passes.frontend import capture
from prunec.passes.module_copy import Copies, duplicate

#: Every network is captured and written here, also one that was before.
pytestmark = pytest.mark.usefixtures("exported_anew")


class Net(nn.Module):
    """Tensors in every place that a module can hold some in, tied ones among them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        tied = torch.rand(4)
        self.register_buffer("tied", tied)
        self.second.register_buffer("tied", tied)
        self.plain, self.computed = torch.rand(4), nn.Parameter(torch.rand(4)) * 2
        self.listed, self.named, self.paired = [torch.rand(4)], {"key": [torch.rand(4)]}, (torch.rand(4),)
        self.weights, self.alias = [self.first.weight], self.plain
        of_hook = torch.rand(4)
        self.first.register_forward_hook(lambda module, inputs, output: output * of_hook)

    def held(self) -> list[Tensor]:
        hook: Any = next(iter(self.first._forward_hooks.values()))
        return [
            *(*self.parameters(), *self.buffers(), self.plain, self.computed, self.listed[0], self.named["key"][0]),
            *(self.paired[0], self.weights[0], self.alias, hook.__closure__[0].cell_contents),
        ]


@pytest.mark.parametrize("copied", [duplicate, lambda net: Copies(net).to_run()])
def test_every_tensor_comes_home_and_stays_tied(copied: Callable[[Net], Net], monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    monkeypatch.setattr(module_copy, "CPU", torch.device("meta"))
    twin = copied(net)
    assert {tensor.device.type for tensor in twin.held()} == {"meta"}
    assert {tensor.device.type for tensor in net.held()} == {"cpu"}
    assert twin.tied is twin.second.tied
    assert twin.weights[0] is twin.first.weight
    assert isinstance(twin.first.weight, nn.Parameter)
    assert twin.alias is twin.plain


@pytest.mark.parametrize("copied", [duplicate, lambda net: Copies(net).to_run()])
def test_tensors_stay_tied_where_nothing_moves(copied: Callable[[Net], Net]) -> None:
    twin = copied(Net())
    assert twin.tied is twin.second.tied
    assert twin.weights[0] is twin.first.weight
    assert twin.alias is twin.plain


def test_tensors_without_values_stay_without() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    net.register_buffer("unused", torch.empty(3, device="meta"))
    net.shape_of = torch.empty(2, device="meta")
    program = capture(net, (torch.rand(2, 4),))
    assert not program.capture_notes
    assert torch.equal(program(torch.ones(3, 4)), net(torch.ones(3, 4)))
    twin = duplicate(net)
    assert twin.unused.is_meta
    assert twin.shape_of.is_meta
