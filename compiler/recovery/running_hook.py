"""The calls of a training hook and their arguments: the seam of every step that trains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from prunec.calibration.data import Split
from prunec.compiler.recovery.objective import Loss, cross_entropy
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedules import Schedule
from prunec.passes.coupling import Coupling
from prunec.passes.feeding import BatchInputs
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters

#: Runs a network on the inputs of a batch: its outputs, and the inner values that were asked for, by name.
Run = Callable[[BatchInputs], tuple[Any, dict[str, Tensor]]]


@dataclass(frozen=True)
class TrainingContext:
    """One training, as its hooks see it. There are no validation and no test data here.

    Attributes:
        program: The network in its own form, on the training's device. Its tensors are the very ones that are trained.
        coupling: The network's coupled groups, with the analysis that they come from.
        teacher: The dense network, in inference form; None where there is none.
        options: The recipe.
        processes: This process among those that train together; it holds the device.
        seed: Seed of the training. Random numbers of torch follow it already, in each process differently.
        held_out: The part of the training data that is set aside for this hook; None where it asks for none.
        pruning: The options by which filters are pruned after this training, with a seed; None where they aren't.
            `coupling` is by their policy, and `prunec.passes.filter_pruning.kept_by` tells which filters would stay.
        loss: The loss on the labels, (outputs, labels) -> scalar, labels smoothed where the recipe says so.
    """

    program: Program
    coupling: Coupling
    teacher: Program | None
    options: Recover
    schedule: Schedule
    steps_per_epoch: int
    processes: Processes
    seed: int
    held_out: Split | None = None
    pruning: PruneFilters | None = None
    loss: Loss = cross_entropy


@dataclass(frozen=True)
class Moment:
    """A point in time of a training.

    Attributes:
        epoch: The epoch under way, counted from 1.
        step: Number of steps of that epoch that are done.
        learning_rate: Learning rate of the step under way; at the end of an epoch that of its last step.
    """

    epoch: int
    step: int
    learning_rate: float


@dataclass(frozen=True)
class Batch:
    """A batch on its way through the network, or one of the parts that it is computed in.

    Attributes:
        inputs: Inputs, augmented, of this process's share, in the form that the data give them in.
        labels: Labels (N, ...).
        outputs: Outputs of the network in its training form, with their gradients.
        inner: Inner values of the network that the hooks asked for, by name.
        teacher_outputs: Outputs of the teacher, without gradients; None where nothing learns from it.
        teacher_inner: Inner values of the teacher, by name.
        network: Runs the network in its training form once more, on other inputs; batch norms see those too.
    """

    moment: Moment
    inputs: BatchInputs
    labels: Tensor
    outputs: Any
    inner: Mapping[str, Tensor]
    teacher_outputs: Any
    teacher_inner: Mapping[str, Tensor]
    network: Run


@dataclass(frozen=True)
class OwnParameters:
    """Parameters that the training's optimizer trains with settings of their own.

    Attributes:
        parameters: New parameters, or some of the network's own.
        learning_rate_factor: Factor of the schedule's learning rate.
        momentum: Momentum in place of the recipe's, where the optimizer has one; None for the recipe's.
        weight_decay: Weight decay in place of the recipe's; None for the recipe's.
    """

    parameters: tuple[nn.Parameter, ...]
    learning_rate_factor: float = 1.0
    momentum: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True)
class Attachment:
    """A hook's parameters, optimizers and wishes in a training.

    Attributes:
        parameters: Parameters for the training's optimizer. Whatever isn't named here or in an optimizer stays as it
            is, except for the network's own parameters.
        optimizers: Optimizers of the hook's own. In every step they are zeroed, given the gradient of the loss and
            stepped with the training's; their learning rates are theirs.
        inner: Names of inner values of the network wanted with each batch: the path of a module stands for its last
            value, the name of a node of the graph for that node.
        teacher_inner: Names of inner values of the teacher, in the same form.
        teacher: Whether the outputs of the teacher are wanted with each batch.
        input_gradients: Whether the loss is differentiated by the inputs too.
    """

    parameters: tuple[OwnParameters, ...] = ()
    optimizers: tuple[Optimizer, ...] = ()
    inner: tuple[str, ...] = ()
    teacher_inner: tuple[str, ...] = ()
    teacher: bool = False
    input_gradients: bool = False

    def trained(self) -> list[nn.Parameter]:
        """All parameters that are trained for the hook, each once."""
        own = [parameter for group in self.parameters for parameter in group.parameters]
        grouped = [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]
        return list(dict.fromkeys([*own, *grouped]))


@dataclass(frozen=True)
class HookCost:
    """The operations of a hook beyond the training of the network.

    Attributes:
        samples: Samples that it ran through a network, beyond each step's own; each counts as often as it ran.
        macs: Multiply-accumulates of all that it added, forward and backward together.
    """

    samples: int = 0
    macs: int = 0


@dataclass
class RunningHook:
    """A hook at work in one training. A derived class overrides what it needs; by default nothing happens.

    The calls, in their order; where there are several hooks, each call goes to all of them in the order of the recipe,
    and `detach` in the opposite order:

    1. `attach`, once, before the optimizer is made; then `restore`, where a stopped training goes on.
    2. In every step: `loss`, for each part of the batch; `before_update`; `after_update`.
    3. At the end of every epoch: `end_epoch`; then `detach` and `decided`, and the network is evaluated as `detach`
       gives it. What is kept in the end is one of these networks, with what was decided then.
    4. Whenever the state of the training is saved: `state`.
    5. At the end: `figures` and `cost`; after the first epoch too, with `decided` and `state`, as a check of what they
       give.

    Several processes make the same calls. Parameters in an `Attachment` start alike in all of them and get the mean of
    their gradients; anything else that a hook keeps must be the same in all of them by its own doing.
    """

    training: TrainingContext

    def attach(self, form: Program) -> Attachment:
        """Take hold of the network before the optimizer is made.

        The graph of ``form``, the network in training form over the same tensors, may be rewritten in place and be
        given modules and tensors; the network's own form stays as it is.
        """
        return Attachment()

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        """The scalar to minimise on a batch, a mean over its samples: the loss so far plus something, or another one.

        The loss so far includes distillation and the hooks before this one.
        """
        return loss

    def before_update(self, moment: Moment) -> None:
        """See or change the gradients, which are unscaled, the same in all processes and not yet clipped."""

    def after_update(self, moment: Moment) -> None:
        """See or change the tensors after the optimizer's step; the masks are applied afterwards."""

    def end_epoch(self, moment: Moment) -> str | None:
        """Act at the end of an epoch; a reason that is returned ends the training with it, and None lets it go on."""
        return None

    def detach(self, program: Program) -> Mapping[str, Tensor]:
        """New values by name of the network's own tensors for when the hook is taken away, as after every epoch.

        They have the same shapes and are zero where masks are; there are none where the network is complete without
        the hook. ``program`` is the network in its own form as the hooks after this one leave it; don't change it.
        """
        return {}

    def decided(self) -> Mapping[str, object]:
        """Tensors and plain values by name that tell later steps about the network as it is now."""
        return {}

    def figures(self) -> Mapping[str, object]:
        """Figures for the report, as plain values of JSON."""
        return {}

    def cost(self) -> HookCost:
        """The cost of the whole training so far, before a resumption too: what it is counted by belongs to `state`."""
        return HookCost()

    def state(self) -> Mapping[str, Any]:
        """Tensors and plain values that the hook's course depends on, beyond its parameters and optimizers."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` gave."""
