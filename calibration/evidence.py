"""Collect what criteria need to know of a program on data, in one pass over the data."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.calibration.places import GatePlace, batch_norm_gates, gates, input_channels, outputs
from prunec.calibration.unfold import can_unfold, unfolded
from prunec.passes.cost import weighted_calls
from prunec.passes.coupling import analyse
from prunec.passes.criteria.catalogue import blame, resolve, statistics_of
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import Criterion, Per, Seen, Source, Statistic, images_of
from prunec.passes.errors import InputError, NumericMismatchError, UsageError
from prunec.passes.feeding import BatchInputs, bound, feed, flat_inputs, part_of, sample_count, values_of_data
from prunec.passes.graphs import arguments
from prunec.passes.groups import Group
from prunec.passes.interruption import stoppable
from prunec.passes.policy import Policy
from prunec.passes.program import Program
from prunec.passes.user_calls import call_user_code, defined_at
from prunec.runtime.evaluate import OBJECTIVE_HINT

#: (outputs, labels) -> the loss, a scalar.
Loss = Callable[[Any, Tensor], Tensor]
_DEFAULT_POLICY = Policy()
#: Where gates of groups stand, by the source that statistics look at.
_GATES: Mapping[Source, Callable[[Program, Iterable[Group]], list[GatePlace]]] = {
    "gate gradients": gates, "batch norm gates": batch_norm_gates,
}  # fmt: skip
_OUTPUTS: tuple[Source, ...] = ("outputs", "joined outputs")
_GRADIENTS: tuple[Source, ...] = ("weight gradients", *_GATES)


def collect_evidence(
    program: Program,
    criteria: Iterable[str | Criterion],
    batches: Iterable[tuple[Any, Any]],
    loss: Loss | None = None,
    *,
    policy: Policy = _DEFAULT_POLICY,
) -> Evidence:
    """Measure every statistic that criteria need, in one pass over the batches; equal statistics are measured once.

    The network runs in its inference form. Gradients are those of the weights as they are; no weight is changed. Where
    every statistic names a number of samples, no batch is read beyond these.

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
    for inputs, labels in stoppable(batches):
        if labels is None and needs_labels:
            raise UsageError(f"The criterion {needs_labels[0]} needs labels, and the data have none.")
        collection.see(inputs, labels)
        if collection.is_done:
            break
    if not collection.seen:
        raise UsageError("There is no batch to collect evidence on.", hint="Give inputs and labels.")
    return Evidence(program.tensors(), collection.results(), collection.seen, passes=collection.passes)


