"""The input of a command: a checkpoint with the project file that names its network, data and recipe."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunec.calibration.data import Data, load_data
from prunec.calibration.user_code import import_callable
from prunec.compiler.project.checkpoint import LoadedCheckpoint, load_checkpoint
from prunec.compiler.project.config import Config
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.model_section import checked_reference
from prunec.compiler.project.named_code import find_project
from prunec.compiler.recovery.objective import Objective
from prunec.passes.errors import InputError, UnsupportedModelError, UsageError
from prunec.passes.feeding import matched
from prunec.passes.interruption import endable_anywhere, stoppable_anywhere
from prunec.passes.network_inputs import NetworkInput
from prunec.passes.outputs import only_tensor
from prunec.passes.program import Program

_OWN_FUNCTIONS = 'Name functions that fit under [data] in prunec.toml: loss and metric, each "module:callable".'

#: Receiver of remarks, None where nobody listens.
Note = Callable[[str], None] | None


@dataclass(frozen=True)
class Project:
    """A project file, read."""

    config: Config

    @classmethod
    def find(cls, near: Path | None = None, config: Path | None = None, note: Note = None) -> "Project":
        """The project of a checkpoint, or of the working directory.

        Args:
            near: The checkpoint.
            config: The project file that the user pointed to, whose code runs wherever it lies.
            note: Receiver of the sentence that says whose code may run.

        Raises:
            UsageError: The project file that is asked for doesn't exist, or is wrong.
            InputError: One that wasn't asked for names code, and lies in a bundle or an unpacked archive.
        """
        return cls(find_project(near, config, note))

    def load(self, checkpoint: Path, options: ModelOptions, note: Note = None) -> LoadedCheckpoint:
        """Read and capture a checkpoint.

        Args:
            checkpoint: The file or folder.
            options: How to read it.
            note: Receiver of the remarks on what was done to its contents, for those who don't use them otherwise.

        Raises:
            PrunecError: The factory can't be found, or `load_checkpoint` can't load the file.
        """
        model, shapes = self.config.model, options.shapes or self.config.model.input
        with endable_anywhere():
            loaded = load_checkpoint(
                checkpoint,
                model=self.factory(options),
                input_shapes=shapes,
                inputs=None if shapes or model.inputs is None else model.described(self.config.folder),
                outputs=model.outputs,
                trust=options.trust,
                weights=options.weights or model.weights,
            )
        if note is not None:
            for text in loaded.notes:
                note(text)
        return loaded

    def factory(self, options: ModelOptions) -> Callable[[], nn.Module] | None:
        """The function that builds the network, None where none is named.

        Raises:
            UsageError: The function can't be found.
        """
        if options.factory is None:
            return self._imported(self.config.model.factory)
        return import_callable(_given_factory(options.factory), Path.cwd())

    def data(self, seed: int = 0) -> Data | None:
        """The project's data, None where it names none.

        Raises:
            PrunecError: The data can't be used.
        """
        section = self.config.data
        with stoppable_anywhere():
            return None if section is None else load_data(section.sources(), self.config.folder, seed)

    def required_data(self, seed: int = 0) -> Data:
        """The project's data.

        Raises:
            PrunecError: The project names no data, or they can't be used.
        """
        data = self.data(seed)
        if data is None:
            where = self.config.path or "no prunec.toml was found, so there"
            raise UsageError(
                f"There is no test data: {where} names none.",
                hint='Name it under [data] in prunec.toml: train = "npz:data.npz" and test = "npz:data.npz".',
            )
        return data

    def optimizers(self, names: Iterable[str]) -> dict[str, Callable[..., Any]]:
        """The functions among the names of optimizers, ``module:callable``, by their names.

        Raises:
            UsageError: A function can't be found.
        """
        return {name: import_callable(name, self.config.folder) for name in sorted(names) if ":" in name}

    def initialise(self) -> Callable[[nn.Module], None] | None:
        """The project's function that draws all weights of its network, None where it names none.

        Raises:
            UsageError: The function can't be found.
        """
        return self._imported(self.config.model.initialise)

    def objective(self) -> Objective:
        """Loss and metric of the project.

        Raises:
            UsageError: A function can't be found.
        """
        fields: dict[str, Any] = {}
        for name in ("loss", "metric"):
            if reference := getattr(self.config.data, name, None):
                fields |= {name: self._imported(reference), f"{name}_name": reference}
        return Objective(**fields)

    def _imported(self, reference: str | None) -> Callable[..., Any] | None:
        return import_callable(reference, self.config.folder) if reference else None


def check_fit(program: Program, data: Data, objective: Objective) -> None:
    """Check that a network takes these data, and, under the default loss and metric, has an output for every label.

    Raises:
        InputError: The data don't fit the network.
        UnsupportedModelError: The network takes batches of one size only.
    """
    if not program.batch_is_dynamic:
        raise UnsupportedModelError(
            f"The network runs at a batch of {len(program.example_inputs[0])} only, so that it can't run on the data.",
            hint="Rewrite what fixes its batch (often a view() with a number in it), or leave [data] out.",
        )
    check_inputs(program.inputs, data)
    if Objective() != objective:
        return
    if data.label_shape:
        raise InputError(
            f"The labels are maps of shape {list(data.label_shape)}: cross-entropy and top-1 need one per sample.",
            hint=_OWN_FUNCTIONS,
        )
    with torch.no_grad():
        outputs = program.eval()(*program.example_args, **program.example_kwargs)
    scores = only_tensor(outputs)
    if scores is None or scores.ndim != 2:
        raise InputError(
            f"The network's output is {_described(outputs)}: cross-entropy and top-1 need (samples, classes).",
            hint=_OWN_FUNCTIONS,
        )
    data.check_outputs(scores.shape[1])


def check_inputs(inputs: Sequence[NetworkInput], data: Data) -> None:
    """Check that data give what a network with these inputs takes.

    Raises:
        InputError: Inputs are missing, or there are others; or some are of another shape, or of another kind of type.
    """
    kinds = data.inputs
    given = matched(inputs, {kind.name: kind for kind in kinds} if kinds[0].name else kinds)
    for each, kind in zip(inputs, given, strict=True):
        if kind is None:
            continue
        if not each.has_batch:
            raise InputError(
                f"The data give {each.name!r}, which has no batch in the network: samples would need one value each.",
                hint="Leave it out of the data; with optional = true under [model] inputs ones stand for it.",
            )
        if not each.fits(kind.shape):
            of = f" for {each.name}" if len(inputs) > 1 else ""
            raise InputError(
                f"The data hold samples of shape {list(kind.shape)}{of}, and the network takes {each.sample_words()}.",
                hint="Check [data] and the input shape under [model] in prunec.toml.",
            )
        if each.is_whole != kind.is_whole:
            stored = str(kind.dtype).removeprefix("torch.")
            raise InputError(
                f"The data hold {stored} for {each.name}, and the network takes {each.dtype}.",
                hint="Token ids and masks are stored as int64 or bool, pixels as uint8 or float32.",
            )


def _described(outputs: object) -> str:
    if isinstance(outputs, Tensor):
        return f"of shape {list(outputs.shape)}"
    shapes = [list(leaf.shape) for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return f"a {type(outputs).__name__} of {len(shapes)} tensors{''.join(f', {shape}' for shape in shapes[:3])}"


def _given_factory(text: str) -> str:
    try:
        return checked_reference(text)
    except ValueError as error:
        raise UsageError(f"--model: {error}.", hint="For example --model model:resnet.") from error
