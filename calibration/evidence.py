"""Collect what criteria need to know of a program on data, in one pass over the data."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.calibration.places import gates, outputs
from prunec.calibration.unfold import can_unfold, unfolded
from prunec.passes.cost import weighted_calls
from prunec.passes.coupling import analyse
from prunec.passes.criteria.catalogue import blame, resolve, statistics_of
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import Criterion, Per, Seen, Source, Statistic
from prunec.passes.errors import InputError, NumericMismatchError, UsageError
from prunec.passes.feeding import BatchInputs, bound, feed, flat_inputs, part_of, sample_count, values_of_data
from prunec.passes.graphs import arguments
from prunec.passes.interruption import stoppable
from prunec.passes.policy import Policy
from prunec.passes.program import Program
from prunec.passes.user_calls import call_user_code, defined_at
from prunec.runtime.evaluate import OBJECTIVE_HINT

#: (outputs, labels) -> the loss, a scalar.
Loss = Callable[[Any, Any], Tensor]
_DEFAULT_POLICY = Policy()


def collect_evidence(
    program: Program,
    criteria: Iterable[str | Criterion],
    batches: Iterable[tuple[Any, Any]],
    loss: Loss | None = None,
    *,
    policy: Policy = _DEFAULT_POLICY,
) -> Evidence:
    """Measure every statistic that criteria need, in one pass over the batches; equal statistics are measured once.

    The network runs in its inference form. Gradients are those of the weights as they are; no weight is changed.

    Args:
        program: Any program.
        criteria: Criteria or their texts.
        batches: (inputs, labels); inputs are a tensor, a tuple of tensors, or tensors by the names of the network's
            inputs. Labels may be None where no criterion needs them.
        loss: The loss of a batch, or of one sample where a statistic looks at gradients of samples.
        policy: `PruneFilters.policy` of the pass that the evidence is for: it decides what the groups are.

    Raises:
        UsageError: There is no batch, or no loss or labels for criteria that need them; the loss fails or is no scalar;
            gradients of samples are asked for and the network runs at one batch size only.
        NumericMismatchError: The loss of a batch is not finite.
    """
    resolved = [resolve(criterion) for criterion in criteria]
    statistics = statistics_of(resolved)
    if not statistics:
        return Evidence(program.tensors())
    needs_labels = [c.name for c in resolved if c.needs & {"gradients", "labels"}]
    if loss is None and any(c.needs & {"gradients"} for c in resolved):
        raise UsageError(f"The criterion {needs_labels[0]} needs gradients, and there is no loss to take them of.")
    collection = _Collection(program, statistics, loss, policy)
    samples = 0
    for inputs, labels in stoppable(batches):
        if labels is None and needs_labels:
            raise UsageError(f"The criterion {needs_labels[0]} needs labels, and the data have none.")
        collection.see(inputs, labels)
        samples += sample_count(inputs)
    if not samples:
        raise UsageError("There is no batch to collect evidence on.", hint="Give inputs and labels.")
    return Evidence(program.tensors(), collection.results(), samples, passes=collection.passes)


class _Collection:
    """Runs a copy of a program, and keeps the states of statistics at all places where they look."""

    def __init__(self, program: Program, statistics: tuple[Statistic, ...], loss: Loss | None, policy: Policy) -> None:
        self.statistics, self.loss = statistics, loss
        self.states: dict[tuple[Statistic, str], Any] = {}
        self.program = program.clone().eval()
        first: dict[int, str] = {}
        #: First name of each tensor, by every name of a parameter or buffer.
        self.names = {name: first.setdefault(id(tensor), name) for name, tensor in self.program.tensors().items()}
        self.parameters = {n: p for n, p in self.program.parameters().items() if p.is_floating_point()}
        looks_at_gates = bool(self.looking_at("gate gradients"))
        self.gates = gates(self.program, analyse(self.program, policy).groups) if looks_at_gates else []
        calls = weighted_calls(self.program.graph) if self.looking_at("inputs") else []
        self.inputs = {call: weight for call, weight in calls if weight in self.names and can_unfold(call)}
        self.outputs = outputs(self.program) if self.looking_at("outputs") else {}
        gradients: tuple[Source, ...] = ("weight gradients", "gate gradients")
        self.needs = {per: any(self.looking_at(source, per) for source in gradients) for per in ("batch", "sample")}
        self.sees_batches = any(statistic.per == "batch" for statistic in statistics)
        if self.needs["sample"] and not self.program.batch_is_dynamic:
            raise UsageError(
                "Gradients of samples are asked for, and the network runs at one batch size only.",
                hint='Use a statistic with per="batch".',
            )
        for parameter in self.parameters.values():
            parameter.requires_grad_(any(self.needs.values()))

    def looking_at(self, source: Source, per: Per | None = None) -> list[Statistic]:
        return [s for s in self.statistics if s.looks_at == source and per in (None, s.per)]

    @property
    def passes(self) -> tuple[int, int]:
        """Passes over each sample, forward and backward: gradients of samples take one of both of their own."""
        return self.sees_batches + self.needs["sample"], self.needs["batch"] + self.needs["sample"]

    def add(self, source: Source, where: str, seen: Seen, per: Per | None = None) -> None:
        for statistic in self.looking_at(source, per):
            with blame(statistic):
                self.states[statistic, where] = statistic.update(self.states.get((statistic, where)), seen)

    def see(self, inputs: BatchInputs, labels: Any) -> None:
        """Update all statistics with a batch."""
        if self.sees_batches:
            self._see_whole(inputs, labels)
        for position in stoppable(range(sample_count(inputs))) if self.needs["sample"] else ():
            one, label = part_of((inputs, labels), slice(position, position + 1))
            self._add_gradients("sample", feed(self.program, one), label)

    def _see_whole(self, inputs: BatchInputs, labels: Any) -> None:
        codegen: Any = self.program.graph._codegen
        with torch.set_grad_enabled(self.needs["batch"]):
            given = flat_inputs(self.program.graph, *bound(self.program, inputs))
            with values_of_data(inputs):
                leaves = _Observing(self, labels).run(*given, enable_io_processing=False)
            result = codegen.process_outputs(leaves)
        if self.needs["batch"]:
            self._add_gradients("batch", result, labels)

    def _add_gradients(self, per: Per, result: Any, labels: Any) -> None:
        gradients = self._gradients(result, labels)
        for name, gradient in gradients.items():
            if name == self.names[name]:
                self.add("weight gradients", name, Seen(gradient, labels), per)
        for gate in self.gates:
            seen = Seen(gate.gradient(self.parameters, gradients), labels)
            self.add("gate gradients", gate.group.name, seen, per)

    def _gradients(self, result: Any, labels: Any) -> dict[str, Tensor]:
        """Derivatives of the loss by every parameter; names of one tensor share them."""
        assert self.loss is not None
        value = call_user_code("loss function", self.loss, result, labels, hint=OBJECTIVE_HINT)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"The loss function{defined_at(self.loss)} gave {got}, expected one number.")
        if not value.requires_grad:
            raise InputError(
                f"The loss function{defined_at(self.loss)} gave a number without gradients.",
                hint="Leave out detach() and item().",
            )
        if not value.isfinite():
            raise NumericMismatchError(f"The loss on the data is {value.item()}, so that its gradients say nothing.")
        unique = {id(parameter): parameter for parameter in self.parameters.values()}
        gradients = torch.autograd.grad(value, list(unique.values()), materialize_grads=True)
        by_id = dict(zip(unique, gradients, strict=True))
        return {name: by_id[id(parameter)] for name, parameter in self.parameters.items()}

    def results(self) -> dict[tuple[Statistic, str], Any]:
        """Results by statistic and place, under each name of a tensor."""
        results = {}
        for (statistic, where), state in self.states.items():
            with blame(statistic):
                results[statistic, where] = statistic.result(state)
        return results | {
            (statistic, name): result
            for (statistic, where), result in results.items()
            for name, first in self.names.items()
            if first == where
        }


class _Observing(Interpreter):
    """Runs a program on a batch, updating statistics of inputs and outputs on the way."""

    def __init__(self, collection: _Collection, labels: Any) -> None:
        super().__init__(collection.program.module)
        self.collection, self.labels = collection, labels

    def run_node(self, n: Node) -> Any:
        collection, names = self.collection, self.collection.names
        if n in collection.inputs:
            x = self.env[next(iter(arguments(n).values()))].detach()
            for rows in unfolded(n, x):
                collection.add("inputs", names[collection.inputs[n]], Seen(rows))
        result = super().run_node(n)
        if n in collection.outputs:
            weight, axis = collection.outputs[n]
            collection.add("outputs", names[weight], Seen(result.detach().movedim(axis, 1), self.labels))
        return result
