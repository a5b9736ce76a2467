"""The dense program with removed slices zeroed, whose inexact operators see the kept channels only.

A layer norm over fewer channels is another function than the same norm over zeros, so a pruned program can't equal
the zeroed one there. The rest of the graph runs dense, but for quotients: where a learned divisor is zeroed, they are
not finite in removed channels, which would spread from there to the others by products with zero.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.passes.coupling import Coupling
from prunec.passes.feeding import flat_inputs
from prunec.passes.graphs import LARGEST_SIZE
from prunec.passes.labels import Channels, Label, Packed, Value, parts
from prunec.passes.program import Program
from prunec.passes.rewrite import Removed


class MaskedInterpreter(Interpreter):
    """Runs a graph, with its inexact nodes on kept slices only; their results are scattered into zeros.

    What is not finite at removed slices becomes zero.
    """

    def __init__(
        self, zeroed: Program, dense: Program, coupling: Coupling, removed: Removed, pruned: Program | None = None
    ) -> None:
        """Prepare a run.

        Args:
            zeroed: A copy of the dense program with its removed slices zero.
            dense: The program that was analysed.
            coupling: Analysis of the dense program.
            removed: Classes of atoms that are gone.
            pruned: The dense program without the slices, whose graph has the same nodes, in float64; without it,
                inexact nodes run dense like the others.
        """
        super().__init__(zeroed.module)
        self.coupling, self.removed = coupling, removed
        nodes, originals = list(zeroed.graph.nodes), list(dense.graph.nodes)
        self.twins: dict[Node, Node] = {}
        if pruned is not None:
            mixing = {m.node for m in coupling.ties.mixing if removed[coupling.roots[m.atoms]].any()}
            triples = zip(nodes, originals, pruned.graph.nodes, strict=True)
            self.twins = {node: twin for node, original, twin in triples if original in mixing}
        self.values = {node: coupling.values.get(original) for node, original in zip(nodes, originals, strict=True)}

    def run_program(self, *args: Any, **kwargs: Any) -> Any:
        """The network's outputs in their own structure."""
        codegen: Any = self.graph._codegen
        leaves = flat_inputs(self.graph, args, kwargs)
        return codegen.process_outputs(self.run(*leaves, enable_io_processing=False))

    def run_node(self, n: Node) -> Any:
        """Run one node, on its kept slices if it is inexact."""
        twin = self.twins.get(n)
        if twin is None:
            return self._cleared(super().run_node(n), self.values[n])
        sources = dict(zip(twin.all_input_nodes, n.all_input_nodes, strict=True))
        inputs = {other: self._cut(self.env[source], self.values[source]) for other, source in sources.items()}
        args, kwargs = torch.fx.node.map_arg((twin.args, twin.kwargs), lambda source: inputs[source])
        return self._scatter(twin.target(*args, **kwargs), self.values[n])  # type: ignore[operator]

    def _cleared(self, value: Any, labels: Value) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or not isinstance(labels, tuple):
            return value
        undefined = ~value.isfinite()
        if not undefined.any():
            return value
        stays = torch.ones([1] * value.ndim, dtype=torch.bool)
        for axis, label in enumerate(labels):
            if label is not None:
                along = [1] * value.ndim
                along[axis] = value.shape[axis]
                stays = stays & self._kept(label, value.shape[axis]).reshape(along)
        return value.masked_fill(undefined & ~stays, 0)

    def _cut(self, value: Any, labels: Value) -> Any:
        if isinstance(value, Tensor) and isinstance(labels, tuple):
            for axis, label in enumerate(labels):
                if label is not None:
                    value = value.index_select(axis, self._kept(label, value.shape[axis]).nonzero().flatten())
        return value

    def _scatter(self, value: Any, labels: Value) -> Any:
        if isinstance(labels, list):
            return type(value)(self._scatter(item, label) for item, label in zip(value, labels, strict=True))
        if isinstance(value, Tensor) and labels is not None:
            for axis, label in enumerate(labels):
                if isinstance(label, Channels | Packed):
                    kept = self._kept(label, self._dense_size(label, value.shape[axis]))
                    shape = list(value.shape)
                    shape[axis] = len(kept)
                    value = value.new_zeros(shape).index_copy(axis, kept.nonzero().flatten(), value)
        return value

    def _kept(self, label: Label, size: int) -> Tensor:
        """Whether each index of a dense axis stays, bool (size,)."""
        if isinstance(label, Channels):
            return torch.from_numpy(self._stays(label))
        assert isinstance(label, Packed)
        known = math.prod(n for n in label.sizes if n < LARGEST_SIZE)
        kept = np.ones(1, dtype=bool)
        for n, channels in label.factors:
            unlabelled = np.ones(size // known if n > LARGEST_SIZE else n, dtype=bool)
            stays = unlabelled if channels is None else self._stays(channels)
            kept = np.logical_and.outer(kept, stays).ravel()
        return torch.from_numpy(kept)

    def _stays(self, channels: Channels) -> NDArray[np.bool_]:
        return ~self.removed[self.coupling.roots[channels.atoms]]

    def _dense_size(self, label: Channels | Packed, pruned: int) -> int:
        for channels in parts(label):
            pruned = pruned // int(np.count_nonzero(self._stays(channels))) * len(channels)
        return pruned
