"""Captures and files of networks that a test's process captured or wrote before; without it tests take a third longer.

A structure is captured once, and gets other weights from then on; a program is written once with its weights. Nothing
of what comes out changes: that two captures and two files are alike is what tests with `anew` see to.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.utils import _pytree as pytree

from prunec.passes import frontend
from prunec.passes.dimensions import batch_size, input_tensors, with_samples
from prunec.passes.exporting import Export
from prunec.passes.module_copy import Copies
from prunec.passes.program import Program
from prunec.passes.tensors import CPU, Inputs, copied, copied_inputs, named_tensors
from prunec.runtime import onnx_export
from tests.content import Untold, of_network, of_program

#: So many results of a kind are kept, the files of so many bytes at most.
_KEPT, _LARGEST = 200, 1_000_000
_META = torch.device("meta")
Result = TypeVar("Result")
#: Fixtures and blocks in force, in any thread, that ask for all to be made anew.
_anew: list[object] = []
#: Patches that are in force: what is made under one may be something else.
_patches: list[pytest.MonkeyPatch] = []


@contextmanager
def anew() -> Iterator[None]:
    """Capture and write every network, also one that was captured or written before."""
    _anew.append(None)
    try:
        yield
    finally:
        _anew.pop()


def keep_results() -> None:
    """Change prunec's functions, before others import them by name."""
    frontend._captured = _captured_once(frontend._captured)
    models, onnx_files = _Kept[bytes](), _Kept[bytes]()
    onnx_export.export_onnx = _written_once(onnx_export.export_onnx, onnx_files)
    onnx_export.save_with_onnx = _written_once(onnx_export.save_with_onnx, models, onnx_files)
    Program.save = _written_once(Program.save, models)  # type: ignore[method-assign]
    for name in ("setattr", "setitem", "delattr", "delitem"):
        setattr(pytest.MonkeyPatch, name, _noted(getattr(pytest.MonkeyPatch, name)))
    pytest.MonkeyPatch.undo = _noted_end(pytest.MonkeyPatch.undo)  # type: ignore[method-assign, assignment]


def _noted(change: Callable[..., None]) -> Callable[..., None]:
    @wraps(change)
    def noted(patch: pytest.MonkeyPatch, *what: Any, **options: Any) -> None:
        if patch not in _patches:
            _patches.append(patch)
        change(patch, *what, **options)

    return noted


def _noted_end(undo: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
    @wraps(undo)
    def undone(patch: pytest.MonkeyPatch) -> None:
        undo(patch)
        if patch in _patches:
            _patches.remove(patch)

    return undone


class _Kept(Generic[Result]):
    """The results of the latest different contents."""

    def __init__(self) -> None:
        self._results: OrderedDict[object, Result] = OrderedDict()

    def get(self, key: object) -> Result | None:
        if key not in self._results:
            return None
        self._results.move_to_end(key)
        return self._results[key]

    def keep(self, key: object, result: Result) -> None:
        self._results[key] = result
        if len(self._results) > _KEPT:
            self._results.popitem(last=False)


def _told(tell: Callable[..., object], *parts: Any) -> object | None:
    """The content of something; None where that can't be told, isn't asked for, or isn't all that counts."""
    unusual = (*_anew, *_patches, *torch.overrides._get_current_function_mode_stack(), *_global_hooks())  # type: ignore[no-untyped-call]
    if unusual or torch.is_autocast_enabled("cpu") or torch.get_default_device() != CPU:
        return None
    try:
        key = tell(*parts), torch.is_grad_enabled(), torch.get_default_dtype()
        hash(key)
    except (Untold, TypeError, RecursionError):
        return None
    return key


def _global_hooks() -> list[object]:
    """Hooks on all modules."""
    names = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_buffer_registration_hooks")
    return [hook for name in names for hook in vars(torch.nn.modules.module)[name].values()]


def _captured_once(capture: Callable[..., tuple[Program, Copies, Export]]) -> Callable[..., Any]:
    kept = _Kept[tuple[Program, Graph, tuple[str, ...]]]()

    @wraps(capture)
    def captured(module: nn.Module, example: Inputs, dynamic_shapes: Any) -> tuple[Program, Copies, Export]:
        key = _told(of_network, module, _without_values(example), dynamic_shapes)
        if key is not None and (before := kept.get(key)) is not None:
            skeleton, graph, notes = before
            return _over(skeleton, module, example, graph, notes)
        program, copies, export = capture(module, example, dynamic_shapes)
        if key is not None and not copies.note and not program.constants:
            kept.keep(key, (_skeleton(program), export.own_graph, export.notes))
        return program, copies, export

    return captured


def _without_values(inputs: Inputs) -> Any:
    """Inputs with what is told of their floating-point tensors in place of these."""

    def told(leaf: Any) -> Any:
        is_number = isinstance(leaf, Tensor) and leaf.is_floating_point() and bool(torch.isfinite(leaf).all())
        return (leaf.dtype, leaf.shape, leaf.stride()) if is_number else leaf

    return pytree.tree_map(told, inputs)


def _skeleton(program: Program) -> Program:
    """A program without values of its tensors and inputs."""
    args, kwargs = copied_inputs((program.example_args, program.example_kwargs), _META)
    return replace(program.with_tensors(copied(program.tensors(), _META)), example_args=args, example_kwargs=kwargs)


def _over(
    skeleton: Program, module: nn.Module, example: Inputs, graph: Graph, notes: tuple[str, ...]
) -> tuple[Program, Copies, Export]:
    """What a capture of another network of the same structure gives, compared with the network as it is there."""
    new, copies = copied(named_tensors(module), CPU), Copies(module)
    program = skeleton.with_tensors({name: new[name] for name in skeleton.tensors()})
    size, before = batch_size(input_tensors(example)), batch_size(skeleton.example_inputs)
    args, kwargs = copied_inputs(example if size == before else with_samples(example, before))
    program = replace(program, example_args=args, example_kwargs=kwargs)
    program.capture_notes = (*notes, *frontend._compared(copies, program, frontend._reference(copies, example)))
    return program, copies, Export(None, (args, kwargs), notes, traced=graph)  # type: ignore[arg-type]


def _written_once(write: Callable[..., None], *kept: _Kept[bytes]) -> Callable[..., None]:
    """A method or function that writes a program into files, of which these are kept.

    A call that gives more, what the program was exported as, comes from `save_with_onnx`, whose files are kept.
    """

    @wraps(write)
    def written(program: Program, *paths: Any, **named: Any) -> None:
        key = _told(of_program, program) if len(paths) == len(kept) and not named else None
        if key is None:
            write(program, *paths, **named)
            return
        files = tuple(map(Path, paths))
        before = [content for files_of in kept if (content := files_of.get(key)) is not None]
        if len(before) == len(kept):
            for path, content in zip(files, before, strict=True):
                path.write_bytes(content)
            return
        write(program, *paths)
        for path, files_of in zip(files, kept, strict=True):
            if path.stat().st_size <= _LARGEST:
                files_of.keep(key, path.read_bytes())

    return written
