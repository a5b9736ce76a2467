"""Random small convolutional networks, each a function of its seed: for what must hold of any network."""

from random import Random

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.architectures.random_steps import BUILDERS, Apply, Builder, MapShape, chain, conv_unit, width
from tests.architectures.redraw import redraw_

_WIDEST = 40


class LongSkip(nn.Module):
    """Joins the current map with an earlier one, as a sum or side by side."""

    def __init__(self, position: int, add: bool) -> None:
        super().__init__()
        self.position, self.add = position, add

    def forward(self, maps: list[Tensor]) -> Tensor:
        current, earlier = maps[-1], maps[self.position]
        return current + earlier if self.add else torch.cat([earlier, current], 1)


class RandomCnn(nn.Module):
    """Steps in a row, which may look back at earlier maps, and one or more heads.

    Attributes:
        input_shape: of one sample, (3, H, W) with H and W in 8 .. 12.
    """

    def __init__(
        self,
        recipe: str,
        input_shape: tuple[int, int, int],
        steps: list[nn.Module],
        heads: list[tuple[int, nn.Module]],
    ) -> None:
        super().__init__()
        self.recipe, self.input_shape = recipe, input_shape
        self.steps, self.heads = nn.ModuleList(steps), nn.ModuleList(head for _, head in heads)
        self.taps = [position for position, _ in heads]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        maps: list[Tensor] = [x]
        for step in self.steps:
            maps.append(step(maps) if isinstance(step, LongSkip) else step(maps[-1]))
        outputs = tuple(head(maps[tap]) for tap, head in zip(self.taps, self.heads, strict=True))
        return outputs if len(outputs) > 1 else outputs[0]

    def example(self, batch: int = 2, seed: int = 0) -> Tensor:
        """Inputs (batch, 3, H, W), normal, in the dtype of the network's parameters."""
        dtype = next(self.parameters()).dtype
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, *self.input_shape, generator=generator, dtype=torch.float64).to(dtype)

    def __repr__(self) -> str:
        return self.recipe


def random_cnn(seed: int, steps: int = 5) -> RandomCnn:
    """The network of a seed, in eval mode, with re-drawn weights.

    With fewer steps it has the first of the same steps. There is always something to prune.

    Args:
        seed: of the architecture and of the weights.
        steps: number of steps between the first convolution and the heads.
    """
    rng, heads_rng = Random(seed), Random(seed + 1)
    shapes = [MapShape(3, rng.randint(8, 12), rng.randint(8, 12))]
    names, modules = [], []
    with torch.random.fork_rng(devices=[]):
        for position in range(steps + 1):
            name, step, out = _step(rng, shapes) if position else _named(chain, rng, shapes[0])
            names.append(name)
            modules.append(step)
            shapes.append(out)
        heads = _heads(heads_rng, shapes)
    recipe = f"random_cnn(seed={seed}, steps={steps})  # {', '.join(names)}; {len(heads)} heads"
    network = RandomCnn(recipe, (3, shapes[0].height, shapes[0].width), modules, heads)
    return redraw_(network.eval(), seed)


def _named(builder: Builder, rng: Random, shape: MapShape) -> tuple[str, nn.Module, MapShape]:
    return builder.__name__, *builder(rng, shape)


def _step(rng: Random, shapes: list[MapShape]) -> tuple[str, nn.Module, MapShape]:
    current = shapes[-1]
    if current.channels > _WIDEST:
        narrow = MapShape(width(rng), current.height, current.width)
        return "narrow", conv_unit(rng, current.channels, narrow.channels, 1), narrow
    size = (current.height, current.width)
    earlier = [i for i, s in enumerate(shapes[1:-1], 1) if (s.height, s.width) == size]
    if earlier and rng.random() < 0.15:
        position = rng.choice(earlier)
        channels = shapes[position].channels
        add = channels == current.channels
        joined = channels if add else channels + current.channels
        skip = LongSkip(position, add)
        return f"skip from {position}", skip, MapShape(joined, current.height, current.width)
    return _named(rng.choices(list(BUILDERS), list(BUILDERS.values()))[0], rng, current)


def _heads(rng: Random, shapes: list[MapShape]) -> list[tuple[int, nn.Module]]:
    last = len(shapes) - 1
    heads = [(last, _classifier(rng, shapes[last]))]
    for _ in range(rng.choice([0, 0, 1, 2])):
        tap = rng.randint(1, last)
        shape = shapes[tap]
        dense_map = nn.Conv2d(shape.channels, 2, 1)
        heads.append((tap, rng.choice([dense_map, _classifier(rng, shape)])))
    return heads


def _classifier(rng: Random, shape: MapShape) -> nn.Module:
    """To features by one of the usual ways, a hidden layer, logits."""
    c, h, w = shape.channels, shape.height, shape.width
    ways = [
        (Apply(lambda x: x.mean((2, 3))), c),
        (nn.Flatten(), c * h * w),
        (Apply(lambda x: x.reshape(-1, c * h * w)), c * h * w),
        (Apply(lambda x: x.contiguous().view(x.shape[0], c, h * w).amax(2)), c),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), 4 * c),
    ]
    features, size = rng.choice(ways)
    hidden = rng.choice([6, 10])
    norm = rng.choice([nn.BatchNorm1d(hidden), nn.Identity()])
    # Few units after a mean over many positions: behind ReLU they might all be dead, and hide every error before.
    smooth = rng.choice([nn.SiLU(), nn.LeakyReLU(0.1, inplace=True), nn.Tanh()])
    return nn.Sequential(features, nn.Linear(size, hidden), norm, smooth, nn.Linear(hidden, 3))


def random_cnns(max_steps: int = 6) -> st.SearchStrategy[RandomCnn]:
    """Random networks that shrink to fewer steps; what is printed on failure rebuilds the network."""
    return st.builds(random_cnn, st.integers(0, 2**32 - 1), st.integers(1, max_steps))
