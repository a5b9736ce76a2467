"""Calls of ``torch.export``: quiet, with the user's lines noted, and without the checks that it puts before a graph."""

import warnings
from contextlib import redirect_stderr
from io import StringIO
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


def export_as_is(module: nn.Module, inputs: Inputs, shapes: Any = None) -> ExportedProgram:
    """Export a module in its mode, with torch silent, which logs a traceback and prints a graph for every failure."""
    with without_logging(), warnings.catch_warnings(), redirect_stderr(StringIO()), users_lines(), known_ranges():
        warnings.simplefilter("ignore")
        return torch.export.export(module, *inputs, dynamic_shapes=shapes, strict=False)


def export_with_batch(module: nn.Module, inputs: Inputs, batch: Dim) -> ExportedProgram:
    """The same with a batch that varies: dimension 0 of every input that has as many samples as the first."""
    return export_as_is(module, inputs, specification(module, *inputs, dynamic_batch(input_tensors(inputs), batch)))


def unchecked_module(exported: ExportedProgram) -> GraphModule:
    """The unlifted graph, which also runs on inputs of other sizes than torch.export looked at."""
    module = exported.module(check_guards=False)
    assert isinstance(module, GraphModule)
    module._forward_pre_hooks.clear()
    return module
