"""The first batch norm of a network: its running statistics tell which inputs the network was trained on."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from prunec.calibration.trials import CannotRunError, tried
from prunec.passes.graphs import arguments, calls, operator_name
from prunec.passes.program import Program

#: Samples that run at once: what a first convolution gives is large.
_CHUNK = 32
#: A channel whose variance is below this share of the median is dead, and its statistics are noise.
_DEAD = 1e-2
#: No channel counts more than this: a few odd ones must not decide.
_LARGEST_DISTANCE = 3.0
_EPS = 1e-8
#: Share of the largest input below which the inputs' deviation is rounding.
_VARIES = 1e-6


@dataclass(frozen=True)
class AffineChange:
    """A change of inputs x to ``scale * x + shift``."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, inputs: Tensor) -> Tensor:
        """Changed inputs, of the same shape."""
        return self.scale * inputs + self.shift


@dataclass(frozen=True)
class ResponseMoments:
    """First and second moments, float64, by channel of what a batch norm is given by inputs x, by 1 and by 0.

    They hold the statistics for every `AffineChange` of the inputs, where all before the batch norm is affine.

    Attributes:
        first: Means (C, 3) of y(x) - y(0), y(1) - y(0), y(0).
        second: Means (C, 3, 3) of their products.
    """

    first: Tensor
    second: Tensor

    def statistics(self, scales: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, (K, C), for K changes."""
        weights = torch.stack([scales, shifts, torch.ones_like(scales)], dim=1)
        means = weights @ self.first.T
        squares = torch.einsum("ki,cij,kj->kc", weights, self.second, weights)
        return means, (squares - means**2).clamp_min(0)


@dataclass(frozen=True)
class FirstNorm:
    """The first batch norm of a network.

    Attributes:
        mean: Running means (C,), float64, of the channels that are alive.
        variance: Running variances (C,), likewise.
        alive: Numbers of these channels.
        left: Share of their first values, 0 and 1, that may be left in running means and variances after the training.
        before: All of the network that comes before it: from inputs to its inputs (N, channels, ...).
    """

    mean: Tensor
    variance: Tensor
    alive: Tensor
    left: float
    before: GraphModule

    @classmethod
    def of(cls, program: Program) -> "FirstNorm | None":
        """The batch norm of a program in inference form; None where it has none behind its only input."""
        graph, tensors = program.graph, program.tensors()
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        if len(placeholders) != 1:
            return None
        node = next(iter(_batch_norms(program)), None)
        if node is None:
            return None
        bound = arguments(node)
        mean, variance = (tensors[str(bound[f"running_{name}"].target)].double() for name in ("mean", "var"))
        alive = (variance > _DEAD * variance.median()).nonzero().flatten()
        if not len(alive):
            return None
        steps = tensors.get(str(bound["running_mean"].target).replace("running_mean", "num_batches_tracked"))
        # A checkpoint that lost the number of steps, as converted ones do, is taken for one of many.
        left = (1 - float(bound["momentum"])) ** int(steps) if steps is not None and steps > 0 else 0.0
        return cls(
            mean[alive], variance[alive], alive, left, GraphModule(program.module, _up_to(graph, bound["input"]))
        )

    @torch.no_grad()
    def moments(self, inputs: Tensor) -> ResponseMoments | None:
        """ResponseMoments on inputs (N, ...).

        None where what comes before the batch norm isn't affine or can't be tried out, and where the inputs don't vary,
        so that any scale fits.
        """
        if float(inputs.std()) <= _VARIES * float(inputs.abs().max()):
            return None
        with suppress(CannotRunError):
            return self._moments(inputs)
        return None

    def _moments(self, inputs: Tensor) -> ResponseMoments | None:
        given_by = partial(tried, self._given)
        zero, one = (given_by(torch.full_like(inputs[:1], value)) for value in (0.0, 1.0))
        probe = inputs[:2]
        expected = 2 * (given_by(probe) - zero) + one
        if not torch.allclose(given_by(2 * probe + 1), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
            return None
        firsts, seconds = [], []
        for part in torch.split(inputs, _CHUNK):
            given = given_by(part)
            rows = torch.stack([given - zero, (one - zero).expand_as(given), zero.expand_as(given)])
            flat = rows.transpose(1, 2).flatten(2).transpose(0, 1).double()  # (C, 3, values)
            firsts.append(flat.sum(2))
            seconds.append(flat @ flat.transpose(1, 2))
        count = len(inputs) * zero[0, 0].numel()
        return ResponseMoments(sum(firsts) / count, sum(seconds) / count)

    @torch.no_grad()
    def distance(self, inputs: Tensor) -> float:
        """Mean over channels of how far what these inputs give is from what the batch norm saw.

        It is measured in the standard deviations that it saw, together with the logarithm of the ratio of deviations.
        After a short training something is left in running statistics of the mean 0 and the variance 1 that they
        began with: the share that explains them best counts.
        """
        given = torch.cat([self._given(part).transpose(0, 1).flatten(1) for part in torch.split(inputs, _CHUNK)], dim=1)
        mean, variance = given.double().mean(1), given.double().var(1, unbiased=False)
        left = torch.linspace(0, self.left, 9, dtype=torch.float64)[:, None]
        return float(self._distances((1 - left) * mean, (1 - left) * variance + left).min())

    def fits(self, moments: ResponseMoments) -> tuple[tuple[AffineChange, float], ...]:
        """The changes of the inputs with the least distance, and that distance: of positive scale, and of negative.

        Many first layers hold filters and their negatives, which see bright and dark alike: both may fit.
        """
        return self._fit(moments, 1.0), self._fit(moments, -1.0)

    def _fit(self, moments: ResponseMoments, sign: float) -> tuple[AffineChange, float]:
        powers, step = torch.linspace(-4, 4, 321, dtype=torch.float64), 8 / 320
        for _ in range(2):
            scales = sign * 10**powers
            shifts = self._shifts(moments, scales)
            distances = self._distances(*moments.statistics(scales, shifts))
            at = int(distances.argmin())
            powers = powers[at] + step * torch.linspace(-1, 1, 41, dtype=torch.float64)
        return AffineChange(float(scales[at]), float(shifts[at])), float(distances[at])

    def _shifts(self, moments: ResponseMoments, scales: Tensor) -> Tensor:
        """For each scale the shift that brings the means closest, (K,): least squares, then again without outliers."""
        of_x, of_one, of_zero = moments.first.T
        missing = (self.mean - of_zero - scales[:, None] * of_x) / self.variance.sqrt()
        effect = (of_one / self.variance.sqrt()).expand_as(missing)
        weights = torch.ones_like(missing)
        shifts = torch.zeros_like(scales)
        for _ in range(3):
            shifts = (weights * effect * missing).sum(1) / (weights * effect**2).sum(1).clamp_min(_EPS)
            weights = 1 / (1 + (missing - shifts[:, None] * effect) ** 2)
        return shifts

    def _distances(self, means: Tensor, variances: Tensor) -> Tensor:
        shift = (means - self.mean) / self.variance.sqrt()
        spread = 0.5 * ((variances + _EPS) / (self.variance + _EPS)).log()
        return (shift**2 + spread**2).sqrt().clamp_max(_LARGEST_DISTANCE).mean(1)

    def _given(self, inputs: Tensor) -> Tensor:
        return self.before(inputs)[:, self.alive]  # type: ignore[no-any-return]


def is_untrained(program: Program) -> bool:
    """Whether a network has batch norms, and all of them are as they are made: means of 0 and variances of 1."""
    tensors = program.tensors()
    norms = [
        [tensors[str(arguments(node)[f"running_{name}"].target)] for name in ("mean", "var")]
        for node in _batch_norms(program)
    ]
    return bool(norms) and all(bool((mean == 0).all() and (variance == 1).all()) for mean, variance in norms)


def _batch_norms(program: Program) -> Iterable[Node]:
    """The batch norms with running statistics, in the order of execution."""
    for node in calls(program.graph):
        if operator_name(node.target) == "batch_norm" and isinstance(arguments(node).get("running_mean"), Node):
            yield node


def _up_to(graph: Graph, last: Node) -> Graph:
    """The part of a graph that a node depends on, with this node as its output."""
    part = Graph()
    copies: dict[Node, Node] = {}
    for node in graph.nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
        if node is last:
            break
    part.output(copies[last])
    part.eliminate_dead_code()
    return part
