"""Layer-local reconstruction: weights are replaced one after the other, each with statistics of its inputs as the
layers before it, already replaced, yield them. One run of the network over the calibration inputs does it all.

Batch norms behind replaced weights are measured anew on the way. Layer norms, in the language models that methods of
this kind are made for, see what reaches them; a batch norm would scale it by what the network yielded before, and
channels that shrank would look as if they mattered less to the layers behind.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.calibration.statistics import batch_norms, set_statistics
from prunec.calibration.unfold import unfolded
from prunec.passes.cost import weighted_calls
from prunec.passes.criteria.catalogue import blame
from prunec.passes.criteria.protocol import Seen, Statistic
from prunec.passes.criteria.statistics import InputMoments, Moments
from prunec.passes.dimensions import batch_size
from prunec.passes.feeding import BatchInputs, bound, flat_inputs, part_of, sample_count
from prunec.passes.graphs import arguments
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program


@dataclass(frozen=True)
class LayerInputs:
    """Statistics of one layer's inputs.

    Attributes:
        measured: Statistics of the inputs that weights are chosen by, `InputMoments` among them.
        held_back: Moments of other inputs, to judge the choice by.
        shiftable: Whether a constant can be added to the layer's outputs, or batch norms behind all its calls take any
            away.
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
    inputs: BatchInputs,
    held_back: int,
    weights: frozenset[str],
    statistics: tuple[Statistic, ...],
    solve: Solve,
) -> None:
    """Replace weights in the order in which the network uses them.

    Args:
        program: Any program; its weights, biases and batch norms are changed in place.
        inputs: Inputs of the network; weights are not chosen by the last ``held_back`` of them.
        held_back: Number of samples that are held back.
        weights: Names of the weights to replace, of convolutions without groups and linear layers.
        statistics: Statistics of inputs that the new weights are made by, beside `InputMoments`.
        solve: Function that makes a new weight; one that several calls use is replaced at the first of them. The shift
            of the outputs goes into the layer's bias.

    Raises:
        NumericMismatchError: The inputs of a batch norm behind replaced weights are not finite.
        UsageError: The calibration inputs are too few to measure such a batch norm.
    """
    tensors, count = program.tensors(), sample_count(inputs) - held_back
    # Runs of their own: where a layer sees tokens or windows, its input's first axis isn't that of the samples.
    runs = [in_batches(program, part_of(inputs, part)) for part in (slice(count), slice(count, None))]
    left, changed = set(weights), set[Node]()
    names, norms = dict(weighted_calls(program.graph)), _own_batch_norms(program)
    for node in stoppable(program.graph.nodes):
        name = names.get(node)
        if name in weights or not changed.isdisjoint(node.all_input_nodes):
            changed.add(node)
        if name in left:
            left.remove(name)
            read = next(iter(arguments(node).values()))
            calibration, judging = ([run.env[read] for run in part] for part in runs)
            measured = measure_inputs(node, tensors[name], calibration, (InputMoments(), *statistics))
            judged = measure_inputs(node, tensors[name], judging, (InputMoments(),))[InputMoments()]
            bias = _own_bias(node)
            calls = (call for call, weight in names.items() if weight == name)
            shiftable = bias is not None or all(len(c.users) == 1 and next(iter(c.users)) in norms for c in calls)
            new, shift = solve(name, tensors[name].clone(), LayerInputs(measured, judged, shiftable))
            tensors[name].copy_(new)
            if shift is not None and bias is not None:
                tensors[bias].add_(shift.to(tensors[bias].dtype))
        if node in changed and node in norms:
            mean, variance = (tensors[statistic] for statistic in norms[node])
            seen = torch.cat([run.env[arguments(node)["input"]] for run in runs[0]])
            set_statistics(mean, variance, seen, norms[node][0])
        for run in chain(*runs):
            run.step(node)


def in_batches(program: Program, inputs: BatchInputs, most: int | None = None) -> list["ProgramRun"]:
    """Runs over the inputs: of all of them, or of ``most`` at a time, or of as many as the network takes at once.

    What is left over is too few for a network that fixes or bounds its batch, and isn't run.
    """
    samples, (least, bound_) = sample_count(inputs), program.batch_bounds
    size = min(most or samples, bound_ or samples) if program.batch_is_dynamic else batch_size(program.example_inputs)
    least = least if program.batch_is_dynamic else size
    starts = [at for at in range(0, samples, size) if samples - at >= least]
    return [ProgramRun(program, part_of(inputs, slice(at, at + size))) for at in starts]


class ProgramRun(Interpreter):
    """Runs a program node by node."""

    def __init__(self, program: Program, inputs: BatchInputs) -> None:
        super().__init__(program.module)
        self.args_iter = iter(flat_inputs(program.graph, *bound(program, inputs)))

    def step(self, node: Node) -> None:
        self.env[node] = self.run_node(node)
        for used in self.user_to_last_uses.get(node, []):
            del self.env[used]


def measure_inputs(
    call: Node, weight: Tensor, parts: Iterable[Tensor], statistics: Iterable[Statistic]
) -> dict[Statistic, Any]:
    """Results of statistics of what a call that `can_unfold` accepts read, in one part or several: of all of it."""
    states: dict[Statistic, Any] = dict.fromkeys(statistics)
    for rows in chain.from_iterable(unfolded(call, part) for part in parts):
        for statistic, state in states.items():
            with blame(statistic):
                states[statistic] = statistic.update(state, Seen(rows, weight=weight))
    for statistic, state in states.items():
        with blame(statistic):
            states[statistic] = statistic.result(state)
    return states


def _own_bias(call: Node) -> str | None:
    """Name of a call's bias; None where there is none, or others use it too."""
    bias = arguments(call).get("bias")
    return str(bias.target) if bias is not None and bias.op == "get_attr" and len(bias.users) == 1 else None


def _own_batch_norms(program: Program) -> dict[Node, tuple[str, ...]]:
    """`batch_norms` whose statistics no other call uses."""
    norms = batch_norms(program)
    uses = Counter(names for names in norms.values())
    return {node: names for node, names in norms.items() if uses[names] == 1}
