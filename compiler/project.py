"""What a command works on: a checkpoint with the project file that says which network, data and recipe belong to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunec.calibration.data import Data, load_data
from prunec.calibration.user_code import import_callable
from prunec.compiler.config import MAX_SIZE, Config, checked_reference, find_config, load_config
from prunec.compiler.loading import LoadedCheckpoint, load_checkpoint
from prunec.compiler.objective import Objective
from prunec.compiler.recovery.schedules import Schedule
from prunec.passes.errors import InputError, UnsupportedModelError, UsageError
from prunec.passes.program import Program


@dataclass(frozen=True)
class ModelOptions:
    """How to read a checkpoint, where the command line says it.

    Attributes:
        factory: "module:callable", relative to the working directory; overrides the project file's.
        shapes: one sample's shape of each input; overrides likewise.
        trust: whether code that the checkpoint brings may run.
    """

    factory: str | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None
    trust: bool = False


def parse_shape(text: str) -> tuple[int, ...]:
    """``1,28,28`` as a tuple.

    Raises:
        UsageError: something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= MAX_SIZE for part in parts):
        raise UsageError(
            f"The input shape {text!r} is not of the form 3,224,224.",
            hint="Give the sizes of one sample, without the batch; repeat --input for several inputs.",
        )
    return tuple(map(int, parts))


@dataclass(frozen=True)
class Project:
    """A project file, read."""

    config: Config

    @classmethod
    def find(cls, near: Path | None = None, config: Path | None = None) -> "Project":
        """The project of a checkpoint, or of the working directory.

        Raises:
            UsageError: the project file that is asked for doesn't exist, or is wrong.
        """
        return cls(load_config(find_config(near, config)))

    def load(self, checkpoint: Path, options: ModelOptions) -> LoadedCheckpoint:
        """Read and capture a checkpoint.

        Raises:
            PrunecError: as `load_checkpoint`; the factory can't be found.
        """
        model = self.config.model
        factory = None
        if options.factory is not None:
            factory = import_callable(_reference("--model", options.factory), Path.cwd())
        elif model.factory is not None:
            factory = import_callable(model.factory, self.config.folder)
        shapes: Sequence[Sequence[int]] | None = options.shapes or model.input
        return load_checkpoint(checkpoint, model=factory, input_shapes=shapes, trust=options.trust)

    def data(self, seed: int = 0) -> Data | None:
        """The project's data, None where it names none.

        Raises:
            PrunecError: the data can't be used.
        """
        if self.config.data is None:
            return None
        return load_data(self.config.data.sources(), self.config.folder, seed)

    def required_data(self, seed: int = 0) -> Data:
        """The project's data.

        Raises:
            PrunecError: it names none, or they can't be used.
        """
        data = self.data(seed)
        if data is None:
            where = self.config.path or "no prunec.toml was found, so there"
            raise UsageError(
                f"There is no test data: {where} names none.",
                hint='Name it under [data] in prunec.toml: train = "npz:data.npz" and test = "npz:data.npz".',
            )
        return data

    def pretraining(self) -> Schedule | None:
        """The dense network's own training, None where the project file doesn't tell it."""
        section = self.config.model.pretraining
        return None if section is None else section.learning_rates()

    def initialise(self) -> Callable[[nn.Module], None] | None:
        """The project's function that draws all weights of its network, None where it names none.

        Raises:
            UsageError: it can't be found.
        """
        reference = self.config.model.initialise
        return None if reference is None else import_callable(reference, self.config.folder)

    def objective(self) -> Objective:
        """Loss and metric of the project.

        Raises:
            UsageError: a function can't be found.
        """
        default, section = Objective(), self.config.data
        if section is None:
            return default
        folder = self.config.folder
        return Objective(
            loss=import_callable(section.loss, folder) if section.loss else default.loss,
            metric=import_callable(section.metric, folder) if section.metric else default.metric,
            loss_name=section.loss or default.loss_name,
            metric_name=section.metric or default.metric_name,
        )


def check_fit(program: Program, data: Data, objective: Objective) -> None:
    """Check that a network takes these data, and, under the default loss and metric, has an output for every label.

    Raises:
        InputError: it doesn't.
        UnsupportedModelError: it takes several inputs, or batches of one size only.
    """
    if len(program.example_inputs) != 1:
        raise UnsupportedModelError(
            f"The network takes {len(program.example_inputs)} inputs, and data have one.",
            hint="Leave [data] out of prunec.toml to compile without recovery and accuracy.",
        )
    if not program.batch_is_dynamic:
        raise UnsupportedModelError(
            f"The network runs at a batch of {len(program.example_inputs[0])} only, so that it can't run on the data.",
            hint="Rewrite what fixes its batch (often a view() with a number in it), or leave [data] out.",
        )
    expected = tuple(program.example_inputs[0].shape[1:])
    if data.input_shape != expected:
        raise InputError(
            f"The data hold samples of shape {list(data.input_shape)}, and the network takes {list(expected)}.",
            hint="Check [data] and the input shape under [model] in prunec.toml.",
        )
    if Objective() != objective:
        return
    if data.label_shape:
        raise InputError(
            f"The labels are maps of shape {list(data.label_shape)}: cross-entropy and top-1 need one per sample.",
            hint='Name functions that fit under [data] in prunec.toml: loss and metric, each "module:callable".',
        )
    with torch.no_grad():
        outputs = program.eval()(*program.example_args, **program.example_kwargs)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        shapes = [list(leaf.shape) for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
        raise InputError(
            f"The network's output is {_described(outputs, shapes)}: cross-entropy and top-1 need (samples, classes).",
            hint='Name functions that fit under [data] in prunec.toml: loss and metric, each "module:callable".',
        )
    data.check_outputs(outputs.shape[1])


def _described(outputs: object, shapes: list[list[int]]) -> str:
    """What a network gives, in words."""
    if isinstance(outputs, Tensor):
        return f"of shape {list(outputs.shape)}"
    return f"a {type(outputs).__name__} of {len(shapes)} tensors{''.join(f', {shape}' for shape in shapes[:3])}"


def _reference(option: str, text: str) -> str:
    try:
        return checked_reference(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}.", hint="For example --model model:resnet.") from error
