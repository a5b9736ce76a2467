"""Layer-local reconstruction: weights are replaced one after the other, each with statistics of its inputs as the
layers before it, already replaced, yield them. One run of the network over the calibration inputs does it all.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.calibration.unfold import unfolded
from prunec.passes.cost import weighted_calls
from prunec.passes.criteria.catalogue import blame
from prunec.passes.criteria.protocol import Seen, Statistic
from prunec.passes.criteria.statistics import InputMoments, Moments
from prunec.passes.graphs import arguments, operator_name
from prunec.passes.program import Program


@dataclass(frozen=True)
class LayerInputs:
    """Statistics of one layer's inputs.

    Attributes:
        measured: Statistics of the inputs that weights are chosen by, `InputMoments` among them.
        held_back: Moments of other inputs, to judge the choice by.
        shiftable: Whether a constant can be added to the layer's outputs.
    """

    measured: dict[Statistic, Any]
    held_back: Moments
    shiftable: bool

    @property
    def moments(self) -> Moments:
        """Moments of the inputs that weights are chosen by."""
        return self.measured[InputMoments()]  # type: ignore[no-any-return]


#: (name of the weight, the weight, its inputs) -> the weight that replaces it, and a shift of its outputs, (K,)
Solve = Callable[[str, Tensor, LayerInputs], tuple[Tensor, Tensor | None]]


@torch.no_grad()
def reconstruct(
    program: Program,
    inputs: Tensor,
    held_back: int,
    weights: frozenset[str],
    statistics: tuple[Statistic, ...],
    solve: Solve,
) -> None:
    """Replace weights in the order in which the network uses them.

    Args:
        program: A program with one input; its weights are changed in place.
        inputs: Inputs of the network; weights are not chosen by the last ``held_back`` of them.
        held_back: Number of samples that are held back.
        weights: Names of the weights to replace, of convolutions without groups and linear layers.
        statistics: Statistics of inputs that the new weights are made by, beside `InputMoments`.
        solve: Function that makes a new weight; one that several calls use is replaced at the first of them. The shift
            of the outputs goes into the layer's bias, or into the mean of the batch norm behind it.
    """
    tensors, count = program.tensors(), len(inputs) - held_back
    # Runs of their own: where a layer sees tokens or windows, its input's first axis isn't that of the samples.
    runs = [_Steps(program, part) for part in (inputs[:count], inputs[count:])]
    left = set(weights)
    names = dict(weighted_calls(program.graph))
    for node in program.graph.nodes:
        name = names.get(node)
        if name in left:
            left.remove(name)
            calibration, judging = (run.env[next(iter(arguments(node).values()))] for run in runs)
            measured = measure_inputs(node, calibration, (InputMoments(), *statistics))
            judged = measure_inputs(node, judging, (InputMoments(),))[InputMoments()]
            shifted = _shifted_by(node)
            new, shift = solve(name, tensors[name].clone(), LayerInputs(measured, judged, shifted is not None))
            tensors[name].copy_(new)
            if shift is not None and shifted is not None:
                tensor, sign = tensors[shifted[0]], shifted[1]
                tensor.add_(sign * shift.to(tensor.dtype))
        for run in runs:
            run.step(node)


class _Steps(Interpreter):
    """Runs a program node by node."""

    def __init__(self, program: Program, inputs: Tensor) -> None:
        super().__init__(program.module)
        self.args_iter = iter(program.graph.process_inputs(inputs))

    def step(self, node: Node) -> None:
        self.env[node] = self.run_node(node)
        for used in self.user_to_last_uses.get(node, []):
            del self.env[used]


def measure_inputs(call: Node, x: Tensor, statistics: Iterable[Statistic]) -> dict[Statistic, Any]:
    """Results of statistics of the input ``x``, samples first, of a call that `can_unfold` accepts."""
    states: dict[Statistic, Any] = dict.fromkeys(statistics)
    for rows in unfolded(call, x):
        for statistic, state in states.items():
            with blame(statistic):
                states[statistic] = statistic.update(state, Seen(rows))
    for statistic, state in states.items():
        with blame(statistic):
            states[statistic] = statistic.result(state)
    return states


def _shifted_by(call: Node) -> tuple[str, int] | None:
    """Name of the tensor that shifts a call's outputs, and in which direction, 1 or -1.

    It is the call's bias, or the mean of the one batch norm behind it; None where there is none, or others use it too.
    """
    tensor, sign = arguments(call).get("bias"), 1
    if tensor is None:
        follower = next(iter(call.users))
        if len(call.users) == 1 and operator_name(follower.target) == "batch_norm":
            tensor, sign = arguments(follower).get("running_mean"), -1
    return None if tensor is None or tensor.op != "get_attr" or len(tensor.users) != 1 else (str(tensor.target), sign)
