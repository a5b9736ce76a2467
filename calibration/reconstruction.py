"""Layer-local reconstruction: weights are replaced one after the other, each with statistics of its inputs as the
layers before it, already replaced, yield them. One run of the network over the calibration inputs does it all.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.passes.cost import weighted_calls
from prunec.passes.graphs import arguments, operator_name
from prunec.passes.one_shot import Moments
from prunec.passes.program import Program

#: Values of unfolded inputs at a time.
_CHUNK = 2**25


@dataclass(frozen=True)
class LayerInputs:
    """What is known of one layer's inputs.

    Attributes:
        calibration: moments of those that weights are chosen by.
        held_back: of others, to judge the choice by.
        shiftable: whether a constant can be added to the layer's outputs.
    """

    calibration: Moments
    held_back: Moments
    shiftable: bool


#: (name of the weight, the weight, its inputs) -> the weight that replaces it, and what to add to its outputs (K,)
Solve = Callable[[str, Tensor, LayerInputs], tuple[Tensor, Tensor | None]]


@torch.no_grad()
def reconstruct(program: Program, inputs: Tensor, held_back: int, weights: frozenset[str], solve: Solve) -> None:
    """Replace weights in the order in which the network uses them.

    Args:
        program: with one input; its weights are changed in place.
        inputs: of the network, the last ``held_back`` of which weights are not chosen by.
        held_back: number of samples.
        weights: names of those to replace; of convolutions without groups and linear layers.
        solve: makes the new weight. A weight in several calls is replaced at the first.

    What is to be added to outputs goes into the layer's bias, or into the mean of the batch norm behind it.
    """
    calls = {node: weight for node, weight in weighted_calls(program.graph) if weight in weights}
    _Reconstruction(program, calls, len(inputs) - held_back, solve).run(inputs)


class _Reconstruction(Interpreter):
    def __init__(self, program: Program, calls: dict[Node, str], count: int, solve: Solve) -> None:
        super().__init__(program.module)
        self.tensors, self.calls, self.count, self.solve = program.tensors(), calls, count, solve
        self.done: set[str] = set()

    def run_node(self, n: Node) -> Any:
        weight = self.calls.get(n)
        if weight is not None and weight not in self.done:
            self.done.add(weight)
            x = self.env[next(iter(arguments(n).values()))]
            calibration, held_back = (input_moments(n, part) for part in (x[: self.count], x[self.count :]))
            place = _bias_of(n)
            known = LayerInputs(calibration, held_back, shiftable=place is not None)
            new, shift = self.solve(weight, self.tensors[weight].clone(), known)
            self.tensors[weight].copy_(new)
            if shift is not None and place is not None:
                self.tensors[place.name].add_(place.sign * shift.to(self.tensors[place.name].dtype))
        return super().run_node(n)


@dataclass(frozen=True)
class _Bias:
    """A tensor that shifts a call's outputs, and in which direction."""

    name: str
    sign: int


def _bias_of(call: Node) -> _Bias | None:
    """The call's bias, or the mean of the one batch norm behind it; None where there is none, or others use it too."""
    bias = arguments(call).get("bias")
    if bias is not None:
        return _Bias(str(bias.target), 1) if bias.op == "get_attr" and len(bias.users) == 1 else None
    follower = next(iter(call.users))
    if len(call.users) != 1 or operator_name(follower.target) != "batch_norm":
        return None
    mean = arguments(follower).get("running_mean")
    return _Bias(str(mean.target), -1) if mean is not None and mean.op == "get_attr" and len(mean.users) == 1 else None


def input_moments(call: Node, x: Tensor) -> Moments:
    """Moments of what each output of a call sees.

    Args:
        call: of a convolution without groups or a linear operator.
        x: its input, samples first.
    """
    size = arguments(call)["weight"].meta["shapes"]
    columns = math.prod(size[1:])
    squares, total, count = torch.zeros(columns, columns, dtype=torch.float64), torch.zeros(columns).double(), 0
    start: Tensor | None = None
    for part in _parts(x, columns):
        seen = part.reshape(-1, size[1]) if operator_name(call.target) == "linear" else _patches(call, part)
        # Sums of squares about a point near the mean: about zero, float32 would lose small deviations from large means.
        start = seen.mean(0) if start is None else start
        seen = seen - start
        squares += (seen.T @ seen).double()
        total += seen.sum(0).double()
        count += len(seen)
    assert start is not None
    return Moments(count, start.double() + total / count, squares - torch.outer(total, total) / count)


def _parts(x: Tensor, columns: int) -> Iterator[Tensor]:
    per_sample = max(1, x[:1].numel() // x.shape[1] * columns) if x.ndim > 1 else columns
    count = max(1, _CHUNK // per_sample)
    return (x[start : start + count] for start in range(0, len(x), count))


def _patches(call: Node, x: Tensor) -> Tensor:
    """Inputs under the kernel at every place: (samples * places, positions * C).

    A convolution of each channel with kernels that pick one position: padding, stride and dilation as in the call.
    """
    bound = arguments(call)
    kernel = bound["weight"].meta["shapes"][2:]
    picks = torch.eye(torch.Size(kernel).numel(), dtype=x.dtype).reshape(-1, 1, *kernel)
    samples, channels = x.shape[:2]
    single = x.reshape(samples * channels, 1, *x.shape[2:])
    picked: Tensor = call.target(single, picks, None, bound["stride"], bound["padding"], bound["dilation"])  # type: ignore[operator]
    return picked.reshape(samples, channels, len(picks), -1).permute(0, 3, 2, 1).reshape(-1, len(picks) * channels)
