"""Steps on tokens (N, T, C), and those between tokens and maps."""

from tests.fuzz.map_steps import width
from tests.fuzz.writing import Value, Writer

#: Longer sequences are shortened when a map becomes tokens.
LONGEST = 16


def tokens(w: Writer, x: Value) -> Value:
    """A map's positions, or patches of it, as tokens, with or without embeddings."""
    c, h, wide = x.shape
    if h * wide > LONGEST:
        c, h, wide = w.pick(8, 12, 16), (h + 2) // 3, (wide + 2) // 3
        x = w.let(f"{w.layer('patches', f'nn.Conv2d({x.channels}, {c}, 3, 3, 1)')}({x})", c, h, wide)
    t = h * wide
    y = w.let(w.pick(f"{x}.flatten(2).transpose(1, 2)", f"{x}.permute(0, 2, 3, 1).reshape(-1, {t}, {c})"), t, c)
    kind = w.pick("plain", "positions", "class token")
    if kind == "class token":
        first = w.parameter(1, 1, c)
        y = w.let(f"torch.cat([{first}.expand({y}.shape[0], -1, -1), {y}], 1)", t + 1, c)
    if kind != "plain":
        y = w.let(f"{y} + {w.parameter(1, y.shape[0], c)}", *y.shape)
    return y


def normed(w: Writer, x: Value) -> Value:
    c = x.channels
    kind = w.pick("layer", "rms", "none", "functional", "plain", "batch")
    layers = {
        "layer": f"nn.LayerNorm({c})",
        "rms": f"nn.RMSNorm({c})",
        "plain": f"nn.LayerNorm({c}, elementwise_affine=False)",
    }
    if kind in layers:
        return w.let(f"{w.layer('norm', layers[kind])}({x})", *x.shape)
    if kind == "batch":
        return w.let(f"{w.layer('norm', f'nn.BatchNorm1d({c})')}({x}.transpose(1, 2)).transpose(1, 2)", *x.shape)
    if kind == "functional":
        return w.let(f"F.layer_norm({x}, ({c},), {w.parameter(c)}, {w.parameter(c)})", *x.shape)
    return x


def linear(w: Writer, x: Value) -> Value:
    t, c = x.shape
    out = width(w)
    layer = w.layer("fc", f"nn.Linear({c}, {out})")
    kinds = (
        f"{layer}({x}).relu()",
        f"torch.einsum('ntc,oc->nto', {x}, {layer}.weight)",
        f"{x} @ {layer}.weight.T",
        f"torch.addmm({layer}.bias, {x}.flatten(0, 1), {layer}.weight.t()).unflatten(0, (-1, {t}))",
    )
    return w.let(w.pick(*kinds), t, out)


def mlp(w: Writer, x: Value) -> Value:
    t, c = x.shape
    hidden = width(w)
    y = normed(w, x)
    kind = w.pick("plain", "gated", "packed gate", "halves", "flat", "tied")
    packed = kind in ("packed gate", "halves")
    a = w.layer("fc", f"nn.Linear({c}, {2 * hidden if packed else hidden})")
    if kind == "tied":
        z = w.let(w.pick(f"F.linear(F.gelu({a}({y})), {a}.weight.t())", f"F.gelu({a}({y})) @ {a}.weight"), t, c)
    else:
        b = w.layer("fc", f"nn.Linear({hidden}, {c})")
        inner = {
            "plain": f"F.gelu({a}({y}))",
            "packed gate": f"F.glu({a}({y}))",
            "halves": f"torch.mul(*{a}({y}).chunk(2, dim=-1))",
            "flat": f"{a}({y}.reshape(-1, {c})).relu()",
        }
        if kind == "gated":
            inner[kind] = f"F.silu({w.layer('gate', f'nn.Linear({c}, {hidden}, bias=False)')}({y})) * {a}({y})"
        z = w.let(f"{b}({inner[kind]})" + (f".reshape(-1, {t}, {c})" if kind == "flat" else ""), t, c)
    ways = ("{x} + {z}", "{x} + {scale} * {z}", "{z}", "{x} + {z} * {x}.mean(1, keepdim=True)")
    way = w.pick(*ways)
    return w.let(way.format(x=x, z=z, scale=w.parameter(c) if "scale" in way else ""), t, c)


def mix_tokens(w: Writer, x: Value) -> Value:
    t, c = x.shape
    hidden = w.pick(6, 4)
    a, b = w.layer("mix", f"nn.Linear({t}, {hidden})"), w.layer("mix", f"nn.Linear({hidden}, {t})")
    y = normed(w, x)
    z = w.let(f"{b}(F.gelu({a}({y}.transpose(1, 2)))).transpose(1, 2)", t, c)
    return w.let(f"{x} + {z}", t, c)


def along_tokens(w: Writer, x: Value) -> Value:
    t, c = x.shape
    out = w.pick(c, width(w))
    groups = w.pick(1, c) if out == c else 1
    layer = w.layer("conv", f"nn.Conv1d({c}, {out}, 3, padding=1, groups={groups})")
    return w.let(f"{layer}({x}.transpose(1, 2)).transpose(1, 2)", t, out)


def token_parts(w: Writer, x: Value) -> Value:
    """Tokens or channels are cut, doubled or reordered."""
    t, c = x.shape
    if c < 2:
        return linear(w, x)
    kinds = [
        (f"torch.cat([{x}, {x}.tanh()], -1)", t, 2 * c),
        (f"torch.cat([{x}[:, 1:], {x}[:, :1]], 1)", t, c),
        (f"{x}[..., :{c // 2}] + {x}[..., {c - c // 2}:]", t, c // 2),
        (f"{x} - {x}.mean(1, keepdim=True)", t, c),
        (f"torch.cat([-{x}[..., {c // 2}:], {x}[..., :{c // 2}]], -1)", t, c),
        (f"{x}.flip(1)", t, c),
        (f"torch.stack([{x}, {x}.sigmoid()], 2).flatten(1, 2)", 2 * t, c),
    ]
    if t % 2 == 0:
        kinds.append((f"torch.cat([{x}[:, ::2], {x}[:, 1::2]], -1)", t // 2, 2 * c))
    text, *shape = w.pick(*kinds)
    return w.let(text, *shape)


def to_map(w: Writer, x: Value) -> Value:
    t, c = x.shape
    h = max(d for d in range(1, int(t**0.5) + 1) if t % d == 0)
    kinds = (
        f"{x}.transpose(1, 2).reshape(-1, {c}, {h}, {t // h})",
        f"{x}.reshape({x}.shape[0], {h}, {t // h}, {c}).permute(0, 3, 1, 2)",
    )
    return w.let(w.pick(*kinds), c, h, t // h)
