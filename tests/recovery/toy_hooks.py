"""Small training hooks, one for each thing that hooks are for; as a package of plug-ins would have them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import SGD

from prunec.calibration.splits import Split
from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.running_hook import (
    Attachment,
    Batch,
    HookCost,
    Moment,
    OwnParameters,
    RunningHook,
    TrainingContext,
)
from prunec.passes.graphs import arguments, calls, operator_name
from prunec.passes.program import Program


@dataclass(frozen=True)
class Toy(TrainingHook):
    """Keeps what it started, for tests to look at."""

    started: ClassVar[list[Any]] = []
    running: ClassVar[type[RunningHook]]

    def start(self, training: TrainingContext) -> RunningHook:
        hook = self.running(training, self)  # type: ignore[call-arg]
        Toy.started.append(hook)
        return hook


@dataclass
class RunningGradientPenalty(RunningHook):
    options: "GradientPenalty"
    batches: int = 0

    def attach(self, form: Program) -> Attachment:
        return Attachment(input_gradients=True)

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        self.batches += 1
        (gradient,) = torch.autograd.grad(loss, batch.inputs, create_graph=True)
        return loss + self.options.weight * gradient.square().sum()

    def cost(self) -> HookCost:
        samples = self.batches * self.training.options.batch_size
        return HookCost(macs=3 * samples * self.training.program.macs())


@dataclass(frozen=True)
class GradientPenalty(Toy):
    """The squared norm of the loss's gradient by the inputs (Drucker and Le Cun, 1992): a double backward pass."""

    name = "gradient-penalty"
    running = RunningGradientPenalty
    weight: float = 10.0


@dataclass
class RunningProximal(RunningHook):
    options: "Proximal"

    @torch.no_grad()
    def after_update(self, moment: Moment) -> None:
        threshold = moment.learning_rate * self.options.strength
        for group in self.training.coupling.groups:
            for position in group.producers:
                weight = self.training.program.parameters()[group.members[position].parameter]
                weight.copy_(weight.sign() * (weight.abs() - threshold).clamp(min=0))

    def decided(self) -> Mapping[str, object]:
        weights = self.training.program.parameters()
        return {
            "zeros": {g.name: int((weights[g.members[0].parameter] == 0).sum()) for g in self.training.coupling.groups}
        }


@dataclass(frozen=True)
class Proximal(Toy):
    """A step of soft thresholding on the filters of the coupled groups after each step of the optimizer."""

    name = "proximal"
    running = RunningProximal
    strength: float = 0.1


@dataclass
class RunningCompactor(RunningHook):
    options: "Compactor"
    outputs: Any = None

    def trained(self) -> list[nn.Parameter]:
        return [self.compactor]

    def attach(self, form: Program) -> Attachment:
        self.form = form
        self.conv = next(n for n in calls(form.graph, "conv2d") if n.meta["module"] == self.options.layer)
        user: Node = next(iter(self.conv.users))
        last = user if operator_name(user.target) == "batch_norm" else self.conv
        self.names = {
            key: str(n.target) for key, n in arguments(last).items() if isinstance(n, Node) and n.op == "get_attr"
        }
        self.eps = arguments(last).get("eps", 0.0)
        channels = last.meta["sample_shapes"][1]
        self.compactor = nn.Parameter(torch.eye(channels, device=self.training.processes.device)[:, :, None, None])
        form.module.register_parameter("compactor", self.compactor)
        with form.graph.inserting_after(last):
            weight = form.graph.get_attr("compactor")
        with form.graph.inserting_after(weight):
            node = form.graph.call_function(torch.ops.aten.conv2d.default, (last, weight))
        last.replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
        own = OwnParameters((self.compactor,), self.options.learning_rate_factor, momentum=0.0, weight_decay=0.0)
        return Attachment(parameters=(own,))

    def end_epoch(self, moment: Moment) -> str | None:
        with torch.no_grad():
            self.outputs = self.form.eval()(*self.form.example_args)
        self.form.train()
        return None

    def detach(self, program: Program) -> Mapping[str, Tensor]:
        tensors, matrix = program.tensors(), self.compactor[:, :, 0, 0]
        name = str(arguments(self.conv)["weight"].target)
        filters = tensors[name]
        if "running_var" not in self.names:
            return {name: torch.einsum("ij,jchw->ichw", matrix, filters)}
        norm = {key: tensors[name] for key, name in self.names.items()}
        deviation = (norm["running_var"] + self.eps).sqrt()
        scale = norm["weight"] / deviation
        return {
            name: torch.einsum("ij,jchw->ichw", matrix, scale[:, None, None, None] * filters),
            self.names["weight"]: deviation,
            self.names["bias"]: matrix @ (norm["bias"] - scale * norm["running_mean"]),
            self.names["running_mean"]: torch.zeros_like(deviation),
        }

    def figures(self) -> Mapping[str, object]:
        return {"rank": int(torch.linalg.matrix_rank(self.compactor[:, :, 0, 0]))}


@dataclass(frozen=True)
class Compactor(Toy):
    """A 1x1 convolution behind a layer and its norm, the identity at first (Ding et al., "ResRep", 2021)."""

    name = "compactor"
    running = RunningCompactor
    layer: str = "0"
    learning_rate_factor: float = 1.0


