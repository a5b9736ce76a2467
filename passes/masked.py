"""The dense program with removed slices zeroed, whose inexact operators see the kept channels only.

A layer norm over fewer channels is another function than the same norm over zeros, so a pruned program can't equal
the zeroed one there. Everything else of the graph runs dense.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.passes.coupling import Coupling
from prunec.passes.graphs import LARGEST_SIZE
from prunec.passes.labels import Channels, Label, Packed, Value
from prunec.passes.program import Program
from prunec.passes.rewrite import Removed


class MaskedInterpreter(Interpreter):
    """Runs a graph; the inexact nodes on kept slices, whose results are scattered into zeros."""

    def __init__(self, zeroed: Program, dense: Program, pruned: Program, coupling: Coupling, removed: Removed) -> None:
        """Prepare a run.

        Args:
            zeroed: a copy of the dense program with its removed slices zero.
            dense: the program that was analysed.
            pruned: the dense program without the slices; its graph has the same nodes.
            coupling: analysis of the dense program.
            removed: which classes of atoms are gone.
        """
        super().__init__(zeroed.module)
        self.coupling, self.removed = coupling, removed
        triples = zip(zeroed.graph.nodes, dense.graph.nodes, pruned.double().eval().graph.nodes, strict=True)
        mixing = {m.node for m in coupling.ties.mixing if removed[coupling.roots[m.atoms]].any()}
        self.inexact = {node: (original, twin) for node, original, twin in triples if original in mixing}
        self.values = {
            node: coupling.values.get(original)
            for node, original in zip(zeroed.graph.nodes, dense.graph.nodes, strict=True)
        }

    def run_program(self, *args: Any, **kwargs: Any) -> Any:
        """The network's outputs in their own structure."""
        codegen: Any = self.graph._codegen
        leaves = codegen.process_inputs(*args, **kwargs) if kwargs else codegen.process_inputs(*args)
        return codegen.process_outputs(self.run(*leaves, enable_io_processing=False))

    def run_node(self, n: Node) -> Any:
        """One node: dense, or on its kept slices."""
        if n not in self.inexact:
            return super().run_node(n)
        _, twin = self.inexact[n]
        inputs = {
            other: self._cut(self.env[source], self.values[source])
            for source, other in zip(n.all_input_nodes, twin.all_input_nodes, strict=True)
        }
        args, kwargs = torch.fx.node.map_arg((twin.args, twin.kwargs), lambda source: inputs[source])
        result = twin.target(*args, **kwargs)
        return self._scatter(result, self.values[n])

    def _cut(self, value: Any, labels: Value) -> Any:
        if isinstance(value, Tensor) and isinstance(labels, tuple):
            for axis, label in enumerate(labels):
                if label is not None:
                    value = value.index_select(axis, self._kept(label, value.shape[axis]).nonzero().flatten())
        return value

    def _scatter(self, value: Any, labels: Value) -> Any:
        if isinstance(labels, list):
            return type(value)(self._scatter(item, found) for item, found in zip(value, labels, strict=True))
        if isinstance(value, Tensor) and labels is not None:
            for axis, label in enumerate(labels):
                if isinstance(label, Channels | Packed):
                    kept = self._kept(label, self._dense_size(label, value.shape[axis]))
                    shape = list(value.shape)
                    shape[axis] = len(kept)
                    value = value.new_zeros(shape).index_copy(axis, kept.nonzero().flatten(), value)
        return value

    def _kept(self, label: Label, size: int) -> Tensor:
        """Which indices of a dense axis stay, bool (size,)."""
        if isinstance(label, Channels):
            return torch.from_numpy(~self.removed[self.coupling.roots[label.atoms]])
        assert isinstance(label, Packed)
        known = math.prod(n for n in label.sizes if n < LARGEST_SIZE)
        kept = np.ones(1, dtype=bool)
        for n, channels in label.factors:
            stays = np.ones(size // known if n > LARGEST_SIZE else n, dtype=bool)
            if channels is not None:
                stays = ~self.removed[self.coupling.roots[channels.atoms]]
            kept = np.logical_and.outer(kept, stays).ravel()
        return torch.from_numpy(kept)

    def _dense_size(self, label: Channels | Packed, pruned: int) -> int:
        if isinstance(label, Channels):
            return len(label)
        for _, channels in label.factors:
            if channels is not None:
                stays = int(np.count_nonzero(~self.removed[self.coupling.roots[channels.atoms]]))
                pruned = pruned // stays * len(channels)
        return pruned
