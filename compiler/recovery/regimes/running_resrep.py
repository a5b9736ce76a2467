"""The training hook "resrep" at work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD
from prunec.compiler.recovery.regimes.compactor_sites import compactor_sites
from prunec.compiler.recovery.regimes.course import all_steps, rates, steps_done
from prunec.compiler.recovery.regimes.filter_budget import FilterBudget
from prunec.compiler.recovery.running_hook import Attachment, HookCost, Moment, RunningHook
from prunec.passes.criteria.learned import UNITS
from prunec.passes.program import Program

if TYPE_CHECKING:
    from prunec.compiler.recovery.regimes.resrep import ResRep

#: Steps of the paper's training on ImageNet, the sum of its learning rates (a cosine from 0.01 to 0), and the steps
#: between two choices of rows.
_STEPS, _RATES, _BETWEEN = 900_720, 4_503.6, 200
#: Norm below which the paper takes a row for gone.
_GONE = 1e-5


@dataclass
class RunningResRep(RunningHook):
    """Trains compactors, masks their rows, and merges them.

    ``options`` are those of the hook.
    """

    options: "ResRep"

    def attach(self, form: Program) -> Attachment:
        training, self.steps = self.training, 0
        budget = FilterBudget.of(training, self.options.name)
        self.sites = compactor_sites(training.program, budget.groups, self.options.name)
        self.alone = {group.name: group.count for group in budget.groups}
        for site in self.sites:
            del self.alone[site.group.name]
        self.budget = budget.only([site.group.name for site in self.sites], self.options.name)
        tensors = training.program.tensors()
        self.matrices = [
            nn.Parameter(torch.eye(site.width, dtype=tensors[site.weight].dtype, device=tensors[site.weight].device))
            for site in self.sites
        ]
        for number, (site, matrix) in enumerate(zip(self.sites, self.matrices, strict=True)):
            site.insert(form, f"compactor_{number}", matrix)
        self.masked = [
            torch.zeros(site.group.count, dtype=torch.bool, device=site.filters.device) for site in self.sites
        ]
        # How far masked rows would have moved beyond zero: those that are gone keep the order in which they went.
        self.beyond = [torch.zeros(site.group.count, device=site.filters.device) for site in self.sites]
        self.optimizer = SGD(self.matrices, lr=1.0, momentum=self.options.momentum)
        # In the paper a row on which the lasso acts alone moves by this in a whole training.
        travel = _RATES * self.options.lasso / (1 - self.options.momentum)
        self.travel_per_rate = travel / sum(rates(training))
        return Attachment(optimizers=(self.optimizer,))

    @torch.no_grad()
    def before_update(self, moment: Moment) -> None:
        """Give masked rows no gradient, and the others that of the lasso besides the loss's."""
        self._mask(steps_done(self.training, moment))
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = moment.learning_rate
        self.before = []
        for site, matrix, masked in zip(self.sites, self.matrices, self.masked, strict=True):
            assert matrix.grad is not None, "the graph runs through every compactor"
            units = site.units(matrix)
            self.before.append(units)
            penalty = self.options.lasso * units / _norms(units)[:, None].clamp(min=torch.finfo(units.dtype).tiny)
            matrix.grad.copy_(site.rows((site.units(matrix.grad) + penalty) * ~masked[:, None]))

    @torch.no_grad()
    def after_update(self, moment: Moment) -> None:
        """Move masked rows towards zero by the lasso alone, and no further than there."""
        travel = self.travel_per_rate * moment.learning_rate
        each = zip(self.sites, self.matrices, self.masked, self.before, self.beyond, strict=True)
        for site, matrix, masked, before, beyond in each:
            norms = _norms(before)
            shrunk = before * (1 - travel / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(min=0)[:, None]
            matrix.copy_(site.rows(torch.where(masked[:, None], shrunk, site.units(matrix))))
            beyond.copy_(torch.where(masked, beyond + (travel - norms).clamp(min=0), 0.0))

    def _mask(self, done: int) -> None:
        """Choose the masked rows anew, where it is time to: a step's number of those that have the least norms."""
        steps, options = all_steps(self.training), self.options
        if done % max(1, round(steps * _BETWEEN / _STEPS)) and done != steps:
            return
        share = min(1.0, max(0.0, (done / steps - options.begin) / options.growth))
        limit = round(share * sum(site.group.count for site in self.sites))
        scores = [each.cpu().numpy() for each in self._scores()]
        for masked, gone in zip(self.masked, self.budget.lowest(scores, limit), strict=True):
            masked.copy_(torch.from_numpy(gone))

    @torch.no_grad()
    def _norms_of_units(self) -> list[Tensor]:
        return [_norms(site.units(matrix)) for site, matrix in zip(self.sites, self.matrices, strict=True)]

    def _scores(self) -> list[Tensor]:
        """What units are ranked by, float64 (count,): norms of their rows, and below zero those that are gone."""
        norms = self._norms_of_units()
        return [each.double() - beyond.double() for each, beyond in zip(norms, self.beyond, strict=True)]

    def detach(self, program: Program) -> Mapping[str, Tensor]:
        """The tensors of every layer with its compactor in them."""
        tensors = program.tensors()
        values: dict[str, Tensor] = {}
        for site, matrix in zip(self.sites, self.matrices, strict=True):
            values |= site.merged(tensors, matrix)
        return values

    def decided(self) -> Mapping[str, object]:
        """What units are ranked by: the higher stay, and before them all units that have no compactor."""
        scores = self._scores()
        highest = 1 + max(float(each.max()) for each in scores)
        units = {site.group.name: each for site, each in zip(self.sites, scores, strict=True)}
        return {UNITS: units | {name: torch.full((count,), highest).double() for name, count in self.alone.items()}}

    def figures(self) -> Mapping[str, object]:
        """Rows that are gone, of those that were masked and of those that the lasso alone brought there, and MACs."""
        norms, masked = torch.cat(self._norms_of_units()), torch.cat(self.masked)
        return {
            "units": len(norms),
            "units_without_compactor": sum(self.alone.values()),
            "masked": int(masked.sum()),
            "gone": int((norms < _GONE).sum()),
            "gone_by_the_lasso_alone": int(((norms < _GONE) & ~masked).sum()),
            "largest_norm_of_masked": float(norms[masked].max()) if bool(masked.any()) else 0.0,
            "macs_dense": self.training.program.macs(),
            "macs_without_masked": self.budget.macs([each.cpu().numpy() for each in self.masked]),
        }

    def cost(self) -> HookCost:
        """The compactors' products, forward and backward."""
        outputs = {layer.weight: layer.outputs for layer in self.training.program.layers()}
        per_sample = sum(outputs[site.weight] * site.width for site in self.sites)
        samples = self.steps * self.training.options.batch_size
        return HookCost(macs=(1 + BACKWARD_OVER_FORWARD) * samples * per_sample)

    def state(self) -> Mapping[str, Any]:
        return {"masked": list(self.masked), "beyond": list(self.beyond), "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        for name, own in (("masked", self.masked), ("beyond", self.beyond)):
            for each, held in zip(own, state[name], strict=True):
                each.copy_(held)


def _norms(units: Tensor) -> Tensor:
    """The Euclidean norm of each unit's rows, (count,)."""
    norms: Tensor = torch.linalg.vector_norm(units, dim=1)
    return norms
