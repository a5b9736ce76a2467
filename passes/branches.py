"""Residual branches: what a sum adds to its shortcut, and what vanishes with it.

A branch of ``skip + branch`` is everything that only this sum uses on the branch's side. It may go where it starts from
the skip alone: it reads the skip's value (an identity shortcut, with or without a norm behind it), or both sides start
from the same values (a projection shortcut, of which either side may go, and not both). Values that don't depend on the
skip, such as masks and the memory of a decoder, may be read besides. Removing it is replacing the sum by the skip.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.fx import Graph, Node

from prunec.passes.branch_zeroing import zeroing
from prunec.passes.cost import layer_calls
from prunec.passes.graphs import arguments, calls
from prunec.passes.normalise import aliased_inputs, written
from prunec.passes.plan import RemovedBranch
from prunec.passes.program import Program


@dataclass(frozen=True)
class Branch:
    """A residual branch that can be removed.

    Attributes:
        name: Path of its last layer with a weight, outside of branches within it.
        joined: Name of the node that adds it to its skip.
        operand: Which of the two operands of the sum it is, 0 or 1.
        nodes: Names of the nodes that vanish with it, but for the sum.
        layers: Paths of the layers that vanish with it, in the order of execution.
        removed: What a plan tells of it.
        is_shortcut: Whether it is the side with fewer layers of a sum without an identity shortcut: a projection.
    """

    name: str
    joined: str
    operand: int
    nodes: frozenset[str] = field(repr=False)
    layers: tuple[str, ...]
    removed: RemovedBranch = field(repr=False)
    is_shortcut: bool = False


def find_branches(program: Program) -> tuple[Branch, ...]:
    """The removable residual branches of a program, in the order of their sums.

    Branches without a layer with a weight of their own, and those at which something is written in place, are none; of
    several that end in one layer, the first is. Each can be removed by itself; removing one takes along those within
    it, and of the two sides of a projection shortcut one stays.
    """
    return tuple(branches_of_graph(program.graph, program.tensors()))


def branches_of_graph(graph: Graph, tensors: Mapping[str, Tensor]) -> Iterator[Branch]:
    """The branches of a program's graph over its tensors."""
    search, branches = _Search(graph, tensors), list[Branch]()
    for node in calls(graph, "add"):
        for operand in (0, 1) if search.is_sum(node) else ():
            branch = search.branch(node, operand, branches)
            if branch is not None:
                branches.append(branch)
                yield branch


