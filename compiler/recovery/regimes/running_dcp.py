"""The training hook "dcp" at work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import Node
from torch.nn.functional import mse_loss

from prunec.compiler.recovery.networks import expose
from prunec.compiler.recovery.objective import label_loss
from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD
from prunec.compiler.recovery.regimes.channel_choice import ChannelChoice
from prunec.compiler.recovery.regimes.class_scores import class_count
from prunec.compiler.recovery.regimes.course import all_steps, steps_done
from prunec.compiler.recovery.regimes.filter_choice import Chooser
from prunec.compiler.recovery.regimes.input_channels import readers_of
from prunec.compiler.recovery.regimes.pivot_head import PivotHead
from prunec.compiler.recovery.regimes.shared_copy import shared_copy
from prunec.compiler.recovery.regimes.unit_parts import UnitParts, UnitSlices
from prunec.compiler.recovery.running_hook import Attachment, Batch, HookCost, Moment, OwnParameters, RunningHook
from prunec.passes.cost import calls_by_weight
from prunec.passes.criteria.learned import UNITS
from prunec.passes.feeding import BatchInputs, bound, sample_count
from prunec.passes.graphs import operator_name
from prunec.passes.groups import Group
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program

if TYPE_CHECKING:
    from prunec.compiler.recovery.regimes.dcp import Dcp


@dataclass(frozen=True, eq=False)
class _Stage:
    """The groups of a stage with their readers, and the node and the head of its pivot, if it has one."""

    groups: tuple[Group, ...]
    readers: tuple[tuple[UnitSlices, ...], ...]
    pivot: str = ""
    head: PivotHead | None = None


@dataclass
class RunningDcp(RunningHook):
    """Trains heads with the network, chooses channels stage by stage, and holds the others at zero.

    ``options`` are those of the hook.
    """

    options: "Dcp"

    def attach(self, form: Program) -> Attachment:
        program, name = self.training.program, self.options.name
        chooser = Chooser.of(self.training, name)
        self.groups = chooser.groups
        self.parts = [UnitParts.of(program, group) for group in self.groups]
        self.choice = chooser.choose("l1")
        self.widths = {group: int(stays.sum()) for group, stays in self.choice.stays.items()}
        pruned = [group for group in self.groups if self.widths[group.name] < group.count]
        self.calls = calls_by_weight(program.graph)
        self.stages = self._stages(pruned, readers_of(program, pruned, name))
        self.stage = 0
        self.batch: tuple[BatchInputs, Tensor] | None = None
        self.ranks: dict[str, Tensor] = {}
        self.samples = self.macs = 0
        self.told: list[dict[str, Any]] = []
        self.original, self.masked = program.clone().eval(), shared_copy(program)
        read = [output.name for stage in self.stages for each in stage.readers for output in self._outputs(each)]
        self.inner = tuple(dict.fromkeys([*(stage.pivot for stage in self.stages if stage.pivot), *read]))
        for copy in (self.original, self.masked):
            expose(copy, self.inner)
        heads = [parameter for stage in self.stages if stage.head for parameter in stage.head.parameters()]
        parameters = (OwnParameters(tuple(heads)),) if heads else ()
        return Attachment(parameters, inner=tuple(stage.pivot for stage in self.stages if stage.pivot))

    def _stages(self, pruned: Sequence[Group], readers: Sequence[tuple[UnitSlices, ...]]) -> list[_Stage]:
        program, device = self.training.program, self.training.processes.device
        classes = class_count(program, self.options.name)
        order = {node: place for place, node in enumerate(program.graph.nodes)}
        count = min(self.options.pivots + 1, max(1, len(pruned)))
        stages = []
        for number, positions in enumerate(np.array_split(np.arange(len(pruned)), count)):
            groups, reading = tuple(pruned[p] for p in positions), tuple(readers[p] for p in positions)
            if number == count - 1:
                stages.append(_Stage(groups, reading))
                break
            pivot = max((output for each in reading for output in self._outputs(each)), key=order.__getitem__)
            axis = 1 if WEIGHTED[operator_name(pivot.target)].spatial_dims else -1
            head = PivotHead(pivot.meta["sample_shapes"][axis], classes, axis).to(device)
            stages.append(_Stage(groups, reading, pivot.name, head))
        return stages

    def _outputs(self, readers: Sequence[UnitSlices]) -> list[Node]:
        """The nodes of the graph that the readers of a group give outputs in."""
        return [call for reader in readers for call in self.calls[reader.name]]

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        """The loss with that of the stage's pivot."""
        self.batch = batch.inputs, batch.labels
        stage = self.stages[min(self.stage, len(self.stages) - 1)]
        if stage.head is None:
            return loss
        scores = stage.head(batch.inner[stage.pivot].float())
        return loss + self.options.weight * label_loss(self.training.loss, scores, batch.labels)

    def after_update(self, moment: Moment) -> None:
        """Hold at zero what isn't chosen; at the end of a stage choose its channels."""
        done, steps = steps_done(self.training, moment), all_steps(self.training)
        self._hold()
        while self.stage < len(self.stages) and done >= max(1, steps * (self.stage + 1) // len(self.stages)):
            self._choose(self.stages[self.stage])
            self.stage += 1

    def _choose(self, stage: _Stage) -> None:
        assert self.batch is not None, "a step has a batch"
        inputs, labels = self.batch
        _, wanted = self._run(self.original, {}, inputs)
        self._count(inputs, 1, 0)
        for group, readers in zip(stage.groups, stage.readers, strict=True):
            objective = self._objective(stage, readers, inputs, labels, wanted)
            weights = {reader.name: reader.parameter.detach().clone() for reader in readers}
            choice = ChannelChoice(readers, objective, self._averaged, weights)
            choice.choose(self.widths[group.name], self.options.rounds, self.options.rate)
            ranks = torch.zeros(group.count, dtype=torch.float64)
            ranks[choice.order] = torch.linspace(1, 1 / len(choice.order), len(choice.order), dtype=torch.float64)
            self.ranks[group.name] = ranks
            with torch.no_grad():
                for reader, weight in zip(readers, choice.masked(choice.weights).values(), strict=True):
                    reader.parameter.copy_(weight)
            self._hold()
            self._count(inputs, *choice.passes)
            self.told.append({
                "stage": self.stage + 1, "group": group.name, "chosen": len(choice.order),
                "steps": len(choice.steps), "fallen": sum(before - after for before, after in choice.steps),
            })  # fmt: skip

    def _objective(
        self,
        stage: _Stage,
        readers: Sequence[UnitSlices],
        inputs: BatchInputs,
        labels: Tensor,
        wanted: Mapping[str, Tensor],
    ) -> Callable[[Mapping[str, Tensor]], Tensor]:
        """The loss of a choice as a function of the weights that read its units, with its mean in all processes."""
        names = [output.name for output in self._outputs(readers)]

        def objective(weights: Mapping[str, Tensor]) -> Tensor:
            outputs, inner = self._run(self.masked, weights, inputs)
            scores = outputs if stage.head is None else stage.head(inner[stage.pivot])
            loss = self.options.weight * self.training.loss(scores, labels)  # the training checks what it gives
            for name in names:
                loss = loss + mse_loss(inner[name], wanted[name])
            processes = self.training.processes
            mean = processes.sums(float(loss.detach()))[0] / processes.count
            return loss + (mean - loss.detach()) if processes.count > 1 else loss

        return objective

    def _run(
        self, program: Program, weights: Mapping[str, Tensor], inputs: BatchInputs
    ) -> tuple[Any, dict[str, Tensor]]:
        """Outputs and inner values of a copy of the network with other weights."""
        args, kwargs = bound(self.training.program, inputs)
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(weights)):
            outputs, values = functional_call(program.module, dict(weights), args, kwargs)
        return outputs, dict(zip(self.inner, values, strict=True))

    def _averaged(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        held = [nn.Parameter(torch.empty_like(gradient)) for gradient in gradients]
        for parameter, gradient in zip(held, gradients, strict=True):
            parameter.grad = gradient
        self.training.processes.average_gradients(held)
        return [parameter.grad for parameter in held if parameter.grad is not None]

    @torch.no_grad()
    def _hold(self) -> None:
        """Set everything of the units that weren't chosen to zero."""
        for parts in self.parts:
            ranks = self.ranks.get(parts.group.name)
            if ranks is not None:
                for slices in (*parts.own, *parts.readers):
                    slices.parameter.masked_fill_(slices.spread(ranks.eq(0)), 0.0)

    def _count(self, inputs: BatchInputs, forwards: int, backwards: int) -> None:
        samples = sample_count(inputs) * self.training.processes.count
        macs = (forwards + BACKWARD_OVER_FORWARD * backwards) * samples * self.training.program.macs()
        self.samples, self.macs = self.samples + forwards * samples, self.macs + macs

    def decided(self) -> Mapping[str, object]:
        """What takes as many units of each group as L1 norms would, those that were chosen last or not at all."""
        ranks = {group.name: self.ranks.get(group.name, torch.ones(group.count)) for group in self.groups}
        return {UNITS: self.choice.by(ranks)}

    def figures(self) -> Mapping[str, object]:
        return {"stages": len(self.stages), "choices": list(self.told)}

    def cost(self) -> HookCost:
        """The runs of the choices; those of the heads within the training are beneath notice and not counted."""
        return HookCost(self.samples, self.macs)

    def state(self) -> Mapping[str, Any]:
        return {
            "ranks": dict(self.ranks), "stage": self.stage, "samples": self.samples, "macs": self.macs,
            "told": list(self.told),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self.stage, self.samples, self.macs = state["stage"], state["samples"], state["macs"]
        self.ranks = {name: ranks.cpu() for name, ranks in state["ranks"].items()}
        self.told = list(state["told"])
