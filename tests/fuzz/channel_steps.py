"""What is done to the channels and positions of feature maps (N, C, H, W) between layers."""

from tests.fuzz.map_steps import conv, convolved, divisor, unit, width
from tests.fuzz.writing import Value, Writer


def split(w: Writer, x: Value) -> Value:
    """Parts of the channels go their own ways and are joined again, perhaps in another order."""
    c, size = x.channels, x.shape[1:]
    cut = w.pick(c // 2, 1, c - 1, c // 4 or 1)
    kind = w.pick("chunk", "split", "slice", "sizes", "tensor_split", "unbind")
    if kind == "chunk" or c < 2:
        cut = (c + 1) // 2
    text = {
        "chunk": f"{x}.chunk(2, 1)", "split": f"{x}.split([{cut}, {c - cut}], 1)",
        "slice": f"{x}[:, :{cut}], {x}[:, {cut}:]", "sizes": f"torch.split({x}, [{cut}, {c - cut}], dim=-3)",
        "tensor_split": f"torch.tensor_split({x}, [{cut}], 1)",
        "unbind": f"{x}[:, :{cut}], torch.stack({x}.unbind(1)[{cut}:], 1)",
    }[kind]  # fmt: skip
    if c < 2:
        return conv(w, x)
    a, b = w.several(text, (cut, *size), (c - cut, *size))
    out = w.pick(cut, width(w))
    moved = unit(w, a, out, w.pick(1, 3))
    if w.pick(False, True) and out == c - cut:
        return w.let(w.pick(f"{moved} + {b}", f"{moved} * {b}.sigmoid()"), out, *size)
    joined = w.pick(
        f"torch.cat([{moved}, {b}], 1)", f"torch.cat([{b}, {moved}], 1)", f"torch.cat(({b}, {moved}, {a}), 1)"
    )
    return w.let(joined, out + c - cut + (cut if joined.endswith(f"{a}), 1)") else 0), *size)


def shuffle(w: Writer, x: Value) -> Value:
    c, h, wide = x.shape
    g = divisor(w, c)
    n = f"{x}.shape[0]"
    kinds = (
        (f"{x}.reshape({n}, {g}, {c // g}, {h}, {wide}).transpose(1, 2).reshape({n}, {c}, {h}, {wide})", x.shape),
        (f"{x}.reshape(-1, {g}, {c // g}, {h}, {wide}).transpose(1, 2).flatten(1, 2)", x.shape),
        (f"F.channel_shuffle({x}, {g})", x.shape),
        (f"{x}.unflatten(1, ({c // g}, {g})).permute(0, 2, 1, 3, 4).reshape(-1, {c}, {h}, {wide})", x.shape),
        (f"{x}.unflatten(1, (-1, {g})).sum(2)", (c // g, h, wide)),
        (f"{x}.unflatten(1, ({g}, -1)).amax(1)", (c // g, h, wide)),
        (f"torch.roll({x}, 1, 1)", x.shape),
        (f"{x}.flip(1)", x.shape),
    )
    text, shape = w.pick(*kinds)
    return w.let(text, *shape)


def pixels(w: Writer, x: Value) -> Value:
    c, h, wide = x.shape
    if max(h, wide) <= 8 and w.pick(True, False):
        y = convolved(w, x, 4 * w.pick(2, 4), 1) if c % 4 or w.pick(True, False) else x
        return w.let(f"F.pixel_shuffle({y}, 2)", y.channels // 4, 2 * h, 2 * wide)
    if h % 2 == wide % 2 == 0:
        y = convolved(w, x, 4, 1)
        quarters = ", ".join(f"{y}[..., {i}::2, {j}::2]" for j in (0, 1) for i in (0, 1))
        patches = f"F.unfold({y}, 2, stride=2).unflatten(2, ({h // 2}, {wide // 2}))"
        kinds = (f"F.pixel_unshuffle({y}, 2)", patches, f"torch.cat([{quarters}], 1)")
        return w.let(w.pick(*kinds), 16, h // 2, wide // 2)
    return pool(w, x)


def squeeze_excite(w: Writer, x: Value) -> Value:
    c = x.channels
    pooled = w.pick(f"{x}.mean((2, 3), keepdim=True)", f"F.adaptive_avg_pool2d({x}, 1)", f"{x}.amax((-2, -1), True)")
    gate = w.pick("sigmoid()", "tanh()", "clamp(0, 1)")
    if w.pick(True, False):
        a, b = w.layer("reduce", f"nn.Conv2d({c}, 4, 1)"), w.layer("expand", f"nn.Conv2d(4, {c}, 1)")
        y = w.let(f"{b}({a}({pooled}).relu_()).{gate}", c, 1, 1)
    else:
        a, b = w.layer("reduce", f"nn.Linear({c}, 4)"), w.layer("expand", f"nn.Linear(4, {c})")
        back = w.pick("[:, :, None, None]", f".view(-1, {c}, 1, 1)", f".reshape({x}.shape[0], {c}, 1, 1)")
        y = w.let(f"{b}({a}({pooled}.flatten(1)).relu()).{gate}{back}", c, 1, 1)
    return w.let(w.pick(f"{x} * {y}", f"{y}.expand_as({x}) * {x}", f"{x} * {y} + {x}", f"{x}.mul_({y})"), *x.shape)


def channel_attention(w: Writer, x: Value) -> Value:
    """A gate by a convolution along the channels."""
    layer = w.layer("conv", "nn.Conv1d(1, 1, 3, padding=1, bias=False)")
    pooled = w.pick(f"{x}.mean((2, 3)).unsqueeze(1)", f"F.adaptive_avg_pool2d({x}, 1).squeeze(-1).transpose(-1, -2)")
    y = w.let(f"{layer}({pooled}).sigmoid()", 1, x.channels)
    return w.let(f"{x} * {y}.transpose(1, 2).unsqueeze(-1)", *x.shape)


def spatial_gate(w: Writer, x: Value) -> Value:
    """A gate by position, from statistics over the channels."""
    layer = w.layer("conv", "nn.Conv2d(2, 1, 3, padding=1)")
    y = w.let(f"torch.cat([{x}.mean(1, keepdim=True), {x}.amax(1, keepdim=True)], 1)", 2, *x.shape[1:])
    return w.let(f"{x} * {layer}({y}).sigmoid()", *x.shape)


def per_channel(w: Writer, x: Value) -> Value:
    c = x.channels
    a, b = w.parameter(c, 1, 1), w.pick(w.parameter, w.buffer)(1, c, 1, 1)
    kinds = (
        f"{x} * {a} + {b}", f"torch.addcmul({b}, {x}, {a})", f"{x} - {b} * {a}", f"({x} + {b}).mul_({a})",
        f"{x} * torch.linspace(0.5, 1.5, {c}).to({x})[:, None, None]", f"{x} * {a}.exp() + {x}",
        f"torch.cat([{x}, {b}.expand({x}.shape[0], {c}, {x.shape[1]}, {x.shape[2]})], 1)",
        f"{x} + {b}.repeat({x}.shape[0], 1, 1, 1)",
    )  # fmt: skip
    text = w.pick(*kinds)
    return w.let(text, 2 * c if "cat" in text else c, *x.shape[1:])


def pool(w: Writer, x: Value) -> Value:
    c, h, wide = x.shape
    kinds = [(f"F.max_pool2d({x}, 3, 1, 1)", h, wide), (f"F.interpolate({x}, size=(5, 6))", 5, 6)]
    if min(h, wide) >= 4:
        half = (h // 2, wide // 2)
        kinds += [(f"F.max_pool2d({x}, 2)", *half), (f"F.avg_pool2d({x}, 2)", *half),
                  (f"F.adaptive_max_pool2d({x}, (3, 4))", 3, 4), (f"F.lp_pool2d({x}, 2, 2)", *half)]  # fmt: skip
    if max(h, wide) <= 6:
        kinds += [(f"F.interpolate({x}, scale_factor=2, mode='bilinear')", 2 * h, 2 * wide)]
    text, *size = w.pick(*kinds)
    return w.let(text, c, *size)


def pad(w: Writer, x: Value) -> Value:
    c, h, wide = x.shape
    kinds = (
        (f"F.pad({x}, (1, 1, 1, 0))", c, h + 1, wide + 2),
        (f"F.pad({x}, (1, 1, 0, 0), mode='reflect')", c, h, wide + 2),
        (f"F.pad({x}, (0, 0, 0, 0, 2, 1))", c + 3, h, wide),
        (f"F.pad({x}, (0, 0, 0, 0, 0, 2), value=0.5)", c + 2, h, wide),
        (f"F.pad({x}[:, :, 1:], (0, 0, 1, 0))", c, h, wide),
    )
    text, *shape = w.pick(*kinds)
    return w.let(text, *shape)


def cut(w: Writer, x: Value) -> Value:
    c, h, wide = x.shape
    if c < 4:
        return conv(w, x)
    kinds = (
        (f"{x}[:, 1:-1]", c - 2), (f"{x}[:, ::2]", (c + 1) // 2), (f"{x}.narrow(1, 1, {c // 2})", c // 2),
        (f"{x}[:, [0, 2, 1]]", 3), (f"{x}.index_select(1, torch.tensor([3, 0]))", 2), (f"{x}[:, -3:]", 3),
        (f"{x}[:, :3].repeat_interleave(2, 1)", 6), (f"{x}[:, :1] + {x}", c), (f"{x}[:, 2].unsqueeze(1) * {x}", c),
        (f"{x}.repeat(1, 2, 1, 1)", 2 * c), (f"{x}[:, 1:] - {x}[:, :-1]", c - 1),
        (f"{x}[:, :1].expand(-1, {c}, -1, -1) * {x}", c), (f"{x}.mean(1, True).repeat(1, {c}, 1, 1) + {x}", c),
    )  # fmt: skip
    text, out = w.pick(*kinds)
    return w.let(text, out, h, wide)


def mixing(w: Writer, x: Value) -> Value:
    """Operators that mix channels."""
    kinds = (
        f"{x} - {x}.mean(1, keepdim=True)", f"{x}.softmax(1)", f"{x}.cumsum(1) * 0.2", f"{x} + {x}.sum(1, True)",
        f"{x} / ({x}.norm(dim=1, keepdim=True) + 0.1)", f"{x} * {x}.amax(1, True).sigmoid()",
        f"{x} + {x}.var((1, 2, 3), keepdim=True)", f"{x} * torch.logsumexp({x}, 1, keepdim=True).tanh()",
        f"F.local_response_norm({x}, 3)", f"{x} + F.softplus({x}).sum(1, keepdim=True) * 0.1",
        f"{x} * (F.hardswish({x}).sum((1, 2, 3), keepdim=True) * 0.1).tanh()", f"{x} + {x}.sum(-3, True).relu()",
        f"{x} + torch.einsum('nchw,nchw->nhw', {x}, {x}).unsqueeze(1).tanh()",
    )  # fmt: skip
    return w.let(w.pick(*kinds), *x.shape)


def written_slice(w: Writer, x: Value) -> Value:
    """In-place writes to parts of a tensor."""
    y, c = convolved(w, x, max(2, x.channels), 1), max(2, x.channels)
    kinds = (f"{y}[:, :{c // 2}].sigmoid_()", f"{y}[:, {c // 2}:] *= 2", f"{y}[:, 0] = 0.5", f"{y}[:, :1].relu_()",
             f"{y}.flatten(2).mul_(0.5)", f"{y}[:, :, 0].add_(1)")  # fmt: skip
    w.do(w.pick(*kinds))
    return w.let(f"{y}.tanh()", *y.shape)
