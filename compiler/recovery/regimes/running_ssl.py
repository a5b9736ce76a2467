"""The training hook "ssl" at work."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.compiler.recovery.regimes.filter_choice import Chooser
from prunec.compiler.recovery.regimes.lasso import Lasso, WeightColumns, WholeParameter
from prunec.compiler.recovery.regimes.unit_parts import UnitParts
from prunec.compiler.recovery.running_hook import Attachment, Moment, RunningHook, TrainingContext
from prunec.passes.allocation.branch_parts import removable_branches
from prunec.passes.criteria.learned import UNITS, Learned
from prunec.passes.errors import UsageError
from prunec.passes.operators import CONVOLUTIONS
from prunec.passes.program import Program
from prunec.passes.roles import expand_roles


@dataclass
class RunningSsl(RunningHook):
    """Adds the lasso's subgradient, and scores what it shrinks; fields are the options of the hook."""

    structure: str
    penalty: float
    near_zero: float

    def attach(self, form: Program) -> Attachment:
        self.chooser = None
        if self.structure == "shape":
            self.lassos = _of_columns(self.training.program)
        elif self.structure == "depth":
            self.lassos = _of_branches(self.training)
        else:
            self.chooser = Chooser.of(self.training, "ssl")
            self.lassos = _of_units(self.chooser, self.training.program, self.structure)
            self.chooser.choose(Learned(), self._units())  # refuses what can't be chosen for before anything is trained
        return Attachment()

    def before_update(self, moment: Moment) -> None:
        for lasso in self.lassos:
            lasso.add_subgradient(self.penalty)

    def _units(self) -> dict[str, Tensor]:
        return {lasso.name: lasso.root_mean_squares().cpu() for lasso in self.lassos}

    def decided(self) -> Mapping[str, object]:
        return {} if self.chooser is None else {UNITS: self._units()}

    def figures(self) -> Mapping[str, object]:
        units = self._units()
        sizes = torch.cat(list(units.values()))
        budget = {} if self.chooser is None else {"threshold_set_by_the_budget": self.chooser.threshold(units)}
        return {"groups": len(sizes), "near_zero_by_the_penalty_alone": int((sizes < self.near_zero).sum()), **budget}


def _of_units(chooser: Chooser, program: Program, structure: str) -> list[Lasso]:
    """Units of coupled groups, by their own weights or by those that read them."""
    lassos = []
    for group in chooser.groups:
        parts = UnitParts.of(program, group)
        chosen = parts.own if structure == "filter" else parts.readers
        if not chosen:
            raise UsageError(
                f"recover: ssl{{structure=channel}} penalises the weights that read a filter, and no layer with "
                f"weights reads those of the group {group.name}.",
                hint="Leave it whole, prune-filters{ignore=[...]}, or take structure=filter.",
            )
        lassos.append(Lasso(group.name, chosen))
    return lassos


def _of_columns(program: Program) -> list[Lasso]:
    """The columns of every convolution, each weight once."""
    parameters = program.parameters()
    weights = {
        id(parameters[layer.weight]): layer.weight
        for layer in program.layers()
        if layer.operator in CONVOLUTIONS and layer.weight in parameters
    }
    if not weights:
        raise UsageError(
            "recover: ssl{structure=shape} is about the kernels of convolutions, and the network has none.",
            hint="Take structure=filter or channel.",
        )
    return [Lasso(name, (WeightColumns(parameters[name]),)) for name in weights.values()]


def _of_branches(training: TrainingContext) -> list[Lasso]:
    """The residual branches that may be removed; with one goes all that it holds."""
    if training.pruning is None or not training.pruning.depth:
        raise UsageError(
            "recover: ssl{structure=depth} shrinks residual branches, and nothing behind it removes any.",
            hint="Put prune-filters{depth=true,speedup=...} behind the training.",
        )
    program, pruning = training.program, training.pruning
    parameters = program.parameters()
    kept_whole = expand_roles(program.graph, (*pruning.ignore, *pruning.freeze))
    lassos = []
    for branch in removable_branches(program, kept_whole):
        of_branch = {id(parameters[name]): parameters[name] for name in branch.removed.tensors if name in parameters}
        lassos.append(Lasso(branch.name, tuple(map(WholeParameter, of_branch.values()))))
    if not lassos:
        raise UsageError(
            "recover: ssl{structure=depth} shrinks residual branches, and the network has none that can be removed.",
            hint="Take structure=filter or channel.",
        )
    return lassos