class _Search:
    """A graph and what is looked up in it again and again."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
        self.graph, self.tensors = graph, tensors
        self.order = {node: position for position, node in enumerate(graph.nodes)}
        output = graph.output_node()
        self.live = {output}
        for node in reversed(list(graph.nodes)):
            if node in self.live:
                self.live.update(node.all_input_nodes)
        self.returned = set(output.all_input_nodes)
        self.written = _written_memory(graph)
        self.layers: dict[Node, str] = {}
        for node, layer in layer_calls(graph):
            self.layers.setdefault(node, layer.name)

    def is_sum(self, node: Node) -> bool:
        """Whether a node adds two different activations of one shape and type."""
        bound = arguments(node)
        left, right = bound["self"], bound.get("other")
        if not isinstance(left, Node) or not isinstance(right, Node) or bound.get("alpha", 1) != 1 or left is right:
            return False
        is_alike = all(node.meta.get(key) == side.meta.get(key) for side in (left, right) for key in _ALIKE)
        return node in self.live and is_alike and "get_attr" not in (left.op, right.op)

    def branch(self, node: Node, operand: int, within: Sequence[Branch]) -> Branch | None:
        """The branch that is an operand of a sum; None where that is none."""
        cone, other = self._cone(node, operand), self._cone(node, 1 - operand)
        skip = node.all_input_nodes[1 - operand]
        names = frozenset(each.name for each in cone)
        if not self._starts_alike(cone, other, skip) or not self.written.isdisjoint({*cone, node, skip}):
            return None
        if node in self.returned and (skip.op == "placeholder" or skip in self.returned):
            return None  # an output would be an input, or another output
        nested = [each.nodes for each in within if each.joined in names]
        own = [self.layers[n] for n in cone if n in self.layers and not any(n.name in nodes for nodes in nested)]
        if not own or any(each.name == own[-1] for each in within):
            return None
        gone, taken = self._gone(cone), list(dict.fromkeys(self.layers[n] for n in cone if n in self.layers))
        last = next(n for n in reversed(cone) if self.layers.get(n) == own[-1])
        is_shortcut = len(taken) < len([n for n in other if n in self.layers])
        zeroed = zeroing(node.all_input_nodes[operand], last, frozenset(gone))
        return Branch(
            own[-1], node.name, operand, names, tuple(taken), RemovedBranch(own[-1], gone, zeroed), is_shortcut
        )

    def _users(self, node: Node) -> set[Node]:
        return {user for user in node.users if user in self.live}

    def _cone(self, node: Node, operand: int) -> list[Node]:
        """The calls that only this operand of the sum needs, in the order of execution."""
        cone: set[Node] = set()
        start = node.all_input_nodes[operand]
        queue = [(-self.order[start], start.name, start)]
        while queue:
            each = heapq.heappop(queue)[2]  # those that read it were there before
            if each in cone or each.op != "call_function" or not self._users(each) <= {*cone, node}:
                continue
            if node in self._users(each) and each is not start:
                continue
            cone.add(each)
            for source in each.all_input_nodes:
                heapq.heappush(queue, (-self.order[source], source.name, source))
        return sorted(cone, key=self.order.__getitem__)

    def _starts_alike(self, cone: list[Node], other: list[Node], skip: Node) -> bool:
        starts = self._starts(cone)
        if other:
            return bool(starts) and starts == self._starts(other)
        return skip in starts and not any(self._depends(start, skip) for start in starts - {skip})

    def _starts(self, cone: list[Node]) -> set[Node]:
        """The tensors from elsewhere that some nodes read, without the network's own."""
        sources = {source for node in cone for source in node.all_input_nodes} - set(cone)
        return {s for s in sources if s.op != "get_attr" and s.meta.get("shapes") is not None}

    def _depends(self, node: Node, source: Node) -> bool:
        left, seen = [node], {node}
        while left:
            for each in left.pop().all_input_nodes:
                if each is source:
                    return True
                if each not in seen and self.order[each] > self.order[source]:
                    seen.add(each)
                    left.append(each)
        return False

    def _gone(self, cone: list[Node]) -> tuple[str, ...]:
        """Names of the tensors that nothing but these nodes reads, with counters beside them that nothing reads."""
        left = set(cone)
        readers = [(str(node.target), self._users(node)) for node in self.graph.find_nodes(op="get_attr")]
        stays = {id(self.tensors[name]) for name, users in readers if users - left}
        goes = {id(self.tensors[name]) for name, users in readers if users and not users - left} - stays
        owners = {_owner(name) for name, tensor in self.tensors.items() if id(tensor) in goes}
        owners -= {_owner(name) for name, tensor in self.tensors.items() if id(tensor) in stays}
        return tuple(
            name
            for name, tensor in self.tensors.items()
            if id(tensor) in goes or (id(tensor) not in stays and _owner(name) in owners)
        )


#: What operands and sum share.
_ALIKE = ("shapes", "sample_shapes", "dtype")


def _owner(name: str) -> str:
    """Path of the module that a tensor belongs to; the tensor's own name at the root, which owns unrelated ones."""
    return name.rpartition(".")[0] or name


def _written_memory(graph: Graph) -> set[Node]:
    """Nodes that may share memory with what some node overwrites."""
    related: dict[Node, set[Node]] = {}
    for node in graph.nodes:
        base = written(node)
        for source in [*aliased_inputs(node), *([base] if base is not None else [])]:
            related.setdefault(node, set()).add(source)
            related.setdefault(source, set()).add(node)
    reached = {node for node in graph.nodes if written(node) is not None}
    left = list(reached)
    while left:
        new = related.get(left.pop(), set()) - reached
        reached |= new
        left += new
    return reached
