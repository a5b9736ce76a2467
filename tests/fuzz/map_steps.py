"""Convolutions, linear layers, norms and activations on feature maps (N, C, H, W), and how their results are joined."""

from tests.fuzz.writing import Value, Writer


def width(w: Writer) -> int:
    return w.pick(8, 4, 12, 6, 16)


def divisor(w: Writer, *numbers: int) -> int:
    """Something above 1 that divides all the numbers, or 1."""
    return w.pick(*[d for d in (2, 4, 3) if not any(n % d for n in numbers)] or [1])


def activation(w: Writer, x: Value) -> Value:
    c = x.channels
    slopes = "" if len(x.shape) != 3 else f"{c}"
    texts = (
        f"{x}.relu()", f"{x}.sigmoid()", f"F.gelu({x})", f"F.relu({x}, inplace=True)", f"{x}.mul_(0.7).tanh_()",
        f"F.hardswish({x})", f"F.leaky_relu({x}, 0.1)", f"{x}.add_(0.3).sigmoid()", f"F.softplus({x}) - 0.5",
        f"F.silu({x}, inplace=True)", f"{x}.clamp(-1, 2)", "prelu",
    )  # fmt: skip
    text = w.pick(*texts)
    if text == "prelu":
        text = f"{w.layer('prelu', f'nn.PReLU({slopes})')}({x})"
    return w.let(text, *x.shape)


def norm(w: Writer, x: Value) -> Value:
    c = x.channels
    groups = divisor(w, c)
    kind = w.pick(
        "batch", "plain batch", "group", "instance", "affine instance", "layer", "functional group", "l2", "rms"
    )
    layers = {
        "batch": f"nn.BatchNorm2d({c})", "plain batch": f"nn.BatchNorm2d({c}, affine=False)",
        "group": f"nn.GroupNorm({groups}, {c})", "instance": f"nn.InstanceNorm2d({c})",
        "affine instance": f"nn.InstanceNorm2d({c}, affine=True)", "layer": f"nn.LayerNorm({c})",
    }  # fmt: skip
    if kind in layers:
        layer = w.layer("norm", layers[kind])
        inner = f"{layer}({x}.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)" if kind == "layer" else f"{layer}({x})"
        return w.let(inner, *x.shape)
    gain = w.parameter(c)
    if kind == "functional group":
        return w.let(f"F.group_norm({x}, {w.pick(1, groups)}, {gain}, {w.parameter(c)})", *x.shape)
    if kind == "rms":
        root = w.let(f"({x}.pow(2).mean(1, keepdim=True) + 1e-5).rsqrt()", 1, *x.shape[1:])
        return w.let(f"{x} * {root} * {gain}[:, None, None]", *x.shape)
    return w.let(f"F.normalize({x}, dim=1) * {gain}.view(1, -1, 1, 1)", *x.shape)


def convolved(w: Writer, x: Value, out: int, kernel: int = 3, groups: int = 1) -> Value:
    """A convolution that keeps the size."""
    bias = w.pick("", ", bias=False")
    tail = f", padding={kernel // 2}" if kernel > 1 else ""
    tail += f", groups={groups}" if groups > 1 else ""
    layer = w.layer("conv", f"nn.Conv2d({x.channels}, {out}, {kernel}{tail}{bias})")
    return w.let(f"{layer}({x})", out, *x.shape[1:])


def unit(w: Writer, x: Value, out: int, kernel: int = 3, groups: int = 1) -> Value:
    y = convolved(w, x, out, kernel, groups)
    if w.pick(False, True):
        y = norm(w, y)
    return activation(w, y)


def conv(w: Writer, x: Value) -> Value:
    return unit(w, x, width(w), w.pick(1, 3))


