"""The picture of a network: its layers and joints as boxes, coloured by the coupled channels that they yield."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from torch.fx import Node

from prunec.compiler.inspect_model import GroupInfo, describe_group
from prunec.compiler.picture_layout import Layout, lay_out
from prunec.compiler.templating import environment
from prunec.passes.cost import WEIGHTED, layer_name
from prunec.passes.coupling import Coupling, analyse
from prunec.passes.graphs import arguments, calls, module_path, operator_name
from prunec.passes.labels import Atoms, axes, parts
from prunec.passes.program import Program

BOX = (196.0, 46.0)
_GAP = (18.0, 26.0)
#: Operators that say nothing of their own in a box.
_SILENT = ("getitem", "sym_size", "contiguous", "clone", "reshape", "view", "dropout")
_SHOWN = 4
#: Degrees between the hues of neighbouring groups, far apart for any number of them.
_GOLDEN_ANGLE = 137.508


@dataclass
class Box:
    """A layer or a joint with what follows it and changes no channels.

    Attributes:
        operator: that the box begins with.
        layer: path of its module.
        shape: of its weight, or of its output for one sample.
        groups: numbers of the groups whose channels it yields.
        followed_by: operators that it absorbed.
    """

    operator: str
    layer: str
    shape: str
    groups: tuple[int, ...]
    followed_by: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The first line."""
        return " ".join(filter(None, [self.operator, self.shape]))

    @property
    def detail(self) -> str:
        """The second line: where the box stands, or what it absorbed."""
        more = len(self.followed_by) - _SHOWN
        then = ", ".join(self.followed_by[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        return " + ".join(filter(None, [self.layer, then]))


@dataclass(frozen=True)
class PicturedGroup:
    """A group with its number and colour."""

    number: int
    info: GroupInfo

    @property
    def hue(self) -> float:
        """In degrees."""
        return round(self.number * _GOLDEN_ANGLE % 360, 1)

    @property
    def state(self) -> str:
        """What can be done with it: prunable, inexact or frozen."""
        return "frozen" if self.info.reasons else "inexact" if self.info.inexact else "prunable"

    @property
    def words(self) -> str:
        """Name, units, state and why."""
        why = "; ".join(self.info.reasons) or (f"under {', '.join(self.info.inexact)}" if self.info.inexact else "")
        kind = ", residual stream" if self.info.residual else ""
        return f"{self.info.name}: {self.info.units} units{kind}, {self.state}" + (f": {why}" if why else "")


def render_picture(program: Program, suffix: str) -> str:
    """The picture as an SVG drawing or as an HTML page with a legend, both self-contained.

    Args:
        program: any program.
        suffix: ".svg" or ".html".
    """
    coupling = analyse(program)
    macs = Counter[str]()
    for layer in program.layers():
        macs[layer.weight] += layer.macs
    found = (*coupling.groups, *coupling.frozen)
    groups = [PicturedGroup(number, describe_group(group, macs)) for number, group in enumerate(found)]
    boxes, edges = boxes_of(program, coupling)
    layout = lay_out(len(boxes), edges, BOX, _GAP)
    return (
        environment()
        .get_template(f"picture{suffix}.jinja")
        .render(
            boxes=list(zip(boxes, layout.centres, strict=True)),
            curves=curves(layout),
            groups=groups,
            layout=layout,
            box=BOX,
        )
    )


def curves(layout: Layout) -> list[str]:
    """The edges as SVG paths, without what they share: from the foot of a box to the head of another."""
    half = BOX[1] / 2
    drawn: dict[str, None] = {}
    for path in layout.paths:
        for position, ((x, y), (u, v)) in enumerate(pairwise(path)):
            top = y + half if position == 0 else y
            end = v - half if position == len(path) - 2 else v
            bend = (end - top) / 2
            drawn[f"M{x:.0f} {top:.0f}C{x:.0f} {top + bend:.0f} {u:.0f} {end - bend:.0f} {u:.0f} {end:.0f}"] = None
    return list(drawn)


def boxes_of(program: Program, coupling: Coupling) -> tuple[list[Box], list[tuple[int, int]]]:
    """The boxes of a network, in the order of execution, and the edges between them."""
    weighted = {node for node in calls(program.graph, *WEIGHTED) if arguments(node)["weight"].op == "get_attr"}
    owner = _owners(coupling)
    box_of: dict[Node, int] = {}
    boxes: list[Box] = []
    edges: dict[tuple[int, int], None] = {}
    for node in program.graph.nodes:
        if node.op == "call_function" and node.meta["shapes"] is None:
            continue  # a number, such as the size of the batch
        sources = list(dict.fromkeys(box_of[source] for source in node.all_input_nodes if source in box_of))
        if node.op in ("placeholder", "output") or (sources and (len(sources) > 1 or node in weighted)):
            edges |= dict.fromkeys((source, len(boxes)) for source in sources)
            box_of[node] = len(boxes)
            boxes.append(_box(node, node in weighted, coupling, owner))
        elif sources:
            box_of[node] = sources[0]
            _absorb(boxes[sources[0]], operator_name(node.target))
    return boxes, list(edges)


def _box(node: Node, weighted: bool, coupling: Coupling, owner: Atoms) -> Box:
    if node.op == "output":
        return Box("output", "", "", ())
    shape, layer = node.meta["sample_shapes"][1:], module_path(node)
    if node.op == "placeholder":
        return Box("input", str(node.target), _words(shape), ())
    if weighted:
        weight = arguments(node)["weight"]
        shape, layer = weight.meta["sample_shapes"], layer_name(str(weight.target))
    groups: dict[int, None] = {}
    for label in axes(coupling.values.get(node)):
        for channels in parts(label):
            found = owner[coupling.roots[channels.atoms]]
            groups |= dict.fromkeys(found[np.sort(np.unique(found, return_index=True)[1])].tolist())
    numbers = tuple(number for number in groups if number >= 0)
    return Box(operator_name(node.target), layer, _words(shape), numbers)


def _absorb(box: Box, operator: str) -> None:
    if operator not in _SILENT and operator not in box.followed_by:
        box.followed_by.append(operator)


def _owners(coupling: Coupling) -> Atoms:
    """For every atom id, if it is a root: number of its group, prunable ones first, else -1."""
    owner = np.full(len(coupling.roots), -1, dtype=np.int64)
    for number, group in enumerate((*coupling.groups, *coupling.frozen)):
        owner[coupling.units(group)] = number
    return owner


def _words(shape: object) -> str:
    return "x".join(map(str, shape)) if isinstance(shape, tuple) else ""
