"""The training hook "gal" at work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.optim import SGD

from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD
from prunec.compiler.recovery.regimes.class_scores import class_count
from prunec.compiler.recovery.regimes.course import all_steps, rates, steps_done
from prunec.compiler.recovery.regimes.filter_budget import FilterBudget
from prunec.compiler.recovery.regimes.soft_masks import SoftMasks
from prunec.compiler.recovery.regimes.unit_factors import UnitFactors
from prunec.compiler.recovery.running_hook import Attachment, Batch, HookCost, Moment, RunningHook
from prunec.passes.criteria.learned import UNITS
from prunec.passes.program import Program
from prunec.runtime.evaluate import classes_of

if TYPE_CHECKING:
    from prunec.compiler.recovery.regimes.gal import Gal

#: Steps of the paper's training on CIFAR-10, and those between two steps of the masks.
_STEPS, _BETWEEN = 39_100, 200
#: The paper's rate over its highest, summed over the 195 steps of its masks: a tenth after 30, 60 and 90 of 100 epochs.
_TRAVEL = 195 * (0.3 + 0.03 + 0.003 + 0.0001)
#: Widths of the discriminator's layers.
_WIDTHS = (128, 256, 128)
#: Arrays of the masks that a saved training holds, in the order of their fields.
_HELD = ("masks", "ahead", "scores")


@dataclass
class RunningGal(RunningHook):
    """Learns soft masks and a discriminator, and merges the masks into the network.

    ``options`` are those of the hook.
    """

    options: "Gal"

    def attach(self, form: Program) -> Attachment:
        training, program = self.training, self.training.program
        self.budget = FilterBudget.of(training, self.options.name)
        self.factors = UnitFactors.on(program, self.budget.groups)
        self.factors.insert(form)
        self.masks = SoftMasks.ones([group.count for group in self.budget.groups])
        self.between = max(1, round(all_steps(training) * _BETWEEN / _STEPS))
        of_steps = rates(training)
        self.highest, self.samples = max(of_steps), 0
        of_masks = [rate for done, rate in enumerate(of_steps, 1) if done % self.between == 0 or done == len(of_steps)]
        self.longer = _TRAVEL * self.highest / sum(of_masks)
        self.alone: dict[str, float] = {"zeros_by_the_penalty_alone": 0, "macs_by_the_penalty_alone": program.macs()}
        widths = (class_count(program, self.options.name), *_WIDTHS)
        layers = [module for n, m in zip(widths, _WIDTHS, strict=False) for module in (nn.Linear(n, m), nn.ReLU())]
        self.discriminator = nn.Sequential(*layers, nn.Linear(_WIDTHS[-1], 1)).to(training.processes.device)
        self.judging = SGD(self.discriminator.parameters(), lr=1.0, momentum=0.9, weight_decay=2e-4)
        # Masks are moved by FISTA: this optimizer of rate 0 has their gradients cleared and unscaled.
        holding = SGD(list(self.factors.values.values()), lr=0.0)
        return Attachment(optimizers=(self.judging, holding), teacher=True)

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        """The distance from the teacher and its doubt in the discriminator, which has a gradient of its own."""
        student, teacher = classes_of(batch.outputs).float(), classes_of(batch.teacher_outputs).float()
        unmoved = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        deceived = _told(functional_call(self.discriminator, unmoved, (student,)), is_teacher=True)
        judged = _told(self.discriminator(teacher), is_teacher=True)
        judged = judged + _told(self.discriminator(student.detach()), is_teacher=False)
        return self.options.imitation * mse_loss(student, teacher) + deceived + (judged - judged.detach())

    def before_update(self, moment: Moment) -> None:
        """Let the discriminator's rate fall as the training's does."""
        for group in self.judging.param_groups:
            group["lr"] = self._rate(moment)

    @torch.no_grad()
    def after_update(self, moment: Moment) -> None:
        """Take a step of the masks, where it is time to."""
        done, steps = steps_done(self.training, moment), all_steps(self.training)
        self.samples += self.training.options.batch_size
        last = done == steps
        if done % self.between and not last:
            return
        gradients = [self._gradient(group.name) for group in self.budget.groups]
        rate = self._rate(moment) * self.longer
        zeros = self.masks.step(gradients, rate, self.options.sparsity, self.budget, last=last)
        self.alone = {
            "zeros_by_the_penalty_alone": int(sum(each.sum() for each in zeros)),
            "macs_by_the_penalty_alone": self.budget.macs(zeros),
        }
        for group, ahead in zip(self.budget.groups, self.masks.ahead, strict=True):
            self.factors.values[group.name].copy_(torch.from_numpy(ahead))

    def _rate(self, moment: Moment) -> float:
        return self.options.rate * moment.learning_rate / self.highest

    def _gradient(self, name: str) -> Any:
        gradient = self.factors.values[name].grad
        assert gradient is not None, "the graph reads every mask"
        return gradient.cpu().double().numpy()

    def detach(self, program: Program) -> Mapping[str, Tensor]:
        """The tensors that the masks are merged into."""
        return self.factors.merged_into_makers(program, self.factors.values)

    def decided(self) -> Mapping[str, object]:
        """The mask of each unit: the higher stay, and zeros go in the order in which they were set."""
        scores = zip(self.budget.groups, self.masks.scores, strict=True)
        return {UNITS: {group.name: torch.from_numpy(each.copy()) for group, each in scores}}

    def figures(self) -> Mapping[str, object]:
        """Units whose mask is zero, and what the penalty alone would have set to zero in the last step."""
        zeros = [masks == 0 for masks in self.masks.masks]
        return {
            "units": sum(map(len, zeros)),
            "zeros": int(sum(each.sum() for each in zeros)),
            "macs_dense": self.training.program.macs(),
            "macs_without_zeros": self.budget.macs(zeros),
            **self.alone,
        }

    def cost(self) -> HookCost:
        """The discriminator's products on each sample: of the network's outputs twice and the teacher's once."""
        weights = sum(layer.weight.numel() for layer in self.discriminator if isinstance(layer, nn.Linear))
        return HookCost(macs=3 * (1 + BACKWARD_OVER_FORWARD) * self.samples * weights)

    def state(self) -> Mapping[str, Any]:
        held = {name: [torch.from_numpy(each) for each in getattr(self.masks, name)] for name in _HELD}
        return {**held, "momentum": float(self.masks.momentum), "samples": self.samples, "alone": self.alone}

    def restore(self, state: Mapping[str, Any]) -> None:
        held = {name: [each.cpu().numpy() for each in state[name]] for name in _HELD}
        self.masks = SoftMasks(**held, momentum=state["momentum"])
        self.samples, self.alone = state["samples"], dict(state["alone"])


def _told(scores: Tensor, *, is_teacher: bool) -> Tensor:
    """The cross-entropy of the discriminator's scores (samples, 1), where all samples are one network's."""
    return binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(is_teacher)))
