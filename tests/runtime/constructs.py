"""Small networks with what makes a 16-bit form of real ones hard, each with example inputs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LOWEST = torch.finfo(torch.float32).min


class Of(nn.Module):
    """A function of the inputs and of two layers of 8 channels."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function, self.first, self.second = function, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def attention(add: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Of, Tensor, Tensor], Tensor]:
    """Attention over tokens of which some are masked."""

    def run(self: Of, x: Tensor, keep: Tensor) -> Tensor:
        scores = self.first(x) @ x.transpose(1, 2)
        return add(scores, keep[:, None, :]).softmax(-1) @ self.second(x)

    return run


def causal(value: float) -> Callable[[Of, Tensor], Tensor]:
    def run(self: Of, x: Tensor) -> Tensor:
        mask = torch.full((6, 6), value).triu(1)
        return (self.first(x) @ x.transpose(1, 2) + mask).softmax(-1) @ self.second(x)

    return run


def rotary(self: Of, x: Tensor) -> Tensor:
    positions = torch.arange(x.shape[1] + 4000)[4000:, None].float()
    angles = positions @ (10000.0 ** -(torch.arange(0, 8, 2) / 8))[None]
    turned = torch.cat([-x[..., 4:], x[..., :4]], -1)
    return self.second(x * angles.cos().repeat(1, 2) + turned * angles.sin().repeat(1, 2))


def timestep(self: Of, x: Tensor, steps: Tensor) -> Tensor:
    angles = steps[:, None].float() * torch.exp(-torch.arange(4) * 2.0)
    return self.second(x + self.first(torch.cat([angles.sin(), angles.cos()], -1))[:, None])


def rms_norm(self: Of, x: Tensor) -> Tensor:
    y = self.first(x) * 1000
    return self.second(y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6))


