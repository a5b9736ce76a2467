"""Places of compactors: matrices that mix the filters of a layer behind its batch norm, and are merged into both."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional

from prunec.calibration.places import norm_behind
from prunec.passes.cost import calls_by_weight, is_grouped
from prunec.passes.errors import UsageError
from prunec.passes.graphs import arguments, operator_name, tensor_names
from prunec.passes.groups import Group
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program

_OF_A_NORM = ("weight", "bias", "running_mean", "running_var")
#: Operators whose parameter scales what they read.
_FACTORS = ("mul", "prelu")
#: Groups named in an error.
_NAMED = 4


@dataclass(frozen=True, eq=False)
class CompactorSite:
    """The layer that alone makes the units of a group.

    Attributes:
        group: The units.
        weight: Name of the layer's weight.
        dim: The dimension of the weight that counts filters.
        bias: Name of the layer's bias; empty where it has none.
        norm: Names of the scale, the shift, the mean and the variance of the batch norm behind it; none where none is.
        eps: What that adds to the variance.
        last: Name of the node behind which the compactor stands.
        axis: The axis of that node's output along which the filters are.
        filters: Filters of each unit, int64 (count, filters per unit).
    """

    group: Group
    weight: str
    dim: int
    bias: str
    norm: tuple[str, ...]
    eps: float
    last: str
    axis: int
    filters: Tensor

    @property
    def width(self) -> int:
        """Number of filters."""
        return self.filters.numel()

    def units(self, matrix: Tensor) -> Tensor:
        """The rows of a compactor that make each unit, (count, filters per unit * filters)."""
        return matrix[self.filters].flatten(1)

    def rows(self, units: Tensor) -> Tensor:
        """The inverse of `units`."""
        rows = units.new_empty(self.width, self.width)
        rows[self.filters.flatten()] = units.reshape(self.width, self.width)
        return rows

    def insert(self, form: Program, name: str, matrix: nn.Parameter) -> None:
        """Put a compactor (filters, filters) into a form of the program, in place, under a name."""
        form.module.register_parameter(name, matrix)
        last = next(node for node in form.graph.nodes if node.name == self.last)
        users = list(last.users)
        with form.graph.inserting_before(last.next):
            mixed = form.graph.call_function(mixed_filters, (last, form.graph.get_attr(name), self.axis))
        mixed.meta = dict(last.meta)
        for user in users:
            user.replace_input_with(last, mixed)
        form.module.recompile()

    @torch.no_grad()
    def merged(self, tensors: dict[str, Tensor], matrix: Tensor) -> dict[str, Tensor]:
        """New values of the layer's tensors and its norm's, with which the network gives what it gives with the matrix.

        Filters before a norm keep their sizes, by which a learning rate counts there, and the norm has the statistics
        of what it reads, as far as they are known (filters count as uncorrelated): a further training begins about
        where this one ended.
        """
        old = {name: tensors[name].double() for name in (self.weight, *filter(None, (self.bias,)), *self.norm)}
        matrix, filters = matrix.double(), old[self.weight].movedim(self.dim, 0)
        mixing, values = matrix, {}
        if self.norm:
            scale, shift, mean, variance = (old[name] for name in self.norm)
            mixing = matrix * (scale / (variance + self.eps).sqrt())
            mixing = mixing * (kept := _sizes(filters) / _sizes(torch.tensordot(mixing, filters, 1)))[:, None]
            spread = mixing.square() @ variance
            new = ((spread + self.eps).sqrt() / kept, matrix @ shift, mixing @ mean, spread)
            values = dict(zip(self.norm, new, strict=True))
        values[self.weight] = torch.tensordot(mixing, filters, 1).movedim(0, self.dim)
        if self.bias:
            values[self.bias] = mixing @ old[self.bias]
        return {name: value.to(tensors[name].dtype) for name, value in values.items()}


def _sizes(filters: Tensor) -> Tensor:
    """The Euclidean norm of each filter, 1 where it is zero."""
    sizes: Tensor = torch.linalg.vector_norm(filters.flatten(1), dim=1)
    return torch.where(sizes > 0, sizes, 1.0)


def mixed_filters(outputs: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """A layer's outputs with a matrix applied along the axis of its filters: a convolution of kernel size 1."""
    return functional.linear(outputs.movedim(axis, -1), matrix).movedim(-1, axis)


def compactor_sites(program: Program, groups: Sequence[Group], hook: str) -> list[CompactorSite]:
    """The sites of those groups that have one.

    Raises:
        UsageError: None has; ``hook`` is named in the message.
    """
    calls = calls_by_weight(program.graph)
    adding = _adding(program)
    candidates = [(group.name, _site(group, calls, adding, program)) for group in groups]
    sites = [site for _, site in candidates if isinstance(site, CompactorSite)]
    if not sites:
        reasons = "; ".join(f"{name} {reason}" for name, reason in candidates[:_NAMED])
        raise UsageError(
            f"recover: the training hook {hook} puts a matrix behind the one layer that makes the filters of a group, "
            f"and no group has a place for it: {reasons}.",
            hint="Take another method for this network.",
        )
    return sites


def _site(group: Group, calls: dict[str, list[Node]], adding: frozenset[str], program: Program) -> CompactorSite | str:
    """The site of a group, or why it has none."""
    # A convolution of several groups passes on, channel by channel, what the layer before it made.
    members = [group.members[position] for position in group.producers]
    mixing = [member for member in members if not any(map(is_grouped, calls.get(member.parameter, [])))]
    if len(mixing) != 1:
        return f"has filters of {len(mixing)} layers"
    member = mixing[0]
    if len(calls.get(member.parameter, [])) != 1:
        return f"has a weight that {len(calls.get(member.parameter, []))} calls read"
    call = calls[member.parameter][0]
    filters = torch.from_numpy(group.slices[group.members.index(member)])
    if filters.numel() != program.tensors()[member.parameter].shape[member.dim]:
        return "has only some of its layer's filters"
    norm = norm_behind(call)
    names = () if norm is None else tensor_names(norm, *_OF_A_NORM)
    if norm is not None and len(names) != len(_OF_A_NORM):
        return "has a batch norm without scale and shift, or without statistics"
    bias = tensor_names(call, "bias")
    behind = [each.parameter for each in group.members if each.parameter in adding.difference(bias, names)]
    if behind:
        return f"has {behind[0]}, which adds to its filters what no row that becomes zero takes away"
    device = program.tensors()[member.parameter].device
    return CompactorSite(
        group=group,
        weight=member.parameter,
        dim=member.dim,
        bias="".join(bias),
        norm=names,
        eps=0.0 if norm is None else float(arguments(norm)["eps"]),
        last=(norm or call).name,
        axis=1 if WEIGHTED[operator_name(call.target)].spatial_dims else -1,
        filters=filters.to(device),
    )


def _adding(program: Program) -> frozenset[str]:
    """Names of the tensors that may add to what they meet: no weights of layers, and not used as factors alone."""
    used = {
        str(node.target)
        for node in program.graph.find_nodes(op="get_attr")
        if any(operator_name(user.target).rstrip("_") not in _FACTORS for user in node.users)
    }
    return frozenset(used - {layer.weight for layer in program.layers()})
