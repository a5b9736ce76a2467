"""The places of boxes in a layered drawing: every edge runs downwards, no two boxes overlap.

Layers by the longest path, order within a layer by the mean place of the neighbours, then places (Sugiyama, Tagawa and
Toda, "Methods for visual understanding of hierarchical system structures", 1981). Edges over several layers get a
narrow lane of their own, shared by all that leave one box.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 6
_LANE = 14.0
#: A box, or the lane of a box through a layer.
Slot = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Centres (x, y) of the boxes, points of each edge's path from box to box, and the drawing's size, in pixels."""

    centres: tuple[tuple[float, float], ...]
    paths: tuple[tuple[tuple[float, float], ...], ...]
    width: float
    height: float


def lay_out(count: int, edges: Sequence[tuple[int, int]], box: tuple[float, float], gap: tuple[float, float]) -> Layout:
    """Place boxes of one size.

    Args:
        count: Number of boxes; they are numbered so that every edge leads from a lower to a higher number.
        edges: Numbers of the two boxes that an edge joins, (from, to).
        box: Width and height of a box.
        gap: Least space between boxes that stand beside each other, and between those below each other.

    Raises:
        ValueError: An edge leads to a lower number.
    """
    if any(source >= target for source, target in edges):
        raise ValueError("edges must lead to higher numbers")
    layer = _layers(count, edges)
    rows, up, down = _with_lanes(layer, edges)
    for sweep in range(_SWEEPS):
        _reorder(rows, up if sweep % 2 == 0 else down, downwards=sweep % 2 == 0)
    x = _places(rows, up, down, box[0], gap[0])
    pitch = box[1] + gap[1]

    def point(item: Slot) -> tuple[float, float]:
        return x[item], (item[1] + 0.5) * pitch

    centres = tuple(point((number, layer[number])) for number in range(count))
    paths = tuple(
        (*(point((source, row)) for row in range(layer[source], layer[target])), centres[target])
        for source, target in edges
    )
    right = max((centre[0] for centre in centres), default=0.0) + box[0] / 2
    right = max([right, *(place[0] + _LANE for path in paths for place in path)])
    return Layout(centres, paths, right + gap[0], pitch * (max(layer, default=0) + 1))


def _layers(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    layer = [0] * count
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        layer[target] = max(layer[target], layer[source] + 1)
    return layer


def _with_lanes(
    layer: list[int], edges: Sequence[tuple[int, int]]
) -> tuple[list[list[Slot]], dict[Slot, list[Slot]], dict[Slot, list[Slot]]]:
    """Boxes and lanes by layer, with the neighbours of each above and below."""
    rows: list[list[Slot]] = [[] for _ in range(max(layer, default=-1) + 1)]
    up: dict[Slot, list[Slot]] = {}
    down: dict[Slot, list[Slot]] = {}
    for number, row in enumerate(layer):
        rows[row].append((number, row))
    reached = list(layer)
    for source, target in edges:
        for row in range(reached[source] + 1, layer[target]):
            rows[row].append((source, row))
            _join((source, row - 1), (source, row), up, down)
        reached[source] = max(reached[source], layer[target] - 1)
        _join((source, layer[target] - 1), (target, layer[target]), up, down)
    return rows, up, down


def _join(above: Slot, below: Slot, up: dict[Slot, list[Slot]], down: dict[Slot, list[Slot]]) -> None:
    down.setdefault(above, []).append(below)
    up.setdefault(below, []).append(above)


def _reorder(rows: list[list[Slot]], neighbours: dict[Slot, list[Slot]], downwards: bool) -> None:
    """Sort each layer by the mean place of the neighbours in the layer before it; ties keep their order."""
    for before, row in pairwise(rows if downwards else reversed(rows)):
        place = {item: position for position, item in enumerate(before)}
        mean = {
            item: _mean([place[other] for other in neighbours.get(item, ())], default=position)
            for position, item in enumerate(row)
        }
        row.sort(key=mean.__getitem__)


def _mean(places: Sequence[float], default: float) -> float:
    return sum(places) / len(places) if places else default


def _places(
    rows: list[list[Slot]], up: dict[Slot, list[Slot]], down: dict[Slot, list[Slot]], width: float, gap: float
) -> dict[Slot, float]:
    """Horizontal centres: near the neighbours' mean, in the order of the layer, with the gap kept."""
    boxes = {(number, row) for row, items in enumerate(rows) for number, at in items if at == row}
    first = {item[0]: item[1] for items in reversed(rows) for item in items}
    half = {item: (width if first[item[0]] == item[1] else _LANE) / 2 for item in boxes}
    x: dict[Slot, float] = {}
    for items in rows:
        position = 0.0
        for item in items:
            x[item] = position + half[item]
            position += 2 * half[item] + gap
    for sweep in range(2 * _SWEEPS):
        neighbours = up if sweep % 2 == 0 else down
        for items in rows if sweep % 2 == 0 else reversed(rows):
            _settle(items, neighbours, x, half, gap)
    left = min((x[item] - half[item] for item in x), default=0.0)
    return {item: place - left + gap for item, place in x.items()}


def _settle(
    items: list[Slot], neighbours: dict[Slot, list[Slot]], x: dict[Slot, float], half: dict[Slot, float], gap: float
) -> None:
    """Move each item of a layer to the mean of its neighbours, pushing none through another.

    Items that want the same space become one block, which goes to the mean of what its items want.
    """
    blocks: list[tuple[list[Slot], float, float]] = []  # items, sum of wanted left edges, width
    for item in items:
        wanted = _mean([x[other] for other in neighbours.get(item, ())], default=x[item]) - half[item]
        members, total, width = [item], wanted, 2 * half[item] + gap
        while blocks and blocks[-1][1] / len(blocks[-1][0]) + blocks[-1][2] > total / len(members):
            before, sum_before, width_before = blocks.pop()
            total = sum_before + total - width_before * len(members)
            members, width = before + members, width_before + width
        blocks.append((members, total, width))
    for members, total, _ in blocks:
        left = total / len(members)
        for item in members:
            x[item] = left + half[item]
            left += 2 * half[item] + gap
