"""The picture of a network: its layers and joints as boxes, coloured by the coupled channels that they yield."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from torch.fx import Node

from prunec.compiler.drawing.picture_layout import Layout, lay_out
from prunec.compiler.drawing.templating import environment
from prunec.passes.cost import layer_name
from prunec.passes.coupling import Coupling, analyse
from prunec.passes.graphs import arguments, calls, module_path, operator_name
from prunec.passes.group_summary import GroupSummary, macs_by_weight, summarise_group
from prunec.passes.labels import Atoms, axes, parts
from prunec.passes.operators import WEIGHTED
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
        operator: The operator that the box begins with.
        layer: Path of its module.
        shape: Shape of its weight, or of its output for one sample.
        groups: Numbers of the groups whose channels it yields.
        followed_by: Operators that it absorbed.
    """

    operator: str
    layer: str
    shape: str
    groups: tuple[int, ...]
    followed_by: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The first line of the box."""
        return " ".join(filter(None, [self.operator, self.shape]))

    @property
    def detail(self) -> str:
        """The second line: the module's path, and what the box absorbed."""
        more = len(self.followed_by) - _SHOWN
        then = ", ".join(self.followed_by[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        return " + ".join(filter(None, [self.layer, then]))

    def absorb(self, operator: str) -> None:
        """Note an operator that follows, once, if it says something."""
        if operator not in _SILENT and operator not in self.followed_by:
            self.followed_by.append(operator)


@dataclass(frozen=True)
class PicturedGroup:
    """A group with its number and colour."""

    number: int
    info: GroupSummary

    @property
    def hue(self) -> float:
        """Hue of the group's colour in degrees."""
        return round(self.number * _GOLDEN_ANGLE % 360, 1)

    @property
    def state(self) -> str:
        """The state of the group: prunable, inexact or frozen."""
        return "frozen" if self.info.reasons else "inexact" if self.info.inexact else "prunable"

    @property
    def words(self) -> str:
        """Name, units and state of the group, with the reason for its state."""
        why = "; ".join(self.info.reasons) or (f"under {', '.join(self.info.inexact)}" if self.info.inexact else "")
        kind = ", residual stream" if self.info.residual else ""
        return f"{self.info.name}: {self.info.units} units{kind}, {self.state}" + (f": {why}" if why else "")


def render_picture(program: Program, suffix: str) -> str:
    """The picture as a self-contained SVG drawing (suffix ".svg") or HTML page with a legend (".html")."""
    coupling = analyse(program)
    macs = macs_by_weight(program)
    coupled = enumerate((*coupling.groups, *coupling.frozen))
    groups = [PicturedGroup(number, summarise_group(group, macs)) for number, group in coupled]
    boxes, edges = boxes_of(program, coupling)
    layout = lay_out(len(boxes), edges, BOX, _GAP)
    template = environment().get_template(f"picture{suffix}.jinja")
    placed = list(zip(boxes, layout.centres, strict=True))
    return template.render(boxes=placed, curves=curves(layout), groups=groups, layout=layout, box=BOX)


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
            boxes[sources[0]].absorb(operator_name(node.target))
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
            groups |= dict.fromkeys(owner[coupling.roots[channels.atoms]].tolist())
    numbers = tuple(number for number in groups if number >= 0)
    return Box(operator_name(node.target), layer, _words(shape), numbers)


def _owners(coupling: Coupling) -> Atoms:
    """The number of the group of every atom id that is a root, prunable groups first; -1 for other ids."""
    owner = np.full(len(coupling.roots), -1, dtype=np.int64)
    for number, group in enumerate((*coupling.groups, *coupling.frozen)):
        owner[coupling.units(group)] = number
    return owner


def _words(shape: object) -> str:
    return "x".join(map(str, shape)) if isinstance(shape, tuple) else ""
