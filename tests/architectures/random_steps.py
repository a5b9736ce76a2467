"""The steps that random architectures consist of: each maps (N, C, H, W) to (N, C', H', W')."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class MapShape:
    """Shape of one sample of a feature map."""

    channels: int
    height: int
    width: int

    @property
    def smaller_side(self) -> int:
        return min(self.height, self.width)


class Apply(nn.Module):
    """A function of the input and of named modules, as a module."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function, self.names = function, tuple(modules)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *(self.get_submodule(name) for name in self.names))


class PerChannel(nn.Module):
    """Scale (a parameter) and shift (a constant) of every channel."""

    shift: Tensor

    def __init__(self, channels: int, rng: Random) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        shift = torch.tensor([rng.gauss(0, 0.5) for _ in range(channels)])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def activation(rng: Random, channels: int) -> nn.Module:
    kinds: list[Callable[[], nn.Module]] = [
        nn.ReLU, lambda: nn.ReLU(inplace=True), nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh,
        lambda: nn.LeakyReLU(0.1, inplace=True), lambda: nn.PReLU(channels), nn.PReLU, nn.Identity,
    ]  # fmt: skip
    return rng.choice(kinds)()


def conv_unit(
    rng: Random, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, a norm with or without affine part or none, an activation; the size stays at stride 1."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=rng.random() < 0.5)
    norm = rng.choice([nn.BatchNorm2d(out_channels), nn.BatchNorm2d(out_channels, affine=False), nn.Identity()])
    return nn.Sequential(conv, norm, activation(rng, out_channels))


def width(rng: Random) -> int:
    return rng.choice([4, 8, 12, 16])


#: (random source, input shape) -> the step and its output shape
Builder = Callable[[Random, MapShape], tuple[nn.Module, MapShape]]


def chain(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    out = width(rng)
    if s.smaller_side >= 4 and rng.random() < 0.3:
        half = MapShape(out, (s.height + 1) // 2, (s.width + 1) // 2)
        return conv_unit(rng, s.channels, out, stride=2), half
    return conv_unit(rng, s.channels, out, rng.choice([1, 3, 5])), MapShape(out, s.height, s.width)


def residual(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    out, hidden = rng.choice([s.channels, width(rng)]), width(rng)
    body = nn.Sequential(conv_unit(rng, s.channels, hidden), conv_unit(rng, hidden, out, 1))
    shortcut = nn.Identity() if out == s.channels else nn.Conv2d(s.channels, out, 1)

    def in_place(x: Tensor, body: nn.Module, shortcut: nn.Module) -> Tensor:
        y: Tensor = body(x)
        y += shortcut(x)
        return y.relu_()

    def pure(x: Tensor, body: nn.Module, shortcut: nn.Module) -> Tensor:
        return F.relu(shortcut(x) + body(x))

    step = Apply(rng.choice([in_place, pure]), body=body, shortcut=shortcut)
    return step, MapShape(out, s.height, s.width)


def concat(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    a, b = width(rng), width(rng)
    if rng.random() < 0.5 and s.channels <= 16:
        step = Apply(lambda x, m: torch.cat([x, m(x)], 1), m=conv_unit(rng, s.channels, a))
        return step, MapShape(s.channels + a, s.height, s.width)
    branches = {"a": conv_unit(rng, s.channels, a), "b": conv_unit(rng, s.channels, b, 1)}
    return Apply(lambda x, m, n: torch.cat([m(x), n(x)], 1), **branches), MapShape(a + b, s.height, s.width)


def depthwise(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    out, hidden = width(rng), s.channels * rng.choice([1, 1, 2])
    step = nn.Sequential(conv_unit(rng, s.channels, hidden, groups=s.channels), conv_unit(rng, hidden, out, 1))
    return step, MapShape(out, s.height, s.width)


def grouped(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    out = width(rng)
    return conv_unit(rng, s.channels, out, groups=rng.choice([2, 4])), MapShape(out, s.height, s.width)


def shared(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    """One module applied twice, or two modules with one weight."""
    unit = conv_unit(rng, s.channels, s.channels)
    if rng.random() < 0.5:
        return Apply(lambda x, m: m(m(x)), m=unit), s
    twin = nn.Conv2d(s.channels, s.channels, 3, padding=1)
    conv = unit[0]
    assert isinstance(conv, nn.Conv2d)
    twin.weight = conv.weight
    return nn.Sequential(unit, twin), s


def pool(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    if s.smaller_side < 4:
        return nn.MaxPool2d(3, 1, 1), s
    kinds: list[tuple[nn.Module, int, int]] = [
        (nn.MaxPool2d(2), s.height // 2, s.width // 2),
        (nn.AvgPool2d(2), s.height // 2, s.width // 2),
        (nn.AdaptiveMaxPool2d((3, 4)), 3, 4),
        (nn.AdaptiveAvgPool2d((4, 3)), 4, 3),
    ]
    step, height, wide = rng.choice(kinds)
    return step, MapShape(s.channels, height, wide)


def upsample(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    if s.smaller_side > 6:
        return chain(rng, s)
    mode = rng.choice(["nearest", "bilinear", "transposed", "shuffle"])
    double = MapShape(s.channels, 2 * s.height, 2 * s.width)
    if mode == "transposed":
        out = width(rng)
        return nn.ConvTranspose2d(s.channels, out, 2, 2), MapShape(out, double.height, double.width)
    if mode == "shuffle":
        step = nn.Sequential(conv_unit(rng, s.channels, 4 * s.channels, 1), nn.PixelShuffle(2))
        return step, double
    return nn.Upsample(scale_factor=2, mode=mode), double


def split(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    """Part of the channels goes through a module, then all are joined again, perhaps in another order."""
    cut = rng.choice([s.channels // 2, s.channels // 4, s.channels - 1])
    if rng.random() < 0.5:
        cut = s.channels // 2
        parts: Callable[[Tensor], list[Tensor]] = lambda x: list(x.chunk(2, 1))  # noqa: E731
    elif rng.random() < 0.5:
        parts = lambda x: list(torch.split(x, [cut, s.channels - cut], 1))  # noqa: E731
    else:
        parts = lambda x: [x[:, :cut], x[:, cut:]]  # noqa: E731
    swap = rng.random() < 0.5

    def run(x: Tensor, m: nn.Module) -> Tensor:
        first, second = parts(x)
        return torch.cat([second, m(first)] if swap else [m(first), second], 1)

    return Apply(run, m=conv_unit(rng, cut, cut)), s


def channel_shuffle(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    groups = rng.choice([2, 4])
    c, h, w = s.channels, s.height, s.width

    def run(x: Tensor) -> Tensor:
        y = x.contiguous().view(-1, groups, c // groups, h, w).transpose(1, 2)
        return y.reshape(x.shape[0], c, h, w)

    return Apply(run), s


def squeeze_excite(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    gate = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(s.channels, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, s.channels, 1),
        nn.Sigmoid(),
    )
    return Apply(lambda x, g: x * g(x), g=gate), s


def per_channel(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    return PerChannel(s.channels, rng), s


def channels_last(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    """Linear layers over the channels of every position, with a shortcut."""
    hidden = width(rng)
    body = nn.Sequential(nn.Linear(s.channels, hidden), nn.GELU(), nn.Linear(hidden, s.channels))
    return Apply(lambda x, m: x + m(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), m=body), s


def awkward(rng: Random, s: MapShape) -> tuple[nn.Module, MapShape]:
    """What can't be pruned through, or only with care: it must stay correct."""

    def written_slice(x: Tensor, m: nn.Module) -> Tensor:
        y: Tensor = m(x)
        y[:, : s.channels // 2].sigmoid_()
        return y

    functions: list[Callable[..., Tensor]] = [
        written_slice,
        lambda x, m: m(x).flip(1),
        lambda x, m: m(x) - x.mean(1, keepdim=True),
        lambda x, m: m(x).softmax(1),
        lambda x, m: torch.stack([m(x), x], 1).amax(1),
        lambda x, m: F.pad(m(x)[:, :, 1:, :], (0, 0, 1, 0)),
        lambda x, m: m(x)[:, ::2].repeat_interleave(2, 1),
        lambda x, m: torch.cat([m(x), torch.zeros_like(x)], 1)[:, : s.channels],
        lambda x, m: m(x).unbind(1)[0].unsqueeze(1) + x,
    ]
    return Apply(rng.choice(functions), m=conv_unit(rng, s.channels, s.channels)), s


#: Steps with how often they occur.
BUILDERS: dict[Builder, int] = {
    chain: 3, residual: 3, concat: 2, depthwise: 2, grouped: 2, shared: 1, pool: 2, upsample: 1, split: 2,
    channel_shuffle: 1, squeeze_excite: 1, per_channel: 1, channels_last: 1, awkward: 2,
}  # fmt: skip
