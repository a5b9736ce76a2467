"""Checkpoints: from a file to a `Program`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from prunec.compiler.machine.quiet_libraries import only_without_error
from prunec.compiler.project.checkpoint_file import check_file, checkpoint_path
from prunec.compiler.project.example_inputs import describe, make_examples
from prunec.compiler.project.finite import check_finite
from prunec.compiler.project.hub_network import load_hub_network
from prunec.compiler.project.pickled_network import take_network, unwrapped
from prunec.compiler.project.reading import check_sums, is_exported, read_content, read_exported
from prunec.compiler.project.state_dict import load_state
from prunec.compiler.project.stored_weights import survey
from prunec.passes.boundary import reading
from prunec.passes.errors import InputError, UnsupportedModelError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.network_inputs import NetworkInput
from prunec.passes.output_selection import select_outputs
from prunec.passes.program import Program
from prunec.passes.tensors import fingerprint, named_tensors
from prunec.passes.user_calls import call_user_code, defined_at, user_code_borders

_BATCH = 2


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that is ready to compile.

    Attributes:
        program: The captured network, in eval mode; `Program.origin` is the sha256 of its weights.
        module: The eager network with the weights in it; None for a ``.pt2``.
        notes: Sentences on changes of the file's contents while it was read.
    """

    program: Program
    module: nn.Module | None
    notes: tuple[str, ...] = ()


def load_checkpoint(
    path: str | Path,
    *,
    model: Callable[[], nn.Module] | None = None,
    example_inputs: tuple[Tensor, ...] | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    inputs: Sequence[NetworkInput] | None = None,
    outputs: Sequence[str] = (),
    trust: bool = False,
    weights: str = "",
) -> LoadedCheckpoint:
    """Read a trained network and capture it.

    Args:
        path: A ``.pt2`` archive of torch.export, a pickled ``nn.Module``, or a ``state_dict`` as ``.pt``, ``.pth`` or
            ``.safetensors``, all of them within other mappings, too; or a folder of Hugging Face, ``hf:FOLDER``.
        model: Function that builds the network that a ``state_dict`` belongs to.
        example_inputs: Inputs to capture with.
        input_shapes: Shape of one sample of each input, without the batch; random inputs are drawn then.
        inputs: Descriptions of the inputs, which examples are drawn by, or read from the files that they name.
        outputs: Paths of the outputs that are deployed (`select_outputs`); all of them by default.
        trust: Whether code that the file brings may run.
        weights: Name of the weights to take, where a file holds several, such as "ema"; those that aren't averages by
            default.

    Raises:
        InputError: The file is missing, truncated or corrupt, isn't trusted, doesn't fit the network, or holds weights
            that are not finite.
        UsageError: The network or its input shape isn't known, or the shape contradicts the archive's.
        UnsupportedModelError: The network doesn't run on the inputs, or can't be captured.
    """
    path = checkpoint_path(path)
    with reading(f"Checkpoint {path}", hint="It may be truncated or corrupt. Copy or save it again."):
        check_file(path)
        exported = not path.is_dir() and is_exported(path)
    if weights and (exported or path.is_dir()):
        raise UsageError(f"{path} holds one network alone; weights named {weights!r} can't be chosen of it.")
    if exported:
        return _selected(_load_exported(path, input_shapes, inputs, trust), outputs)
    module, notes = load_hub_network(path, trust) if path.is_dir() else _load_weights(path, model, trust, weights)
    check_finite(named_tensors(module), path)
    if other := _other_types(module.parameters()):
        module = module.float()
        notes += (f"The network is of type {other}; it was converted to float32.",)
    made = None if inputs is None or example_inputs is not None else make_examples(module, inputs)
    with only_without_error(), user_code_borders():  # forward() may print
        if made is not None:
            program = capture(module, made.args, made.kwargs, made.dynamic_shapes)
            describe(program, made.inputs)
        else:
            program = capture(module, example_inputs or _random_inputs(module, input_shapes, path))
    program.origin = fingerprint(module.state_dict())
    return _selected(LoadedCheckpoint(program, module, notes), outputs)


def _load_weights(
    path: Path, model: Callable[[], nn.Module] | None, trust: bool, asked: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network that a file holds, or that a factory builds for its weights, and notes on it."""
    with reading(f"Checkpoint {path}", hint="It may be truncated or corrupt. Copy or save it again."):
        check_sums(path)
        content = survey(read_content(path, trust), path)
    if content.networks:
        return take_network(content, path, asked)
    module, notes = unwrapped(build_module(_named(model, path)))
    return module, (*notes, *load_state(module, content, path, asked))


def _selected(loaded: LoadedCheckpoint, outputs: Sequence[str]) -> LoadedCheckpoint:
    """The checkpoint with the outputs that are deployed."""
    return replace(loaded, program=select_outputs(loaded.program, outputs)) if outputs else loaded


def _load_exported(
    path: Path, shapes: Sequence[Sequence[int]] | None, inputs: Sequence[NetworkInput] | None, trust: bool
) -> LoadedCheckpoint:
    with reading(f"Checkpoint {path}", hint="It may be truncated or corrupt. Copy or save it again."):
        check_sums(path)
    program, notes = read_exported(path, trust)
    check_finite(program.tensors(), path)
    if other := _other_types(program.parameters().values()):
        raise UnsupportedModelError(
            f"{path} holds a network of type {other}; expected float32.", hint="Export it again after model.float()."
        )
    own = [list(x.shape[1:]) for x in program.example_inputs]
    asked = own if shapes is None else [list(shape) for shape in shapes]
    if asked != own:
        words = [", ".join(map(str, shapes)) for shapes in (own, asked)]
        raise UsageError(
            f"{path} was exported for inputs of shape {words[0]} (one sample), got {words[1]}.",
            hint="Leave the input shape out: a .pt2 archive knows its own.",
        )
    if inputs is not None:
        describe(program, inputs)
    return LoadedCheckpoint(program, None, notes)


def _named(model: Callable[[], nn.Module] | None, path: Path) -> Callable[[], nn.Module]:
    if model is None:
        raise UsageError(
            f"{path} holds weights only, and the network they belong to isn't named.",
            hint='Name its factory: [model] factory = "module:callable" in prunec.toml, or --model module:callable.',
        )
    return model


def build_module(model: Callable[[], nn.Module]) -> nn.Module:
    """The network that a factory builds.

    Raises:
        InputError: The factory fails, or gives something else.
    """
    name = getattr(model, "__qualname__", repr(model))  # of a module of the project the name is prunec's own
    module = call_user_code(f"model factory {name}", model, hint="It is called without arguments.")
    if not isinstance(module, nn.Module):
        where = defined_at(model)
        raise InputError(f"The model factory {name}{where} gives {type(module).__name__}, expected a torch.nn.Module.")
    return module


def _random_inputs(module: nn.Module, shapes: Sequence[Sequence[int]] | None, path: Path) -> tuple[Tensor, ...]:
    if not shapes:
        raise UsageError(
            f"The input shape of {path} isn't known.",
            hint="Give one sample's shape: input = [3, 224, 224] under [model] in prunec.toml, or --input 3,224,224. "
            "Token ids and other kinds of inputs are described there by inputs.",
        )
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return tuple(torch.randn(_BATCH, *shape, generator=generator).to(dtype) for shape in shapes)


def _other_types(parameters: Iterable[Tensor]) -> str:
    """Floating-point types other than float32 among parameters; all else here computes in float32."""
    types = {p.dtype for p in parameters if p.is_floating_point()} - {torch.float32}
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
