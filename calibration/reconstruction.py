"""Layer-local reconstruction: weights are replaced one after the other, each with statistics of its inputs as the
layers before it, already replaced, yield them. One run of the network over the calibration inputs does it all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.passes.cost import weighted_calls
from prunec.passes.graphs import arguments, operator_name
from prunec.passes.program import Program

#: Values of unfolded inputs at a time.
_CHUNK = 2**25


@dataclass(frozen=True)
class InputMoments:
    """Of one layer's inputs: sums of x x^T, float64 (positions * C, positions * C), as `one_shot.to_rows` has columns.

    Attributes:
        calibration: over the inputs that weights are chosen by.
        held_back: over others, to judge the choice by.
    """

    calibration: Tensor
    held_back: Tensor


#: (name of the weight, the weight, moments of its inputs) -> the weight that replaces it
Solve = Callable[[str, Tensor, InputMoments], Tensor]


@torch.no_grad()
def reconstruct(program: Program, inputs: Tensor, held_back: int, weights: frozenset[str], solve: Solve) -> None:
    """Replace weights in the order in which the network uses them.

    Args:
        program: with one input; its weights are changed in place.
        inputs: of the network, the last ``held_back`` of which weights are not chosen by.
        held_back: number of samples.
        weights: names of those to replace; of convolutions without groups and linear layers.
        solve: makes the new weight. A weight in several calls is replaced at the first.
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
            parts = (x[: self.count], x[self.count :])
            moments = InputMoments(*(input_moments(n, part) for part in parts))
            self.tensors[weight].copy_(self.solve(weight, self.tensors[weight].clone(), moments))
        return super().run_node(n)


def input_moments(call: Node, x: Tensor) -> Tensor:
    """Sum of x x^T over what each output of a call sees.

    Args:
        call: of a convolution without groups or a linear operator.
        x: its input, samples first.

    Returns:
        float64 (positions * C, positions * C), input channels consecutive.
    """
    size = arguments(call)["weight"].meta["shapes"]
    columns = 1
    for length in size[1:]:
        columns *= length
    total = torch.zeros(columns, columns, dtype=torch.float64)
    for part in _parts(x, columns):
        seen = part.reshape(-1, size[1]) if operator_name(call.target) == "linear" else _patches(call, part)
        total += (seen.T @ seen).double()
    return total


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
