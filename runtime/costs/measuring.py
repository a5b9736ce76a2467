"""Measure a network's cost model: variants of it, timed layer by layer by the target's engine on this machine."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.counting import workload_of
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.coupling import Coupling, analyse
from prunec.passes.errors import InputError, MissingDependencyError, UnsupportedModelError, UsageError
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.runtime import children
from prunec.runtime.costs.fitting import MeasuredVariants, fit_costs
from prunec.runtime.costs.layer_times import LayerTimes, Subject, time_engines, time_onnxruntime
from prunec.runtime.costs.variant_files import VariantFiles
from prunec.runtime.costs.variants import RUN_SECONDS, VariantBudget, variant_widths
from prunec.runtime.engines.building import build_engine
from prunec.runtime.engines.catalogue import choose_engine
from prunec.runtime.engines.measuring import not_run_here
from prunec.runtime.engines.network_ranges import ranges_words, with_network_ranges
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineKind
from prunec.runtime.numerics import batch_sizes, random_inputs
from prunec.runtime.processor import processor
from prunec.runtime.target import Target

_DEFAULTS = EngineOptions()
_BUDGET = VariantBudget()


def measure_costs(
    program: Program,
    target: Target,
    *,
    batch: int = 1,
    threads: int = 1,
    seed: int = 0,
    budget: VariantBudget = _BUDGET,
    options: EngineOptions = _DEFAULTS,
    progress: Callable[[str], None] = lambda _: None,
) -> FittedCosts:
    """The cost model of a network on a target, by measurements on this machine.

    Random variants of the network are run in turns, and each layer's time is taken from the engine's own profiler. Its
    `error` is that of variants, aligned ones and one of three with unaligned widths, each by laws that weren't fitted
    to it. Milliseconds are at the level of the median.

    Args:
        program: The network.
        target: The target; one with 2:4 is measured with masks by magnitude, one in INT8 or FP8 on grids of
            made-up ranges.
        batch: Number of samples at once.
        threads: Number of CPU threads, where they matter.
        seed: Seed of the variants, the inputs and the order of the runs.
        budget: How many variants are measured; their widths don't depend on it.
        options: Options of the engines' builds, as a compile has them.
        progress: Is told what happens, in a few words.

    Raises:
        MissingDependencyError: The target's engine can't be built or run on this machine.
        UnsupportedModelError: Nothing of the network can be pruned, or it can't be exported.
        InputError: The network doesn't run at this batch.
        UsageError: The engine doesn't tell the times of its layers, or takes no such options.
    """
    kept = budget.within(_widths(analyse(program), budget.most, seed))
    samples, key = measure_variants(
        program, target, kept, batch=batch, threads=threads, seed=seed, options=options, progress=progress
    )
    costs = fit_costs(samples, key)
    if costs.untimed:
        progress(f"no kernels of their own, so no time: {', '.join(costs.untimed)}")
    return costs


def measure_variants(
    program: Program,
    target: Target,
    kept: Iterable[NDArray[np.int64]],
    *,
    batch: int = 1,
    threads: int = 1,
    seed: int = 0,
    options: EngineOptions = _DEFAULTS,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[MeasuredVariants, CostKey]:
    """Variants with ``kept`` units of each group, (groups,) each, timed in turns, and what their times hold for.

    Other arguments and errors are those of `measure_costs`. The first variant is the whole network. On a target
    with 2:4 or in INT8 it is timed without masks and grids, too.
    """
    kind, inputs = _engine_here(target, options), _inputs(program, batch, seed)
    kind.check(target, options, batch)
    options = with_network_ranges(kind, program, options)
    coupling = analyse(program)
    workload = workload_of(program, coupling)
    weights = tuple(operation.weight for operation in workload.operations)
    with tempfile.TemporaryDirectory() as scratch:

        def subject(onnx_path: Path) -> Subject:
            engine = build_engine(kind, target, onnx_path, onnx_path.parent, options)
            return Subject(engine, onnx_path, weights, workload.owners)

        files = VariantFiles(program, coupling, target, Path(scratch), seed)
        rows, subjects, has_plain = [], list[Subject](), target.sparse or target.on_grids
        for row in stoppable(kept):
            rows.append(row)
            progress(f"variant {len(rows)}")
            subjects.append(subject(files.write(row, progress)))
        if has_plain:
            subjects.append(subject(files.write_plain()))
        progress("timing the layers")
        times = _times(kind, subjects, inputs, threads, seed)
    if not times.layers.any():
        raise UsageError(f"{kind.title} can't measure a cost model: it tells the time of none of the layers.")
    engine = subjects[0].engine
    hardware = processor() if engine.gpu is None else engine.gpu
    threads_used = threads if kind.uses_threads else None
    key = CostKey(str(target), hardware, engine.builder, threads_used, batch, ranges_words(options.ranges))
    gain = float(times.networks[-1] / times.networks[0]) if has_plain else 1.0
    count = len(rows)
    return MeasuredVariants(workload.at(np.stack(rows)), times.layers[:count], times.networks[:count], gain), key


def _engine_here(target: Target, options: EngineOptions) -> EngineKind:
    """The engine kind of a target.

    Raises:
        MissingDependencyError: It can't be built or run on this machine.
    """
    kind = choose_engine(target, options)
    if not kind.runs_here(target):
        raise MissingDependencyError(
            f"A cost model of {target} can't be measured here: it {not_run_here(kind, target).reason}",
            hint="Run prunec measure-costs on the device, and use its file here: --cost-model FILE.",
        )
    return kind


def _inputs(program: Program, batch: int, seed: int) -> list[NDArray[Any]]:
    if batch_sizes(program, (batch,)) != (batch,):
        (possible,) = batch_sizes(program, (batch,))
        raise InputError(f"The network doesn't run at a batch of {batch}.", hint=f"Use a batch of {possible}.")
    return random_inputs(program, batch, seed)


def _widths(coupling: Coupling, variants: int, seed: int) -> NDArray[np.int64]:
    counts = np.array([group.count for group in coupling.groups], dtype=np.int64)
    if not len(counts):
        raise UnsupportedModelError(
            "Nothing of the network can be pruned, so there is no cost of widths to measure.",
            hint="prunec inspect says what is frozen, and why.",
        )
    return variant_widths(counts, variants, seed)


def _times(
    kind: EngineKind, subjects: list[Subject], inputs: list[NDArray[Any]], threads: int, seed: int
) -> LayerTimes:
    if kind.is_profiled:
        stage = "ONNX Runtime profiled variants of the network"
        return children.call(stage, time_onnxruntime, subjects, inputs, threads, RUN_SECONDS * len(subjects), seed)
    return time_engines(subjects, kind.title, inputs, threads, seed)
