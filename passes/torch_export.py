"""Calls of ``torch.export``: quiet, with the user's lines noted, and without the checks that it puts before a graph."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from threading import RLock, get_ident
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from prunec.passes.batch_limits import users_lines
from prunec.passes.dimensions import dynamic_batch, input_tensors, specification
from prunec.passes.known_ranges import known_ranges
from prunec.passes.silence import without_logging
from prunec.passes.tensors import Inputs

#: torch.fx itself is changed for the while, by one thread at a time.
_LOCK = RLock()


def export_as_is(module: nn.Module, inputs: Inputs, shapes: Any = None) -> ExportedProgram:
    """Export a module in its mode, with torch silent, which logs a traceback and prints a graph for every failure."""
    with without_logging(), warnings.catch_warnings(), redirect_stderr(StringIO()), users_lines(), known_ranges():
        warnings.simplefilter("ignore")
        return torch.export.export(module, *inputs, dynamic_shapes=shapes, strict=False)


def export_with_batch(module: nn.Module, inputs: Inputs, batch: Dim) -> ExportedProgram:
    """The same with a batch that varies: dimension 0 of every input that has as many samples as the first."""
    return export_as_is(module, inputs, specification(module, *inputs, dynamic_batch(input_tensors(inputs), batch)))


class _ByThread:
    """A setting of torch, a flag for all of a process, that threads have each for themselves."""

    def __init__(self, otherwise: bool) -> None:
        self._otherwise, self._threads = otherwise, set[int]()

    def __bool__(self) -> bool:
        return self._otherwise or get_ident() in self._threads

    @contextmanager
    def on(self) -> Iterator[None]:
        """Have it on in this thread."""
        thread = get_ident()
        outermost = thread not in self._threads
        self._threads.add(thread)
        try:
            yield
        finally:
            if outermost:
                self._threads.discard(thread)


@contextmanager
def without_lines() -> Iterator[None]:
    """Trace without noting the lines of code that operators come from, which takes an eighth of an export's time.

    PyTorch 2.11 notes them nevertheless. From the first call on, torch's flag is an object that is true in the threads
    that asked for it.
    """
    with _LOCK:
        flag = getattr(torch.fx.config, "do_not_emit_stack_traces", None)
        if isinstance(flag, bool):
            flag = torch.fx.config.do_not_emit_stack_traces = _ByThread(flag)  # type: ignore[assignment]
    with flag.on() if isinstance(flag, _ByThread) else nullcontext():
        yield


def unchecked_module(exported: ExportedProgram) -> GraphModule:
    """The unlifted graph, which also runs on inputs of other sizes than torch.export looked at."""
    module = exported.module(check_guards=False)
    assert isinstance(module, GraphModule)
    module._forward_pre_hooks.clear()
    return module


def unlifted_graph(exported: ExportedProgram) -> GraphModule:
    """The unlifted graph with its tensors, to be read: no code is made of it, so that it doesn't run."""
    with _without_code():
        return unchecked_module(exported)


@contextmanager
def _without_code() -> Iterator[None]:
    """Keep torch.fx in this thread from making Python code of graphs, which takes half the time of unlifting them."""
    thread = get_ident()

    def recompile(module: GraphModule) -> Any:
        return None if get_ident() == thread else original(module)

    with _LOCK:
        original = GraphModule.recompile
        GraphModule.recompile = recompile  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            GraphModule.recompile = original  # type: ignore[method-assign]
