"""Operators that take one floating-point type only, in the float64 copy on which the oracle runs."""

import torch
from torch import Tensor, nn

from prunec.passes.frontend import capture
from tests.architectures.redraw import redraw_
from tests.passes.checks import Net, check_exact, normal, prunable


def test_fake_quantisation_goes_on_in_float32() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        weight = torch.fake_quantize_per_channel_affine(s.c.weight, s.scale, s.zero, 0, -128, 127)
        return nn.functional.conv2d(s.b(s.a(x).relu()).relu(), weight, s.c.bias)

    network = Net(
        forward, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 8, 3), c=nn.Conv2d(8, 3, 1),
        scale=torch.full((3,), 0.01), zero=torch.zeros(3, dtype=torch.int32),
    )  # fmt: skip
    program = capture(redraw_(network.eval(), 0), (normal(2, 3, 8, 8).float(),))
    assert prunable(check_exact(program))["a"] == 8


def test_casts_to_complex_numbers_are_widened() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        return s.c((s.b(s.a(x).relu()).to(torch.complex64) * 1j).imag)  # type: ignore[no-any-return]

    network = Net(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 3))
    program = capture(redraw_(network.eval(), 0), (normal(2, 6).float(),))
    assert prunable(check_exact(program))["a"] == 8
