"""The stage before a training: what follows all steps is tried with the network that they will leave, untrained."""

import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.calibration.splits import FirstSamples
from prunec.compiler.facts.outcome import NO_ENGINE_ASKED, Exported
from prunec.compiler.facts.progress import Silent
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import Preflight, StepInput
from prunec.compiler.gates.own_gates import MAX_ONNX_VS_TORCH_RELATIVE_ERROR
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.pipeline.pipeline import Step
from prunec.compiler.stages.export_network import export
from prunec.passes.errors import MissingDependencyError, NothingComparedError, NumericMismatchError
from prunec.passes.fold import FoldParameters
from prunec.passes.identity import architecture_sha256
from prunec.passes.low_rank import Decompose
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.made_up_ranges import quantized_untrained
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown, known
from prunec.runtime.engines.building import parse_model
from prunec.runtime.engines.catalogue import choose_engine
from prunec.runtime.engines.remote import survived
from prunec.runtime.grid_form import form_of
from prunec.runtime.numerics import onnx_vs_torch


def preflight(given: StepInput, later: Iterable[Step]) -> Preflight | None:
    """Export, check, parse and run the network that a training and the steps after it will leave.

    The later steps that remove or mask weights are taken beforehand, by magnitude, to the same budget, and values are
    put on grids of made-up ranges.

    Args:
        given: The input of the training.
        later: The steps after it.

    Returns:
        What was found; None where a network of the same structure had passed, and in control arms and processes that
        help, whose networks aren't exported.

    Raises:
        PrunecError: What would be raised after the training.
    """
    if given.arm or not is_main():
        return None
    started, request = time.perf_counter(), given.request
    program = _foreseen(given.program, later, form_of(request.target))
    structure = f"{architecture_sha256(program)} {sorted(program.masks)}"
    if any(fact.preflight is not None and fact.preflight.structure == structure for fact in given.history):
        return None
    request.settings.progress.stage("preflight: export and run the network that the steps will leave")
    with tempfile.TemporaryDirectory() as folder:
        exported = export(_of_few_samples(request), program, Path(folder), _difference)
        parsed_by = _parsed_by(request, exported)
    difference = known(exported.difference_from_torch)
    if difference is not None and not difference < MAX_ONNX_VS_TORCH_RELATIVE_ERROR:
        raise NumericMismatchError(
            f"The network as it will be pruned differs under ONNX Runtime from torch by {difference:.1e} (relative), "
            f"allowed {MAX_ONNX_VS_TORCH_RELATIVE_ERROR:g}.",
            hint="It was tried before the training, which changes nothing of it. Please report the architecture.",
        )
    seconds = time.perf_counter() - started
    return Preflight(structure, program.macs(), exported.difference_from_torch, exported.accuracy, parsed_by, seconds)


def _foreseen(program: Program, later: Iterable[Step], form: Form) -> Program:
    for step in later:
        if isinstance(step.options, Calibrate):
            program = quantized_untrained(program, form, step.options.keep, equalized=step.options.equalize is True)
        options = _without_data(step.options)
        if options is not None:
            program = options.run(program).program
    return program


def _without_data(options: object) -> Any | None:
    """The options of a step that changes the structure of a network, by which weights alone decide; None for others."""
    if isinstance(options, PruneFilters) and options.needs:
        allocation = "auto" if options.allocation == "provable" else options.allocation
        return replace(options, criterion="l1", allocation=allocation)
    if isinstance(options, Sparsify):
        return replace(options, criterion="magnitude")
    return options if isinstance(options, FoldParameters | PruneFilters | Decompose) else None


def _difference(program: Program, onnx: Path, seed: int) -> float | Unknown:
    """The difference from torch, unknown where nothing is to be seen of it before the network is trained."""
    try:
        return onnx_vs_torch(program, onnx, seed)
    except NothingComparedError as error:
        return Unknown(error.message)


def _of_few_samples(request: Request) -> Request:
    """The request with little data to evaluate on, and nothing said."""
    data = None if request.data is None else replace(request.data, test=FirstSamples(request.data.test))
    return replace(request, data=data, settings=replace(request.settings, progress=Silent()))


def _parsed_by(request: Request, exported: Exported) -> str | Unknown:
    options, typed_onnx = request.settings.engine_options, exported.typed_onnx
    if not request.settings.build_engine:
        return Unknown(NO_ENGINE_ASKED)
    if isinstance(typed_onnx, Unknown):
        return typed_onnx
    try:
        kind = choose_engine(request.target, options)
    except MissingDependencyError as error:
        return Unknown(str(error).replace("\n", " "))
    return survived(partial(parse_model, kind, typed_onnx, options))