@dataclass
class RunningAdversary(RunningHook):
    options: "Adversary"
    samples: int = 0

    def trained(self) -> list[nn.Parameter]:
        return list(self.network.parameters())

    def attach(self, form: Program) -> Attachment:
        channels = self.training.program.example_inputs[0].shape[1]
        self.network = nn.Conv2d(channels, channels, 3, padding=1, device=self.training.processes.device)
        self.initial = self.network.weight.detach().clone()
        self.losses: list[float] = []
        optimizer = SGD(self.network.parameters(), self.options.learning_rate, momentum=0.5, maximize=True)
        return Attachment(optimizers=(optimizer,))

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        perturbed = batch.inputs + self.options.size * self.network(batch.inputs).tanh()
        outputs, _ = batch.network(perturbed)
        found = cross_entropy(outputs, batch.labels)
        self.samples += len(batch.inputs)
        self.losses.append(found.item())
        return (loss + found) / 2

    def cost(self) -> HookCost:
        return HookCost(self.samples, 3 * self.samples * self.training.program.macs())

    def decided(self) -> Mapping[str, object]:
        return {"weight": self.network.weight}

    def state(self) -> Mapping[str, Any]:
        return {"samples": self.samples}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.samples = state["samples"]


@dataclass(frozen=True)
class Adversary(Toy):
    """A small network that perturbs the inputs so that the loss grows, while the network learns to bear it."""

    name = "adversary"
    running = RunningAdversary
    size: float = 0.5
    learning_rate: float = 0.5


class Quantizer(nn.Module):
    """Rounds to 4 bits between the smallest and the largest value seen; gradients pass straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("range", torch.tensor([torch.inf, -torch.inf]))

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            low, high = values.detach().aminmax()
            self.range.copy_(torch.stack([torch.minimum(self.range[0], low), torch.maximum(self.range[1], high)]))
        low, high = self.range
        step = (high - low).clamp(min=1e-6) / 15
        rounded = ((values - low) / step).round() * step + low
        return values + (rounded - values).detach()


@dataclass
class RunningFakeQuantization(RunningHook):
    options: "FakeQuantization"

    def attach(self, form: Program) -> Attachment:
        self.quantizers = {}
        for number, node in enumerate(list(calls(form.graph, "relu"))):
            self.quantizers[node.name] = Quantizer()
            form.module.add_module(f"quantizer{number}", self.quantizers[node.name])
            with form.graph.inserting_after(node):
                rounded = form.graph.call_module(f"quantizer{number}", (node,))
            node.replace_all_uses_with(rounded, delete_user_cb=lambda user, rounded=rounded: user is not rounded)
        return Attachment()

    def decided(self) -> Mapping[str, object]:
        return {"ranges": {name: quantizer.range for name, quantizer in self.quantizers.items()}}

    def state(self) -> Mapping[str, Any]:
        return self.decided()

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, values in state["ranges"].items():
            self.quantizers[name].range.copy_(values)


@dataclass(frozen=True)
class FakeQuantization(Toy):
    """Activations rounded while training; their ranges are for a later step."""

    name = "fake-quantization"
    running = RunningFakeQuantization


@dataclass
class RunningImitation(RunningHook):
    options: "Imitation"

    def attach(self, form: Program) -> Attachment:
        return Attachment(inner=self.options.values, teacher_inner=self.options.values, teacher=True)

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        self.batch = batch
        return sum((mse_loss(batch.inner[n], batch.teacher_inner[n]) for n in self.options.values), torch.zeros(()))


@dataclass(frozen=True)
class Imitation(Toy):
    """Replaces the loss by the distance of inner values from the teacher's (Romero et al., "FitNets", 2015)."""

    name = "imitation"
    running = RunningImitation
    values: tuple[str, ...] = ("2", "conv2d_1")


@dataclass
class RunningHeldOut(RunningHook):
    options: "HeldOut"

    def attach(self, form: Program) -> Attachment:
        assert self.training.held_out is not None
        self.held_out: Split = self.training.held_out
        self.trained_on: list[Tensor] = []
        return Attachment()

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        self.trained_on.append(batch.inputs)
        return loss


@dataclass(frozen=True)
class HeldOut(Toy):
    """Sets some of the training data aside."""

    name = "held-out"
    running = RunningHeldOut
    fraction: float = 0.1

    @property
    def held_out_fraction(self) -> float:
        return self.fraction


@dataclass
class RunningFilm(RunningHook):
    options: "Film"
    epochs: int = 0

    def __post_init__(self) -> None:
        self.calls: list[str] = []
        self.moments: list[Moment] = []
        self.gradients: list[dict[str, Tensor]] = []

    def attach(self, form: Program) -> Attachment:
        self.calls.append("attach")
        return Attachment()

    def loss(self, batch: Batch, loss: Tensor) -> Tensor:
        self.calls.append("loss")
        return loss * self.options.factor

    def before_update(self, moment: Moment) -> None:
        self.calls.append("before_update")
        parameters = self.training.program.parameters()
        self.gradients.append({n: p.grad.clone() for n, p in parameters.items() if p.grad is not None})

    def after_update(self, moment: Moment) -> None:
        self.calls.append("after_update")
        self.moments.append(moment)

    def end_epoch(self, moment: Moment) -> str | None:
        self.calls.append("end_epoch")
        self.epochs += 1
        return "it has seen enough" if self.epochs == self.options.last else None

    def decided(self) -> Mapping[str, object]:
        self.calls.append("decided")
        return {"epochs": self.epochs}

    def state(self) -> Mapping[str, Any]:
        return {"epochs": self.epochs}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.epochs = state["epochs"]


@dataclass(frozen=True)
class Film(Toy):
    """Writes down every call, and ends the training after some epochs."""

    name = "film"
    running = RunningFilm
    last: int = 1000
    factor: float = 1.0
