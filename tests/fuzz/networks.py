"""Whole random networks: an image, steps in a row, and one or more heads."""

import itertools
import math
from dataclasses import dataclass
from random import Random

from hypothesis import strategies as st

from tests.fuzz.attention_steps import attention
from tests.fuzz.channel_steps import (
    channel_attention,
    cut,
    mixing,
    pad,
    per_channel,
    pixels,
    pool,
    shuffle,
    spatial_gate,
    split,
    squeeze_excite,
    written_slice,
)
from tests.fuzz.map_steps import (
    activation,
    channels_last,
    computed_weight,
    concat,
    conv,
    convolved,
    depthwise,
    folded,
    gated,
    grouped,
    long_skip,
    norm,
    residual,
    shared,
    strided,
    unit,
    width,
)
from tests.fuzz.token_steps import along_tokens, linear, mix_tokens, mlp, normed, to_map, token_parts, tokens
from tests.fuzz.writing import Step, Value, Writer, Written

#: Numbers of one step, and how many values each can have: a multiple of most numbers of options.
_DETAILS, _VALUES = 14, 120
#: Wider values are narrowed before the next step.
_WIDEST = 32
#: Steps with how often they occur; the simplest first.
_MAP_STEPS: dict[Written, int] = {
    conv: 3, residual: 4, concat: 3, split: 3, shuffle: 3, grouped: 3, squeeze_excite: 2, shared: 2, depthwise: 2,
    strided: 2, activation: 1, norm: 3, long_skip: 2, pixels: 2, channel_attention: 1, spatial_gate: 1, per_channel: 2,
    pool: 2, pad: 2, cut: 2, mixing: 3, gated: 2, channels_last: 2, computed_weight: 2, folded: 1, written_slice: 1,
    tokens: 5,
}  # fmt: skip
_TOKEN_STEPS: dict[Written, int] = {
    linear: 2, mlp: 4, attention: 5, normed: 1, mix_tokens: 1, along_tokens: 1, token_parts: 2, to_map: 1,
}  # fmt: skip
_ON_MAPS = [step for step, times in _MAP_STEPS.items() for _ in range(times)]
_ON_TOKENS = [step for step, times in _TOKEN_STEPS.items() for _ in range(times)]


@dataclass(frozen=True)
class Description:
    """What a network is written from.

    Attributes:
        first: the image and the first convolution.
        steps: between it and the head.
        head: the head, and whether there is a second output.
    """

    first: Step
    steps: tuple[Step, ...]
    head: Step

    def source(self) -> str:
        """The network's source code, the same every time."""
        w = Writer(list(self.first.details))
        image = (3, *w.pick((8, 8), (6, 8), (8, 7)))
        x = unit(w, Value("x", image), width(w), w.pick(3, 1))
        w.passed += [Value("x", image), x]
        for step in self.steps:
            w.details = list(step.details)
            if x.channels > _WIDEST:
                x = _narrowed(w, x)
            steps = _ON_MAPS if len(x.shape) == 3 else _ON_TOKENS
            x = steps[step.kind * len(steps) // _VALUES](w, x)
            w.passed.append(x)
        w.details = list(self.head.details)
        results = [_head(w, x)]
        if w.pick(False, False, True):
            results.append(_second_output(w, w.pick(*w.passed[1:])))
        return w.source(image, ", ".join(map(str, results)))


def _narrowed(w: Writer, x: Value) -> Value:
    if len(x.shape) == 3:
        return convolved(w, x, width(w), 1)
    out = width(w)
    return w.let(f"{w.layer('fc', f'nn.Linear({x.channels}, {out})')}({x})", x.shape[0], out)


def _head(w: Writer, x: Value) -> Value:
    """To features by one of the usual ways, perhaps a hidden layer, logits."""
    c, size = x.channels, math.prod(x.shape)
    if len(x.shape) == 3:
        ways = [
            (f"{x}.mean((2, 3))", c),
            (f"{x}.flatten(1)", size),
            (f"{x}.reshape(-1, {size})", size),
            (f"F.adaptive_avg_pool2d({x}, 1).flatten(1)", c),
            (f"{x}.amax((-1, -2))", c),
            (f"F.adaptive_avg_pool2d({x}, (2, 2)).reshape({x}.shape[0], {4 * c})", 4 * c),
        ]
    else:
        ways = [
            (f"{x}.mean(1)", c),
            (f"{x}[:, 0]", c),
            (f"{x}.flatten(1)", size),
            (f"{x}.transpose(1, 2).flatten(1)", size),
        ]
    text, features = w.pick(*ways)
    y = w.let(text, features)
    if w.pick(False, True):
        hidden = w.pick(6, 10)
        layer = w.layer("fc", f"nn.Linear({features}, {hidden})")
        y = w.let(w.pick(f"F.silu({layer}({y}))", f"{layer}({y}).tanh()", f"{layer}({y})"), hidden)
        if w.pick(False, True):
            y = w.let(f"{w.layer('norm', f'nn.BatchNorm1d({hidden})')}({y})", hidden)
    return w.let(f"{w.layer('head', f'nn.Linear({y.channels}, 3)')}({y})", 3)


def _second_output(w: Writer, x: Value) -> Value:
    if len(x.shape) == 3 and w.pick(True, False):
        return w.let(f"{w.layer('map', f'nn.Conv2d({x.channels}, 2, 1)')}({x})", 2, *x.shape[1:])
    return _head(w, x)


def descriptions(most: int = 6) -> st.SearchStrategy[Description]:
    """Random networks; they shrink to fewer steps with simpler details."""
    number = st.integers(0, _VALUES - 1)
    step = st.builds(Step, number, st.tuples(*[number] * _DETAILS))
    # Lists of hypothesis are often empty; of these steps three in four are there.
    present = st.tuples(*[st.sampled_from([False, True, True, True])] * most)
    chosen = st.builds(lambda where, steps: tuple(itertools.compress(steps, where)), present, st.tuples(*[step] * most))
    return st.builds(Description, step, chosen, step)


def described(seed: int, steps: int = 4) -> Description:
    """The description of a seed. With fewer steps it has the first of the same steps."""
    rng = Random(seed)

    def step() -> Step:
        return Step(rng.randrange(_VALUES), tuple(rng.randrange(_VALUES) for _ in range(_DETAILS)))

    first, head = step(), step()
    return Description(first, tuple(step() for _ in range(steps)), head)