class _Collection:
    """Runs a copy of a program, and keeps the states of statistics at all places where they look."""

    def __init__(self, program: Program, statistics: tuple[Statistic, ...], loss: Loss | None, policy: Policy) -> None:
        self.statistics, self.loss = statistics, loss
        self.states: dict[tuple[Statistic, str], Any] = {}
        #: Samples seen before the current batch, and those of it.
        self.seen, self.batch = 0, 0
        self.program = program.clone().eval()
        self.tensors = self.program.tensors()
        first: dict[int, str] = {}
        #: First name of each tensor, by every name of a parameter or buffer.
        self.names = {name: first.setdefault(id(tensor), name) for name, tensor in self.tensors.items()}
        self.parameters = {n: p for n, p in self.program.parameters().items() if p.is_floating_point()}
        wanted = {source: place for source, place in _GATES.items() if self.looking_at(source)}
        groups = analyse(self.program, policy).groups if wanted else []
        #: The gates that are looked at, by source.
        self.gates = {source: place(self.program, groups) for source, place in wanted.items()}
        calls = weighted_calls(self.program.graph) if self.looking_at("inputs") else []
        self.inputs = {call: weight for call, weight in calls if weight in self.names and can_unfold(call)}
        self.channels = input_channels(self.program) if self.looking_at("input channels") else {}
        self.outputs = {
            source: outputs(self.program, joined=source == "joined outputs") if self.looking_at(source) else {}
            for source in _OUTPUTS
        }
        self.needs = {per: bool(self.looking_at_gradients(per)) for per in get_args(Per)}
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

    def looking_at_gradients(self, per: Per) -> list[Statistic]:
        return [statistic for source in _GRADIENTS for statistic in self.looking_at(source, per)]

    @property
    def passes(self) -> tuple[int, int]:
        """Passes over each sample, forward and backward: gradients of samples take one of both of their own."""
        return self.sees_batches + self.needs["sample"], self.needs["batch"] + self.needs["sample"]

    @property
    def is_done(self) -> bool:
        """Whether every statistic has seen as many samples as it looks at."""
        limits = [images_of(statistic) for statistic in self.statistics]
        return all(limit is not None and limit <= self.seen for limit in limits)

    def left(self, statistic: Statistic) -> int:
        """The samples of the current batch that a statistic still looks at."""
        limit = images_of(statistic)
        return self.batch if limit is None else min(max(limit - self.seen, 0), self.batch)

    def shares(self, source: Source) -> Iterator[tuple[int, list[Statistic]]]:
        """How many of the first samples of the batch are looked at, and by which statistics of a source."""
        statistics = self.looking_at(source)
        for count in sorted({self.left(each) for each in statistics} - {0}):
            yield count, [each for each in statistics if self.left(each) == count]

    def first(self, count: int, value: Tensor) -> Tensor:
        """The part of a value that is of the first samples of the batch.

        A value whose first axis doesn't count samples, or several places of each, comes as a whole.
        """
        is_cut = count < self.batch and value.ndim > 1 and len(value) % self.batch == 0
        return value[: len(value) // self.batch * count] if is_cut else value

    def add(self, statistics: Iterable[Statistic], where: str, seen: Seen) -> None:
        for statistic in statistics:
            with blame(statistic):
                self.states[statistic, where] = statistic.update(self.states.get((statistic, where)), seen)

    def see(self, inputs: BatchInputs, labels: Any) -> None:
        """Update all statistics with a batch."""
        self.batch = sample_count(inputs)
        if self.sees_batches:
            self._see_whole(inputs, labels)
        for position in stoppable(range(max(map(self.left, self.looking_at_gradients("sample")), default=0))):
            one, label = part_of((inputs, labels), slice(position, position + 1))
            self._add_gradients("sample", feed(self.program, one), label, position)
        self.seen += self.batch

    def _see_whole(self, inputs: BatchInputs, labels: Any) -> None:
        codegen: Any = self.program.graph._codegen
        with torch.set_grad_enabled(self.needs["batch"]):
            given = flat_inputs(self.program.graph, *bound(self.program, inputs))
            with values_of_data(inputs):
                leaves = _Observing(self, labels).run(*given, enable_io_processing=False)
            result = codegen.process_outputs(leaves)
        if self.needs["batch"]:
            self._add_gradients("batch", result, labels)

    def _add_gradients(self, per: Per, result: Any, labels: Any, position: int = 0) -> None:
        gradients = self._gradients(result, labels)
        statistics = [each for each in self.looking_at_gradients(per) if self.left(each) > position]

        def of(source: Source) -> list[Statistic]:
            return [each for each in statistics if each.looks_at == source]

        for name, gradient in gradients.items():
            if name == self.names[name]:
                self.add(of("weight gradients"), name, Seen(gradient, labels))
        for source, places in self.gates.items():
            for gate in places:
                self.add(of(source), gate.group.name, Seen(gate.gradient(self.parameters, gradients), labels))

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
            weight = collection.inputs[n]
            tensor = collection.tensors[weight].detach()
            for count, statistics in collection.shares("inputs"):
                for rows in unfolded(n, collection.first(count, x)):
                    collection.add(statistics, names[weight], Seen(rows, weight=tensor))
        if n in collection.channels:
            weight, axis = collection.channels[n]
            x = self.env[arguments(n)["input"]].detach().movedim(axis, 1)
            for count, statistics in collection.shares("input channels"):
                collection.add(statistics, names[weight], Seen(collection.first(count, x)))
        result = super().run_node(n)
        for source in _OUTPUTS:
            for weight, axis in collection.outputs[source].get(n, ()):
                for count, statistics in collection.shares(source):
                    value = collection.first(count, result.detach().movedim(axis, 1))
                    collection.add(statistics, names[weight], Seen(value, part_of(self.labels, slice(count))))
        return result
