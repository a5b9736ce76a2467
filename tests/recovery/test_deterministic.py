"""What a GPU's training does for the same result each time, as far as the processor can check it."""

import pytest
import torch
from torch import nn

from prunec.compiler.recovery.deterministic import pool_in_order, same_each_time
from prunec.passes.frontend import capture


@pytest.mark.parametrize("sizes", [(1, 1), (2, 4), (8, 8), (3, 5), (4, 3)])
def test_pools_give_the_same_outputs_and_gradients(sizes: tuple[int, int]) -> None:
    program = capture(nn.AdaptiveAvgPool2d(sizes), (torch.zeros(2, 3, 8, 8),))
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    given, turned = (x.clone().requires_grad_() for _ in range(2))
    program.double()(given).square().sum().backward()
    other = program.double()
    pool_in_order(other.graph)
    other.module.recompile()
    assert "adaptive_avg_pool2d.default" not in str(other.graph)
    other(turned).square().sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(turned.grad, given.grad, rtol=1e-12, atol=1e-12)


def test_on_the_processor_nothing_changes() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with same_each_time(torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled() == before


def test_what_the_user_had_set_is_back_behind_it() -> None:
    torch.backends.cudnn.benchmark = True
    try:
        with same_each_time(torch.device("cuda")):
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            assert not torch.backends.cudnn.benchmark
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False
