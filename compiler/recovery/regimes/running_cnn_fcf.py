"""The training hook "cnn-fcf" at work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD

from prunec.compiler.recovery.regimes.box_and_sphere import BinaryFactors
from prunec.compiler.recovery.regimes.course import all_steps, rates, steps_done
from prunec.compiler.recovery.regimes.filter_choice import Chooser
from prunec.compiler.recovery.regimes.unit_factors import UnitFactors
from prunec.compiler.recovery.running_hook import Attachment, Moment, RunningHook
from prunec.passes.criteria.learned import UNITS
from prunec.passes.criteria.units import l1_norms, mean_norms
from prunec.passes.program import Program

if TYPE_CHECKING:
    from prunec.compiler.recovery.regimes.cnn_fcf import CnnFcf

#: Iterations of the multipliers in a training at least, and after the last step at most.
_ITERATIONS, _LAST = 3_488, 5_000
#: Distance from 0 or 1 at which a factor counts as one of them.
_CLOSE = 1e-3


@dataclass
class RunningCnnFcf(RunningHook):
    """Moves factors of units to 0 or 1, and merges them into the network.

    ``options`` are those of the hook.
    """

    options: "CnnFcf"

    def attach(self, form: Program) -> Attachment:
        training = self.training
        chooser = Chooser.of(training, self.options.name)
        self.choice = chooser.choose("l1")
        stays = self.choice.stays
        self.factors = UnitFactors.on(training.program, chooser.groups)
        self.factors.insert(form)
        tensors = training.program.tensors()
        self.binary = {
            group.name: BinaryFactors.beginning(int(stays[group.name].sum()), mean_norms(group, tensors, l1_norms))
            for group in chooser.groups
            if not bool(stays[group.name].all())
        }
        self.rho, self.highest = self.options.rho, max(rates(training))
        self._write()
        # The multipliers move the factors: this optimizer of rate 0 has their gradients cleared and unscaled.
        return Attachment(optimizers=(SGD(list(self.factors.values.values()), lr=0.0),))

    @torch.no_grad()
    def after_update(self, moment: Moment) -> None:
        """Take iterations of the multipliers by the gradient of this step; after the last one until all are settled."""
        steps, options = all_steps(self.training), self.options
        rate = options.rate * moment.learning_rate / self.highest
        gradients = {name: self._gradient(name) for name in self.binary}
        for _ in range(-(-_ITERATIONS // steps)):
            for name, factors in self.binary.items():
                factors.step(gradients[name], self.rho, options.alpha, rate)
            self.rho = min(options.rho_most, self.rho * options.rho_growth)
        if steps_done(self.training, moment) == steps:
            for factors in self.binary.values():
                self._settle(factors)
        self._write()

    def _settle(self, factors: BinaryFactors) -> None:
        nothing = np.zeros_like(factors.values)
        for _ in range(_LAST):
            if factors.distance < _CLOSE:
                break
            factors.step(nothing, self.options.rho_most, self.options.alpha, self.options.rate)

    def _gradient(self, name: str) -> Any:
        gradient = self.factors.values[name].grad
        assert gradient is not None, "the graph reads every factor"
        return gradient.cpu().double().numpy()

    @torch.no_grad()
    def _write(self) -> None:
        for name, factors in self.binary.items():
            self.factors.values[name].copy_(torch.from_numpy(factors.values))

    def detach(self, program: Program) -> Mapping[str, Tensor]:
        """The tensors that the factors stand on, scaled by them; what is close to 0 or 1 counts as that."""
        values = {name: factors.detach() for name, factors in self.factors.values.items()}
        settled = {name: torch.where((v - v.round()).abs() < _CLOSE, v.round(), v) for name, v in values.items()}
        return self.factors.merged(program.tensors(), settled)

    def decided(self) -> Mapping[str, object]:
        """What takes as many units of each group as L1 norms would, those of the least factors."""
        return {UNITS: self.choice.by({name: values.detach() for name, values in self.factors.values.items()})}

    def figures(self) -> Mapping[str, object]:
        """How near the factors are to 0 and 1, and their sums to the widths."""
        kept = sum(factors.kept for factors in self.binary.values())
        return {
            "groups": len(self.binary),
            "kept": kept,
            "sum_of_factors": float(sum(factors.values.sum() for factors in self.binary.values())),
            "largest_distance_from_0_or_1": max((each.distance for each in self.binary.values()), default=0.0),
            "rho": self.rho,
        }

    def state(self) -> Mapping[str, Any]:
        held = {
            name: [torch.from_numpy(each) for each in (factors.values, factors.box, factors.sphere)]
            for name, factors in self.binary.items()
        }
        return {"rho": self.rho, "factors": held}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.rho = state["rho"]
        for name, held in state["factors"].items():
            factors = self.binary[name]
            factors.values, factors.box, factors.sphere = (each.cpu().numpy() for each in held)
        self._write()
