"""Pooling and resizing: spatial axes change, the others pass."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Ties, Value
from prunec.passes.rules.registry import rule

_POOLS = [f"{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg", "adaptive_max")]
_RESIZES = (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d",
    "upsample_linear1d", "upsample_trilinear3d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)  # fmt: skip
_SPATIAL_RANK = {"1d": 1, "2d": 2, "3d": 3}


@rule(*_POOLS, *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)), *_RESIZES)
def pool(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Works on each channel alone; a labelled spatial axis stays whole."""
    operator = operator_name(node.target)
    value = ties.of(next(iter(a.values())))
    spatial = next(rank for suffix, rank in _SPATIAL_RANK.items() if suffix in operator)
    ties.freeze_value(value[-spatial:], f"{operator} over these positions")
    passed = (*value[:-spatial], *(None,) * spatial)
    shapes = node.meta["shapes"]
    return [passed for _ in shapes] if isinstance(shapes, list) else passed


@rule("grid_sampler", "grid_sampler_2d")
def grid_sample(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Samples every channel at the same positions; the positions stay."""
    ties.freeze_value(ties.of(a["grid"]), "sampling positions")
    value = ties.of(a["input"])
    ties.freeze_value((value[0], *value[2:]), "sampled positions")
    return (None, value[1], *(None,) * (len(value) - 2))
