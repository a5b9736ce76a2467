"""The layers that are written down are those of the networks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.compiler import capture
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.workload import COUNTS
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.resnet import Bottleneck, imagenet_resnet
from tests.architectures.vit import Block
from tests.runtime.costs import networks
from tests.runtime.costs.networks import Layers


def assert_same(layers: Layers, network: nn.Module, sample: Tensor) -> None:
    written, captured = layers.work(), work_of(capture(network.eval(), (sample.repeat(2, *[1] * (sample.ndim - 1)),)))
    assert [(o.operator, o.kernel, o.is_grouped, o.tail) for o in written.operations] == [
        (o.operator, o.kernel, o.is_grouped, o.tail) for o in captured.operations
    ]
    for count in set(COUNTS) - {"parameters"}:
        np.testing.assert_array_equal(getattr(written, count), getattr(captured, count), err_msg=count)


@pytest.mark.long
def test_resnet() -> None:
    assert_same(networks.resnet((3, 4, 6, 3)), imagenet_resnet(Bottleneck, (3, 4, 6, 3)), torch.randn(1, 3, 224, 224))


@pytest.mark.long
def test_mobilenet() -> None:
    assert_same(networks.mobilenet_v2(), mobilenet_v2(), torch.randn(1, 3, 224, 224))


def test_a_block_of_a_transformer() -> None:
    """The captured block has its norms before its layers, the written one behind them: the sums are the same."""
    captured = work_of(capture(Block(48, 3).eval(), (torch.randn(2, 10, 48),)))
    written = networks.transformer(48, 10, 1).work()
    for count in set(COUNTS) - {"parameters"}:
        assert getattr(written, count).sum() == getattr(captured, count).sum(), count
    tails = [sum((o.tail for o in work.operations), ()) for work in (written, captured)]
    assert sorted(tails[0]) == sorted(tails[1])