class Maps(nn.Module):
    """A function of a map of 4 channels between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.first, self.second = function, nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.function(self.first(x)))
        return result


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(8, 8, batch_first=True, **options)
        self.out = nn.Linear(16 if options.get("bidirectional") else 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


def tokens(*others: Tensor) -> tuple[Tensor, ...]:
    return torch.randn(2, 6, 8), *others


KEEP = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
Case = tuple[Callable[[], nn.Module], tuple[Tensor, ...]]


def _tokens(function: Callable[..., Any], *others: Tensor) -> Case:
    return lambda: Of(function), tokens(*others)


def _map(function: Callable[[Tensor], Tensor]) -> Case:
    return lambda: Maps(function), (torch.randn(2, 3, 8, 8),)


CASES: Mapping[str, Case] = {
    "masked by where": _tokens(attention(lambda s, k: torch.where(k, s, LOWEST)), KEEP),
    "masked by masked_fill": _tokens(attention(lambda s, k: s.masked_fill(~k, -1e9)), KEEP),
    "masked by infinity": _tokens(attention(lambda s, k: s.masked_fill(~k, -torch.inf)), KEEP),
    "masked by a factor": _tokens(attention(lambda s, k: s + (1.0 - k.float()) * LOWEST), KEEP),
    "masked by a factor of integers": _tokens(attention(lambda s, k: s + (1.0 - k.float()) * -1e9), KEEP.long()),
    "attention with a mask": _tokens(
        lambda self, x, k: functional.scaled_dot_product_attention(
            self.first(x)[:, None], x[:, None], self.second(x)[:, None], attn_mask=k[:, None, None]
        ),
        KEEP,
    ),
    "causal attention": _tokens(
        lambda self, x: functional.scaled_dot_product_attention(
            self.first(x)[:, None], x[:, None], self.second(x)[:, None], is_causal=True
        )
    ),
    **{f"causal mask of {value:g}": _tokens(causal(value)) for value in (LOWEST, -1e9, -torch.inf)},
    "rotary positions": _tokens(rotary),
    "timesteps": _tokens(timestep, torch.tensor([981, 7])),
    "RMS norm of large values": _tokens(rms_norm),
    "squares of large values": _tokens(lambda self, x: self.second((y := self.first(x) * 2000) * y / 1e6)),
    "norm with an epsilon": _tokens(lambda self, x: self.second(functional.normalize(self.first(x) * 0, dim=-1))),
    "logarithm with an epsilon": _tokens(lambda self, x: torch.log(self.second(x).relu() + 1e-7)),
    "inverse sigmoid": _tokens(lambda self, x: torch.logit(self.first(x).sigmoid(), eps=1e-5)),
    "maximum of tensors": _tokens(lambda self, x: torch.maximum(self.first(x), self.second(x)).minimum(x)),
    "clamp by tensors": _tokens(lambda self, x: self.first(x).clamp(self.second(x), x.abs())),
    "clamp by numbers": _tokens(lambda self, x: self.second(self.first(x).clamp(-1e6, 1e6))),
    "a large factor": _tokens(lambda self, x: self.second(self.first(x) * 1e-6) * 1e6),
    "einsum": _tokens(lambda self, x: torch.einsum("bij,bkj->bik", self.first(x), self.second(x))),
    "a constant output": _tokens(lambda self, x: (self.first(x), torch.arange(4.0), torch.tensor(-1e9))),
    "integer outputs": _tokens(lambda self, x: (self.first(x), self.second(x).argmax(-1))),
    "an input as output": _tokens(lambda self, x: (x, self.first(x))),
    "an inner value as output": _tokens(lambda self, x: ((y := self.first(x)), self.second(y), y.relu())),
    "whole numbers as floats": _tokens(lambda self, x: self.first(x) * (torch.arange(6)[:, None] + 5000)),
    "top k": _tokens(lambda self, x: torch.topk(self.first(x), 3, dim=-1)[0]),
    "cumulative sum": _tokens(lambda self, x: self.second(self.first(x).cumsum(1))),
    "gathered": _tokens(lambda self, x, i: self.second(self.first(x).gather(1, i)), torch.randint(0, 6, (2, 6, 8))),
    "scattered": _tokens(
        lambda self, x, i: self.first(x).scatter(1, i, self.second(x)), torch.arange(6)[None, :, None].repeat(2, 1, 8)
    ),
    "scattered and added": _tokens(
        lambda self, x: torch.zeros_like(x).scatter_add(
            1, (torch.arange(6) // 2)[None, :, None].expand(len(x), 6, 8), self.first(x)
        )
    ),
    "group norm": _map(lambda x: functional.group_norm(x, 2)),
    "layer norm": _tokens(lambda self, x: self.second(functional.layer_norm(self.first(x), (8,), eps=1e-12))),
    "instance norm": _map(functional.instance_norm),
    "nearest by scale": _map(lambda x: functional.interpolate(x, scale_factor=2)),
    "bilinear by scale": _map(lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear")),
    "bicubic to a size": _map(lambda x: functional.interpolate(x, size=(5, 7), mode="bicubic")),
    "grid sample": _map(
        lambda x: functional.grid_sample(
            x,
            functional.affine_grid(torch.eye(2, 3)[None].expand(len(x), 2, 3), [len(x), 4, 8, 8], False),
            align_corners=False,
        )
    ),
    "adaptive pool": _map(lambda x: functional.adaptive_avg_pool2d(x, 4)),
    "max pool": _map(lambda x: functional.max_pool2d(x, 3, 2, 1)),
    "constant padding": _map(lambda x: functional.pad(x, (1, 1, 0, 0), value=-1e9).amax(3, keepdim=True)),
    "reflection": _map(lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect")),
    "variance": _map(lambda x: x / (x.var(1, keepdim=True) + 1e-6).sqrt()),
    "mish": _map(functional.mish),
    "gelu": _map(lambda x: functional.gelu(x, approximate="tanh")),
    "pixel shuffle": _map(lambda x: functional.pixel_unshuffle(functional.pixel_shuffle(x, 2), 2)),
    **{kind.__name__: ((lambda kind=kind: Recurrent(kind)), tokens()) for kind in (nn.LSTM, nn.GRU, nn.RNN)},
    "deep bidirectional LSTM": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), tokens()),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(20, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        (torch.randint(0, 20, (2, 6)),),
    ),
}
