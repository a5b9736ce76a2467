"""Pooling, resizing and reductions: spatial axes change, the others pass."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Label, Ties, Value
from prunec.passes.rules.registry import rule

_POOLS = [f"{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg", "adaptive_max")]
_RESIZES = (
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
)
_SPATIAL_RANK = {"1d": 1, "2d": 2, "3d": 3}


@rule(
    *_POOLS,
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
    *_RESIZES,
    "upsample_linear1d",
    "upsample_trilinear3d",
)
def pool(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Works on each channel alone; a labelled spatial axis stays whole."""
    operator = operator_name(node.target)
    value = ties.of(next(iter(a.values())))
    spatial = next(rank for suffix, rank in _SPATIAL_RANK.items() if suffix in operator)
    ties.freeze_value(value[-spatial:], f"{operator} over these positions")
    passed: tuple[Label, ...] = (*value[:-spatial], *(None,) * spatial)
    shapes = node.meta["shapes"]
    return [passed for _ in shapes] if isinstance(shapes, list) else passed


@rule("mean", "sum", "amax", "amin", "var", "std", "prod")
def reduction(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Reduced axes vanish; a labelled one among them stays whole, since removing channels changes the result."""
    value = ties.of(a["self"])
    dims = a.get("dim")
    if dims is None or dims == []:
        dims = range(len(value))
    reduced = {d % len(value) for d in ([dims] if isinstance(dims, int) else dims)}
    ties.freeze_value(tuple(value[d] for d in reduced), f"{operator_name(node.target)} over channels")
    keep = bool(a.get("keepdim"))
    kept: list[Label] = []
    for d, label in enumerate(value):
        if d not in reduced:
            kept.append(label)
        elif keep:
            kept.append(None)
    return tuple(kept)


@rule("softmax", "log_softmax")
def softmax(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The normalised axis stays whole."""
    value = list(ties.of(a["self"]))
    ties.freeze(value[a["dim"]], "softmax over these positions")
    value[a["dim"]] = None
    return tuple(value)


@rule("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def pad(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Padded axes, given from the last backwards, stay whole; the others pass."""
    value = list(ties.of(a["self"]))
    amounts: list[Any] = a["pad"] if "pad" in a else a["padding"]
    for axis in range(len(amounts) // 2):
        if amounts[2 * axis] != 0 or amounts[2 * axis + 1] != 0:
            ties.freeze(value[-1 - axis], "padding of channels")
            value[-1 - axis] = None
    return tuple(value)
