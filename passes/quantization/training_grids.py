"""Quantization-aware training: a training form whose layers read what the grids of the quantized one will hold.

Every output channel of a weight has a symmetric grid of its own, so rounding commutes with folding batch norms: they
stay in the training form and train as ever, and what training rounds is what is rounded after they are folded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from prunec.passes.graphs import arguments, calls
from prunec.passes.program import Program
from prunec.passes.quantization.attention import decompose_in
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.grids import Form, Range, grid_of, rounded_weight
from prunec.passes.quantization.placement import Placement, place

#: Path of the added modules.
_MODULES = "prunec_grids"


class MovingRange(nn.Module):
    """Puts the tensors of one family on their grid, whose range follows what is seen in training.

    Attributes:
        bounds: Exponential moving averages of the least and the most value of each tensor, float32 (tensors, 2); NaN
            before the first one, which is then left as it is.
    """

    bounds: Tensor

    def __init__(self, tensors: int, form: Form, momentum: float, device: torch.device | None) -> None:
        super().__init__()
        self.form, self.momentum = form, momentum
        self.register_buffer("bounds", torch.full((tensors, 2), torch.nan, device=device))

    @property
    def range(self) -> Range:
        """The range of the family, which holds those of its tensors.

        Raises:
            NumericMismatchError: A value that was seen is not finite.
        """
        return Range(float(self.bounds[:, 0].min()), float(self.bounds[:, 1].max()))

    def forward(self, values: Tensor, position: int) -> Tensor:
        """The values of the tensor at a position in the family, rounded; derivatives are those of clipping."""
        if self.training:
            self._see(values, position)
        if bool(self.bounds.isnan().any()):
            return values
        grid = grid_of(self.range, self.form)
        return grid.rounded(values.float()).to(values.dtype)

    @torch.no_grad()
    def _see(self, values: Tensor, position: int) -> None:
        seen, old = torch.stack(values.float().aminmax()), self.bounds[position]
        self.bounds[position] = torch.where(old.isnan(), seen, old.lerp(seen, 1 - self.momentum))


class RoundedWeight(nn.Module):
    """Puts a weight on the grids of its output channels, or on one; derivatives pass straight through."""

    def __init__(self, axis: int | None, form: Form) -> None:
        super().__init__()
        self.axis, self.form = axis, form

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weight."""
        return rounded_weight(weight, self.axis, self.form)


@dataclass(frozen=True)
class TrainingGrids:
    """The grids of a training form.

    Attributes:
        placement: What lies on grids, by the names that nodes have once batch norms are folded and attention is
            written as its products.
        ranges: The range of each family of sites.
    """

    placement: Placement
    ranges: Mapping[str, MovingRange]


def round_in_training(
    form: Program, kept: Sequence[str], grids: Form, momentum: float, device: torch.device | None = None
) -> TrainingGrids:
    """Let the layers of a training form read rounded weights and activations, in place.

    Attention that drops weights out in training stays whole, and so do its products.

    Args:
        form: The form, whose graph and module are changed; its tensors stay.
        kept: Globs over layers, or roles, that stay in higher precision.
        grids: Form of the grids.
        momentum: Share of a range that stays as it is with every batch.
        device: Device of the ranges.

    Raises:
        UsageError: A glob matches no layer.
    """
    decompose_in(form.graph)
    plain = fold_batch_norms(form.inference()).program
    placement = place(plain, kept)
    nodes = {node.name: node for node in form.graph.nodes}
    ends = nodes | _ends_of_layers(form.graph, plain.graph)
    modules = nn.ModuleList()
    form.module.add_module(_MODULES, modules)
    ranges: dict[str, MovingRange] = {}
    for family in dict.fromkeys(site.family for site in placement.sites):
        sites = [site for site in placement.sites if site.family == family]
        ranges[family] = MovingRange(len(sites), grids, momentum, device)
        modules.append(ranges[family])
        for position, site in enumerate(sites):
            _insert(modules, ends[site.source], [nodes[name] for name in site.readers], position)
    for source in dict.fromkeys(weight.source for weight in placement.weights):
        weights = [weight for weight in placement.weights if weight.source == source]
        modules.append(RoundedWeight(weights[0].axis, grids))
        _insert(modules, nodes[source], [nodes[weight.call] for weight in weights])
    return TrainingGrids(placement, ranges)


def _ends_of_layers(graph: Graph, folded: Graph) -> dict[str, Node]:
    """The batch norm that is folded into each layer, by the layer's name: it yields what the layer will."""
    left = {node.name for node in folded.nodes}
    return {arguments(norm)["input"].name: norm for norm in calls(graph, "batch_norm") if norm.name not in left}


def _insert(modules: nn.ModuleList, source: Node, readers: Sequence[Node], *position: int) -> None:
    """Let nodes read a tensor through the last module."""
    with source.graph.inserting_after(source):
        rounded = source.graph.call_module(f"{_MODULES}.{len(modules) - 1}", (source, *position))
    rounded.meta = dict(source.meta)
    for reader in readers:
        reader.replace_input_with(source, rounded)
