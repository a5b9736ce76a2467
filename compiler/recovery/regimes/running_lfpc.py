"""The training hook "lfpc" at work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Adam

from prunec.calibration.splits import steps_per_epoch
from prunec.compiler.recovery.objective import label_loss
from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD
from prunec.compiler.recovery.regimes.course import all_steps
from prunec.compiler.recovery.regimes.filter_choice import Chooser
from prunec.compiler.recovery.regimes.shared_copy import shared_copy
from prunec.compiler.recovery.regimes.unit_factors import UnitFactors
from prunec.compiler.recovery.running_hook import Attachment, Batch, HookCost, Moment, RunningHook
from prunec.passes.allocation.importance import normalised
from prunec.passes.criteria.learned import UNITS
from prunec.passes.errors import UsageError
from prunec.passes.feeding import BatchInputs, bound, on, values_of_data
from prunec.passes.program import Program

if TYPE_CHECKING:
    from prunec.compiler.recovery.regimes.lfpc import Lfpc


@dataclass
class RunningLfpc(RunningHook):
    """Learns which criterion prunes each group, by the loss on held-out data.

    ``options`` are those of the hook.
    """

    options: "Lfpc"

    def attach(self, form: Program) -> Attachment:
        training, options = self.training, self.options
        assert training.held_out is not None, "the hook asks for a share above 0"
        if len(training.held_out) < training.processes.count:
            raise UsageError(
                f"recover: {options.name} has {len(training.held_out)} samples held out for "
                f"{training.processes.count} processes.",
                hint="Raise its option held_out.",
            )
        self.chooser = Chooser.of(training, options.name)
        self.groups = self.chooser.groups
        self._choose()
        self.masked = shared_copy(training.program)
        factors = UnitFactors.on(training.program, self.groups)
        self.names = factors.insert(self.masked)
        device = training.processes.device
        self.preferences = nn.Parameter(torch.zeros(len(self.groups), len(options.criteria), device=device))
        self.passes = self.samples = 0
        return Attachment(optimizers=(Adam([self.preferences], lr=options.travel / all_steps(training)),))

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        """The loss as it is, with the gradient of the held-out loss for the sampler alone."""
        inputs, labels = self._held_out()
        drawn = functional.gumbel_softmax(self.preferences, self.options.temperature, hard=True)
        masks = {
            self.names[group.name]: choice @ self.masks[group.name].to(choice.dtype)
            for group, choice in zip(self.groups, drawn, strict=True)
        }
        args, kwargs = bound(self.training.program, inputs)
        with values_of_data(inputs):
            outputs = functional_call(self.masked.module, masks, args, kwargs)
        held_out = label_loss(self.training.loss, outputs, labels)
        return loss + (held_out - held_out.detach())

    def end_epoch(self, moment: Moment) -> str | None:
        """Mask by the weights as they are now."""
        self._choose()
        return None

    def _choose(self) -> None:
        """The units that each criterion would keep now, bool (criteria, count) by the name of the group."""
        stays = [self.chooser.choose(criterion).stays for criterion in self.options.criteria]
        device = self.training.processes.device
        self.masks = {group.name: torch.stack([each[group.name] for each in stays]).to(device) for group in self.groups}

    def _held_out(self) -> tuple[BatchInputs, Tensor]:
        """The next batch of the held-out data, as large as the part of a batch that the network trains on."""
        held_out, training = self.training.held_out, self.training
        assert held_out is not None
        size = min(training.options.batch_size // training.options.accumulate, len(held_out))
        epoch, first = divmod(self.passes, steps_per_epoch(held_out, size))
        share = training.processes.share
        inputs, labels = next(iter(held_out.batches(size, epoch=epoch, seed=training.seed, first=first, share=share)))
        self.passes, self.samples = self.passes + 1, self.samples + size
        device = training.processes.device
        return on(inputs, device), labels.to(device)

    def decided(self) -> Mapping[str, object]:
        """The normalised scores by the likeliest criterion of each group."""
        best = [self.options.criteria[number] for number in self.preferences.argmax(1).tolist()]
        units = {criterion: self.chooser.choose(criterion).units for criterion in set(best)}
        return {
            UNITS: {
                group.name: torch.from_numpy(normalised(units[criterion][group.name].numpy()))
                for group, criterion in zip(self.groups, best, strict=True)
            }
        }

    def figures(self) -> Mapping[str, object]:
        """The probability of each criterion, by group."""
        rows = self.preferences.detach().softmax(1).tolist()
        return {
            "probabilities": [
                {"group": group.name, **dict(zip(self.options.criteria, row, strict=True))}
                for group, row in zip(self.groups, rows, strict=True)
            ]
        }

    def cost(self) -> HookCost:
        """The passes over held-out data, forward and backward."""
        macs = (1 + BACKWARD_OVER_FORWARD) * self.samples * self.training.program.macs()
        return HookCost(self.samples, macs)

    def state(self) -> Mapping[str, Any]:
        return {"masks": self.masks, "passes": self.passes, "samples": self.samples}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.passes, self.samples = state["passes"], state["samples"]
        for name, masks in state["masks"].items():
            self.masks[name].copy_(masks)
