"""The hooks of one training together: each call of the seam goes to all of them in the order of the recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunec.calibration.splits import Split
from prunec.compiler.recovery.hooks import HOOKS, TrainingHook
from prunec.compiler.recovery.objective import check_loss
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recovered import EarlyEnd, HookFact
from prunec.compiler.recovery.running_hook import Attachment, Batch, HookCost, Moment, RunningHook, TrainingContext
from prunec.compiler.recovery.tensors import put
from prunec.passes.errors import UsageError
from prunec.passes.figures import plain_figures
from prunec.passes.options import named_text
from prunec.passes.program import Program

Given = ParamSpec("Given")
Value = TypeVar("Value")


@dataclass(frozen=True)
class AttachedHook:
    """A hook at work: as the recipe declares it, as it runs, and its attachment to the training."""

    declared: TrainingHook
    running: RunningHook
    attachment: Attachment

    def fact(self, decided: Mapping[str, object]) -> HookFact:
        """The fact that the hook leaves, with its decisions on the network that was kept."""
        cost, held_out = self.cost(), self.running.training.held_out
        return HookFact(
            name=self.declared.name,
            text=named_text(HOOKS, self.declared),
            held_out_samples=0 if held_out is None else len(held_out),
            samples=cost.samples,
            macs=cost.macs,
            figures=plain_figures(self.mapping(self.running.figures)),
            decided=decided,
        )

    def cost(self) -> HookCost:
        """The cost of the hook so far."""
        cost = self.call(self.running.cost)
        _check_type(self.declared, "cost", cost, HookCost)
        _check_type(self.declared, "cost", cost.samples, int)
        _check_type(self.declared, "cost", cost.macs, int)
        return cost

    def call(self, method: Callable[Given, Value], *args: Given.args, **kwargs: Given.kwargs) -> Value:
        """Call a method of the running hook, and blame the hook for its errors."""
        return _call(self.declared, method, *args, **kwargs)

    def end_epoch(self, moment: Moment) -> str | None:
        """The reason to end the training, if the hook gives one.

        After the first epoch it also tells all else that it will be asked for, so that what can't be used is known
        before the training is long.
        """
        reason = self.call(self.running.end_epoch, moment)
        if reason is not None:
            _check_type(self.declared, "end_epoch", reason, str)
        if moment.epoch == 1:
            self.fact(self.plain(self.running.decided))
            self.plain(self.running.state)
        return reason

    def mapping(self, method: Callable[[], Mapping[str, object]]) -> Mapping[str, object]:
        """The values by name that a method of the running hook gives."""
        values = self.call(method)
        _check_type(self.declared, method.__name__, values, Mapping)
        return values

    def plain(self, method: Callable[[], Mapping[str, object]]) -> dict[str, Any]:
        """The values that a method of the running hook gives for a file: plain values, and copies of tensors.

        Raises:
            UsageError: A value is of another type.
        """

        def copied(leaf: Any) -> object:
            if isinstance(leaf, Tensor):
                return leaf.detach().clone()
            leaf = leaf.item() if getattr(leaf, "shape", None) == () else leaf  # a scalar of NumPy
            if type(leaf) not in (str, int, float, bool, type(None)):
                raise UsageError(
                    f"The training hook {self.declared.name} gave a value of type {type(leaf).__name__} in "
                    f"{method.__name__}(); expected plain values and tensors."
                )
            return leaf

        values: dict[str, Any] = pytree.tree_map(copied, dict(self.mapping(method)))
        return values


@dataclass(frozen=True)
class AttachedHooks:
    """All hooks of a training, in the order of the recipe; false where there are none.

    A method that is named like one of `RunningHook` calls that method of every hook.
    """

    hooks: tuple[AttachedHook, ...]
    processes: Processes

    def __len__(self) -> int:
        return len(self.hooks)

    @property
    def attachments(self) -> list[Attachment]:
        """The attachment of each hook."""
        return [hook.attachment for hook in self.hooks]

    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained for the hooks, by words that tell what each is."""
        return {
            f"parameter {number} of the training hook {hook.declared.name} (hook {position})": parameter
            for position, hook in enumerate(self.hooks, 1)
            for number, parameter in enumerate(hook.attachment.trained(), 1)
        }

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        """The loss as the hooks leave it.

        Raises:
            UsageError: A hook fails, or gives something else than a scalar with a gradient.
        """
        for hook in self.hooks:
            loss = hook.call(hook.running.loss, batch, loss)
            check_loss(f"training hook {hook.declared.name}", loss)
        return loss

    def before_update(self, moment: Moment) -> None:
        for hook in self.hooks:
            hook.call(hook.running.before_update, moment)

    def after_update(self, moment: Moment) -> None:
        for hook in self.hooks:
            hook.call(hook.running.after_update, moment)

    def end_epoch(self, moment: Moment) -> EarlyEnd | None:
        """Tell of the end of an epoch; the first process's hooks say whether the training ends with it."""
        ends = [(hook.declared.name, hook.end_epoch(moment)) for hook in self.hooks]
        ends = self.processes.from_main(ends) if ends else []
        return next((EarlyEnd(name, moment.epoch, why) for name, why in ends if why is not None), None)

    @torch.no_grad()
    def detached(self, program: Program) -> Program:
        """The network as it is without the hooks: the program itself where none of them changes its tensors.

        Raises:
            UsageError: A hook gives values that are not of the network's form, or are not zero where masks are.
        """
        for hook in reversed(self.hooks):
            values = hook.call(hook.running.detach, program)
            _check_type(hook.declared, "detach", values, Mapping)
            if values:
                _check_form(hook.declared.name, program, values)
                program = program.clone()
                put(program, values)
        return program

    def decided(self) -> list[Mapping[str, object]]:
        return [hook.plain(hook.running.decided) for hook in self.hooks]

    def state(self) -> list[dict[str, Any]]:
        return [
            {
                "parameters": [parameter.detach().clone() for parameter in hook.attachment.trained()],
                "optimizers": [optimizer.state_dict() for optimizer in hook.attachment.optimizers],
                "own": hook.plain(hook.running.state),
            }
            for hook in self.hooks
        ]

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        for hook, state in zip(self.hooks, states, strict=True):
            _put_all(hook.attachment.trained(), state["parameters"])
            for optimizer, held in zip(hook.attachment.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(held)
            hook.call(hook.running.restore, state["own"])


def attach_hooks(
    declared: Sequence[TrainingHook], training: TrainingContext, parts: Sequence[Split | None], form: Program
) -> AttachedHooks:
    """Start hooks and let them take hold of the network; all processes begin with the first one's values.

    Args:
        declared: The hooks of the recipe.
        training: The training that they take part in, without held-out data.
        parts: The training data that are held out for each hook.
        form: The network in training form, whose graph the hooks may rewrite.

    Raises:
        UsageError: A hook fails, or asks for a teacher where there is none.
    """
    attached = []
    for hook, part in zip(declared, parts, strict=True):
        _call(hook, hook.check_pruning, training.pruning)
        running = _call(hook, hook.start, replace(training, held_out=part))
        _check_type(hook, "start", running, RunningHook)
        attachment = _call(hook, running.attach, form)
        _check_type(hook, "attach", attachment, Attachment)
        form.module.recompile()
        if (attachment.teacher or attachment.teacher_inner) and training.teacher is None:
            raise UsageError(
                f"recover: the training hook {hook.name} needs the dense network as its teacher, and none was given."
            )
        attached.append(AttachedHook(hook, running, attachment))
    hooks = AttachedHooks(tuple(attached), training.processes)
    if training.processes.count > 1:
        parameters = list(hooks.parameters().values())
        _put_all(parameters, training.processes.from_main([parameter.detach().cpu() for parameter in parameters]))
    return hooks


def _call(hook: TrainingHook, method: Callable[Given, Value], *args: Given.args, **kwargs: Given.kwargs) -> Value:
    """Call a method; an error in it that isn't prunec's becomes a `UsageError` that names the hook."""
    with HOOKS.blame(hook.name):
        return method(*args, **kwargs)


def _check_type(hook: TrainingHook, method: str, value: object, expected: type[Any]) -> None:
    if not isinstance(value, expected) or isinstance(value, bool):
        raise UsageError(f"The training hook {hook.name} gave {value!r} in {method}(); expected {expected.__name__}.")


def _check_form(hook: str, program: Program, values: Mapping[str, Tensor]) -> None:
    tensors = program.tensors()
    for name, value in values.items():
        if not isinstance(value, Tensor) or bool(value.isnan().any()):
            got = "with NaN" if isinstance(value, Tensor) else f"as {type(value).__name__}"
            raise UsageError(f"The training hook {hook} gave {name} {got} in detach(); expected a tensor of numbers.")
        if name not in tensors or value.shape != tensors[name].shape:
            expected = f"shape {tuple(tensors[name].shape)}" if name in tensors else "a tensor of the network"
            raise UsageError(
                f"The training hook {hook} gave {name} of shape {tuple(value.shape)} in detach(); expected {expected}."
            )
        mask = program.masks.get(name)
        if mask is not None and bool(value[~mask].any()):
            raise UsageError(
                f"The training hook {hook} gave {name} in detach() with values where its mask has none.",
                hint="A hook that mixes weights can't be merged into masked ones: attach it elsewhere.",
            )


@torch.no_grad()
def _put_all(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
