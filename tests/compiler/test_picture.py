"""The picture of a network: a drawing that hides nothing, of everything the analysis says."""

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunec.compiler.drawing.picture import BOX, boxes_of, render_picture
from prunec.compiler.drawing.picture_layout import lay_out
from prunec.passes import Program, analyse
from tests.architectures.densenet import densenet121
from tests.architectures.resnet import BasicBlock, imagenet_resnet
from tests.passes.checks import Net, captured, normal

GAP = (18.0, 26.0)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    count = draw(st.integers(1, 14))
    pairs = list(combinations(range(count), 2))
    return count, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30)) if pairs else []


@given(graphs())
def test_edges_run_downwards_and_boxes_do_not_overlap(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    layout = lay_out(count, edges, BOX, GAP)
    assert layout == lay_out(count, edges, BOX, GAP)
    for (x, y), (u, v) in combinations(layout.centres, 2):
        assert abs(x - u) >= BOX[0] - 1e-6 or abs(y - v) >= BOX[1]
    for (source, target), path in zip(edges, layout.paths, strict=True):
        assert (path[0], path[-1]) == (layout.centres[source], layout.centres[target])
        assert all(above[1] < below[1] for above, below in pairwise(path))
        for x, y in path[1:-1]:
            assert all(abs(x - u) >= BOX[0] / 2 for u, v in layout.centres if y == v), "an edge runs through a box"
    assert all(BOX[0] / 2 <= x <= layout.width - BOX[0] / 2 and y < layout.height for x, y in layout.centres)


def test_edges_must_lead_on() -> None:
    with pytest.raises(ValueError, match="higher"):
        lay_out(2, [(1, 0)], BOX, GAP)


def residual() -> Program:
    return captured(imagenet_resnet(BasicBlock, (1, 1, 1, 1)), normal(2, 3, 64, 64))


def attention() -> Program:
    parts = nn.ModuleDict({"q": nn.Linear(5, 8), "k": nn.Linear(5, 8), "n": nn.LayerNorm(5), "o": nn.Linear(5, 3)})
    return captured(
        Net(lambda s, x: s.p.o((s.p.q(s.p.n(x)) @ s.p.k(x).mT).softmax(-1) @ x), p=_Attributes(parts)), normal(2, 7, 5)
    )


class _Attributes(nn.Module):
    def __init__(self, parts: nn.ModuleDict) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


@pytest.mark.parametrize("make", [residual, attention, lambda: captured(densenet121(), normal(2, 3, 64, 64))])
def test_everything_is_in_the_picture(make: object) -> None:
    program = make()  # type: ignore[operator]
    coupling = analyse(program)
    svg, html = render_picture(program, ".svg"), render_picture(program, ".html")
    root = ElementTree.fromstring(svg)
    drawn = {title.text.split("\n")[0] for title in root.iter("{http://www.w3.org/2000/svg}title") if title.text}
    assert all(any(name.startswith(kind) for name in drawn) for kind in ("input", "output", "linear"))
    for number, group in enumerate((*coupling.groups, *coupling.frozen)):
        assert re.search(rf'class="node[^"]* n{number}\b', svg), group.name
        assert f'data-group="{number}"' in html
        assert all(reason in html for reason in group.reasons)
    boxes, edges = boxes_of(program, coupling)
    layers = [layer.name for layer in program.layers()]
    assert [box.layer for box in boxes if box.operator in ("conv2d", "linear")] == layers
    assert {source for source, _ in edges} | {target for _, target in edges} == set(range(len(boxes)))
    assert "://" not in re.sub(r"http://www.w3.org/\d+/svg", "", html)  # nothing is loaded from anywhere


def test_names_are_escaped() -> None:
    network = nn.Sequential()
    network.add_module("a<b>&c", nn.Conv2d(3, 8, 1))
    network.add_module("head", nn.Conv2d(8, 2, 1))
    program = captured(network, normal(2, 3, 4, 4))
    ElementTree.fromstring(render_picture(program, ".svg"))
    assert "a<b>" not in render_picture(program, ".html")