def strided(w: Writer, x: Value) -> Value:
    out, (h, wide) = width(w), x.shape[1:]
    kind = w.pick("stride", "dilation", "transposed")
    if kind == "stride" and min(h, wide) >= 4:
        layer = w.layer("conv", f"nn.Conv2d({x.channels}, {out}, 3, 2, 1)")
        return w.let(f"{layer}({x})", out, (h + 1) // 2, (wide + 1) // 2)
    if kind == "transposed" and max(h, wide) <= 8:
        depthwise = w.pick(False, False, True)
        out = x.channels if depthwise else out
        groups = x.channels if depthwise else w.pick(1, divisor(w, x.channels, out))
        layer = w.layer("up", f"nn.ConvTranspose2d({x.channels}, {out}, 2, 2, groups={groups})")
        return w.let(f"{layer}({x})", out, 2 * h, 2 * wide)
    layer = w.layer("conv", f"nn.Conv2d({x.channels}, {out}, 3, padding=2, dilation=2)")
    return w.let(f"{layer}({x})", out, h, wide)


def grouped(w: Writer, x: Value) -> Value:
    groups = divisor(w, x.channels)
    return unit(w, x, groups * w.pick(2, 1, 4, 3), w.pick(1, 3), groups)


def depthwise(w: Writer, x: Value) -> Value:
    y = unit(w, x, x.channels * w.pick(1, 2), 3, x.channels)
    return unit(w, y, width(w), 1) if w.pick(True, False) else y


def residual(w: Writer, x: Value) -> Value:
    y = unit(w, x, width(w), w.pick(3, 1)) if w.pick(False, True) else x
    y = convolved(w, y, x.channels, w.pick(1, 3))
    joins = (
        f"{x} + {y}", f"{y}.add_({x}).relu_()", f"{y} - {x}", f"{x} * {y}", f"{x} * {y}.sigmoid()",
        f"torch.maximum({x}, {y})", f"torch.where({y} > 0.5, {x}, {y})", f"{x} / (1 + {y}.abs())",
        f"{x}.mul({y}).add_({x})", f"torch.stack([{x}, {y}], 1).sum(1)", f"torch.stack([{x}, {y}]).amax(0)",
        f"torch.lerp({x}, {y}, 0.3)",
    )  # fmt: skip
    if w.pick(False, True):
        w.do(f"{y} += {x}")
        return w.let(f"F.relu({y})", *x.shape)
    return w.let(w.pick(*joins), *x.shape)


def long_skip(w: Writer, x: Value) -> Value:
    """Joins the current map with an earlier one of its size."""
    earlier = [value for value in w.passed[1:] if len(value.shape) == 3 and value.shape[1:] == x.shape[1:]]
    if not earlier:
        return residual(w, x)
    other = w.pick(*earlier)
    if w.pick(False, True):
        return w.let(f"torch.cat([{other}, {x}], 1)", other.channels + x.channels, *x.shape[1:])
    y = other if other.channels == x.channels else convolved(w, other, x.channels, 1)
    return w.let(w.pick(f"{x} + {y}", f"{y} * {x}"), *x.shape)


def concat(w: Writer, x: Value) -> Value:
    c, size = x.channels, x.shape[1:]
    y = unit(w, x, width(w), w.pick(1, 3))
    kind = w.pick("with", "itself", "twice", "zeros", "input", "branches")
    if kind == "itself":
        return w.let(f"torch.cat([{y}, {y}], 1)", 2 * y.channels, *size)
    if kind == "twice":
        return w.let(f"torch.cat([{x}, {y}, {x}.relu()], 1)", 2 * c + y.channels, *size)
    if kind == "zeros":
        h, wide = size
        zeros = w.pick(f"torch.zeros_like({y})", f"{y}.new_zeros({y}.shape[0], {y.channels}, {h}, {wide})")
        return w.let(f"torch.cat([{zeros}, {y}], 1)", 2 * y.channels, *size)
    if kind == "branches":
        other = unit(w, x, width(w), 1)
        return w.let(f"torch.cat([{y}, {other}], 1)", y.channels + other.channels, *size)
    return w.let(f"torch.cat([{x}, {y}], 1)", c + y.channels, *size)


def shared(w: Writer, x: Value) -> Value:
    """One module called twice, or one weight used by several operators."""
    c, size = x.channels, x.shape[1:]
    layer = w.layer("conv", f"nn.Conv2d({c}, {c}, {w.pick('1', '3, padding=1')})")
    kind = w.pick("twice", "sum", "twin", "cat", "transposed", "stage")
    if kind == "sum":
        return w.let(f"{layer}({x}) + {layer}({x}.sigmoid())", *x.shape)
    if kind == "cat":
        return w.let(f"torch.cat([{layer}({x}), {layer}({x}.tanh())], 1)", 2 * c, *size)
    if kind == "transposed":
        return w.let(f"F.conv_transpose2d({layer}({x}).relu(), {layer}.weight, padding={layer}.padding)", *x.shape)
    if kind == "twin":
        other = w.layer("twin", f"nn.Conv2d({c}, {c}, {layer}.kernel_size, padding={layer}.padding)")
        w.layers.append(f"{other}.weight = {layer}.weight")
        return w.let(f"{other}({layer}({x}).relu())", *x.shape)
    if kind == "stage":
        own = unit(w, x, c, 1)
        return w.let(f"{layer}({own}) * {layer}({x})", *x.shape)
    return w.let(f"{layer}({layer}({x}).relu())", *x.shape)


def gated(w: Writer, x: Value) -> Value:
    out = width(w)
    y = convolved(w, x, 2 * out, w.pick(1, 3))
    a = f"{y}[:, :{out}]"
    kinds = (f"F.glu({y}, 1)", f"{a} * {y}[:, {out}:].sigmoid()", f"torch.mul(*{y}.chunk(2, 1))",
             f"{y}.unflatten(1, (2, {out})).prod(1)", f"{y}.unflatten(1, ({out}, 2)).amax(2)")  # fmt: skip
    return w.let(w.pick(*kinds), out, *x.shape[1:])


def channels_last(w: Writer, x: Value) -> Value:
    """Linear layers over the channels of every position."""
    hidden, c = width(w), x.channels
    a, b = w.layer("fc", f"nn.Linear({c}, {hidden})"), w.layer("fc", f"nn.Linear({hidden}, {c})")
    y = w.let(f"{x}.permute(0, 2, 3, 1)", *x.shape[1:], c)
    kinds = (
        f"{b}({a}({y}).relu()).permute(0, 3, 1, 2)",
        f"{b}({a}({y}.reshape(-1, {c})).relu()).view(-1, {x.shape[1]}, {x.shape[2]}, {c}).permute(0, 3, 1, 2)",
        f"F.linear({a}({y}).relu(), {a}.weight.t(), {b}.bias).movedim(-1, 1)",
        f"({a}({y}).sigmoid() @ {b}.weight.T + {b}.bias).permute(0, 3, 1, 2).contiguous()",
        f"torch.einsum('nhwc,oc->nohw', {a}({y}).relu(), {b}.weight)",
    )
    z = w.let(w.pick(*kinds), *x.shape)
    return w.let(f"{x} + {z}", *x.shape) if w.pick(True, False) else z


def computed_weight(w: Writer, x: Value) -> Value:
    """Convolutions whose weight is computed from parameters."""
    c, out = x.channels, width(w)
    weight = w.parameter(out, c, 1, 1)
    kinds = (
        f"F.conv2d({x}, {weight} * {w.parameter(out)}.view(-1, 1, 1, 1))",
        f"F.conv2d({x}, {weight} - {weight}.mean((1, 2, 3), keepdim=True))",
        f"F.conv2d({x}, {weight} / ({weight}.flatten(1).norm(dim=1)[:, None, None, None] + 1e-3))",
        f"F.conv2d({x}, {weight} * {w.buffer(c, 1, 1)}, {w.parameter(out)})",
        f"torch.einsum('nchw,oc->nohw', {x}, {weight}[:, :, 0, 0])",
        f"F.conv2d({x}, {weight}.softmax(1))",
    )
    return w.let(w.pick(*kinds), out, *x.shape[1:])


def folded(w: Writer, x: Value) -> Value:
    """Channels that travel in the batch for a while."""
    c, h, wide = x.shape
    layer = w.layer("conv", "nn.Conv2d(1, 1, 3, padding=1)")
    kinds = (
        f"{layer}({x}.reshape(-1, 1, {h}, {wide})).view(-1, {c}, {h}, {wide})",
        f"{layer}({x}.flatten(0, 1).unsqueeze(1)).unflatten(0, (-1, {c})).squeeze(2)",
        f"{layer}({x}.reshape({x}.shape[0] * {c}, 1, {h}, {wide})).reshape({x}.shape[0], {c}, {h}, {wide})",
    )
    return w.let(w.pick(*kinds), *x.shape)
