"""Self-attention over tokens (N, T, C), with the heads made and joined in the usual ways."""

from tests.fuzz.token_steps import normed
from tests.fuzz.writing import Value, Writer

#: Queries, keys and values, each (heads, T, head dimension).
Heads = tuple[Value, Value, Value]


def attention(w: Writer, x: Value) -> Value:
    t, c = x.shape
    heads, d = w.pick(2, 4, 1, 3), w.pick(4, 2, 6)
    kind = w.pick("packed", "apart", "grouped", "linear", "one key")
    y = normed(w, x)
    fewer = {"grouped": heads // 2 if heads % 2 == 0 else heads, "one key": 1}.get(kind, heads)
    qkv = _packed(w, y, heads, d) if kind == "packed" else _apart(w, y, heads, fewer, d)
    if w.pick(False, False, True):
        qkv = (*(w.let(f"F.normalize({v}, dim=-1) * 2", *v.shape) for v in qkv[:2]), qkv[2])
    z = _linear_attention(w, qkv) if kind == "linear" else _product(w, _repeated(w, qkv))
    joined = w.pick(
        f"{z}.transpose(1, 2).reshape(-1, {t}, {heads * d})",
        f"{z}.permute(0, 2, 1, 3).flatten(2)",
        f"{z}.transpose(1, 2).contiguous().view({x}.shape[0], {t}, -1)",
    )
    out = w.let(f"{w.layer('out', f'nn.Linear({heads * d}, {c})')}({joined})", t, c)
    return w.let(f"{x} + {out}", t, c) if w.pick(True, False) else out


def _packed(w: Writer, x: Value, heads: int, d: int) -> Heads:
    """All three from one layer."""
    t, c = x.shape
    layer = w.layer("qkv", f"nn.Linear({c}, {3 * heads * d}{w.pick('', ', bias=False')})")
    text = w.pick(
        f"{layer}({x}).reshape(-1, {t}, 3, {heads}, {d}).permute(2, 0, 3, 1, 4).unbind(0)",
        f"(part.unflatten(2, ({heads}, {d})).transpose(1, 2) for part in {layer}({x}).chunk(3, -1))",
        f"{layer}({x}).view({x}.shape[0], {t}, {heads}, {3 * d}).transpose(1, 2).chunk(3, -1)",
        f"(part.view(-1, {t}, {heads}, {d}).transpose(1, 2) for part in {layer}({x}).split({heads * d}, 2))",
        f"{layer}({x}).reshape(-1, {t}, {heads}, {d}, 3).permute(4, 0, 2, 1, 3)",
    )
    q, k, v = w.several(text, (heads, t, d), (heads, t, d), (heads, t, d))
    return q, k, v


def _apart(w: Writer, x: Value, heads: int, fewer: int, d: int) -> Heads:
    """A layer each; keys and values may have fewer heads."""
    t, c = x.shape
    way = w.pick("reshape(-1, {t}, {n}, {d})", "unflatten(-1, ({n}, {d}))", "view({x}.shape[0], {t}, {n}, -1)")
    found = []
    for n in (heads, fewer, fewer):
        layer = w.layer("proj", f"nn.Linear({c}, {n * d})")
        found.append(w.let(f"{layer}({x}).{way.format(t=t, n=n, d=d, x=x)}.transpose(1, 2)", n, t, d))
    return found[0], found[1], found[2]


def _repeated(w: Writer, qkv: Heads) -> Heads:
    """Keys and values for as many heads as the queries have, unless attention itself or broadcasting does that."""
    q, k, v = qkv
    heads, fewer = q.shape[0], k.shape[0]
    if heads == fewer or w.pick(False, True):
        return qkv
    way = w.pick(
        "repeat_interleave({n}, 1)", "repeat(1, {n}, 1, 1)", "unsqueeze(2).expand(-1, -1, {n}, -1, -1).flatten(1, 2)"
    )
    k, v = (w.let(f"{y}.{way.format(n=heads // fewer)}", *q.shape) for y in (k, v))
    return q, k, v


def _linear_attention(w: Writer, qkv: Heads) -> Value:
    q, k, v = qkv
    heads, t, d = q.shape
    summed = w.let(f"{k}.softmax(2).transpose(-2, -1) @ {v}", heads, d, d)
    return w.let(f"{q}.softmax(-1) @ {summed}", heads, t, d)


def _product(w: Writer, qkv: Heads) -> Value:
    q, k, v = qkv
    heads, t, d = q.shape
    scores = {
        "matmul": f"{q} @ {k}.transpose(-2, -1) * {d**-0.5:.4f}",
        "einsum": f"torch.einsum('bhqd,bhkd->bhqk', {q}, {k}) / {d**0.5:.4f}",
        "scaled query": f"torch.matmul({q} * {d**-0.5:.4f}, {k}.mT)",
    }
    one_key = k.shape[0] == 1 < heads
    kind = w.pick("sdpa", *scores) if not one_key else "matmul"
    bias = w.pick(False, True) and (w.parameter(heads, t, t) if w.pick(True, False) else w.buffer(t, t))
    if k.shape[0] != heads and not one_key:
        return w.let(f"F.scaled_dot_product_attention({q}, {k}, {v}, enable_gqa=True)", heads, t, d)
    if kind == "sdpa":
        tail = f", attn_mask={bias}" if bias else w.pick("", ", is_causal=True", ", scale=0.3")
        return w.let(f"F.scaled_dot_product_attention({q}, {k}, {v}{tail})", heads, t, d)
    s = w.let(scores[kind] + (f" + {bias}" if bias else ""), heads, t, t)
    s = w.let(w.pick(f"{s}.softmax(-1)", f"F.softmax({s}, dim=-1)", f"{s}.sigmoid()"), heads, t, t)
    if one_key:
        return w.let(f"{s} @ {v}", heads, t, d)
    return w.let(w.pick(f"{s} @ {v}", f"torch.einsum('bhqk,bhkd->bhqd', {s}, {v})"), heads, t, d)
