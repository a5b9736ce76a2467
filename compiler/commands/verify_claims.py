"""Claims of a report: figures that are told twice, or follow from others, each with the same figure computed anew."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prunec.compiler.machine.versions import tool_version
from prunec.compiler.pipeline.own_steps import OWN_STEPS
from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.compiler.report.assemble import summarise_runs
from prunec.compiler.report.engine_facts import target_and_engine
from prunec.compiler.report.engine_parts import LatencyPart
from prunec.compiler.report.nulls import NOT_RECORDED
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import RunPart
from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.oracle import TOLERANCE
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown, known
from prunec.runtime.engines.names import ENGINES

_ROUNDING = 1e-9
#: Stands for a latency of 0, which none has.
_LEAST_MS = 1e-9


@dataclass(frozen=True)
class Claim:
    """A figure of a report, by its path, and the same figure computed anew."""

    path: str
    told: object
    computed: object

    @property
    def holds(self) -> bool:
        """Whether they are equal, floating-point numbers but for rounding."""
        return _equal(self.told, self.computed)


def _equal(told: object, computed: object) -> bool:
    if isinstance(told, float) and isinstance(computed, float):
        return math.isclose(told, computed, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    if isinstance(told, Mapping) and isinstance(computed, Mapping):
        return told.keys() == computed.keys() and all(_equal(told[key], computed[key]) for key in told)
    return told == computed


def rule(words: str, holds: bool) -> Claim:
    """A claim that something holds, said in words."""
    return Claim(words, holds, True)


def pipeline_of(report: Report) -> Pipeline | None:
    """The report's pipeline; None where a plug-in that it names isn't installed."""
    try:
        return parse_pipeline(report.pipeline)
    except (UsageError, MissingDependencyError):
        return None


def is_own(pipeline: Pipeline | None) -> bool:
    """Whether all steps of a pipeline are prunec's own, of which it is known what they do to a network."""
    return pipeline is not None and all(step.name in OWN_STEPS for step in pipeline.steps)


def is_this_version(report: Report) -> bool:
    """Whether this version of prunec wrote a report: others may have had other words and defaults."""
    return report.environment.versions.get("prunec") == tool_version("prunec")


def figure_claims(report: Report) -> Iterator[Claim]:
    """The claims that follow from other figures of the same report, but for those of steps and trainings."""
    for family in _FAMILIES:
        yield from family(report)


def _sizes(report: Report) -> Iterator[Claim]:
    macs, parameters = report.macs, report.parameters
    yield Claim("macs.speedup", macs.speedup, macs.dense / max(macs.compiled, 1))
    yield rule("macs.dense >= macs.compiled", macs.dense >= macs.compiled)
    yield rule("parameters.dense >= parameters.compiled", parameters.dense >= parameters.compiled)


def _latencies(report: Report) -> Iterator[Claim]:
    for name in ("latency", "latency_cpu"):
        latency: LatencyPart | None = known(getattr(report, name))
        if latency is None:
            continue
        ratio = latency.dense_ms.median / max(latency.compiled_ms.median, _LEAST_MS)
        yield Claim(f"{name}.speedup", latency.speedup, ratio)
        for network in ("dense_ms", "compiled_ms"):
            times = getattr(latency, network)
            yield rule(f"{name}.{network}: 0 < median <= p90 <= p99", _rises(0.0, times.median, times.p90, times.p99))
        low, high = latency.speedup_interval
        yield rule(f"{name}.speedup lies in its interval", _rises(low, latency.speedup, high))
        yield rule(f"{name}: batch and runs are 1 or more", min(latency.batch, latency.runs) > 0)
        yield rule(f"{name}.threads is 1 or more", latency.threads is None or latency.threads > 0)


def _rises(*values: float) -> bool:
    return all(a <= b * (1 + _ROUNDING) for a, b in pairwise(values))


def _oracle(report: Report) -> Iterator[Claim]:
    oracle = known(report.oracle)
    if oracle is None:
        return
    yield Claim("oracle.exact", oracle.exact, not oracle.inexact_groups)
    if not isinstance(masked := oracle.masked_max_relative_error, Unknown):
        yield rule(f"oracle.masked_max_relative_error is below {TOLERANCE:g}", 0 <= masked < TOLERANCE)
        if oracle.exact:
            yield Claim("oracle.max_relative_error", oracle.max_relative_error, masked)


def _pruning(report: Report) -> Iterator[Claim]:
    pruning, pipeline = known(report.pruning), pipeline_of(report)
    if pruning is None:
        return
    names = [group.name for group in pruning.groups]
    yield Claim("pruning.groups: names, each once", len(set(names)), len(names))
    for group in pruning.groups:
        yield rule(f"pruning.groups {group.name}: kept <= width", group.kept <= group.width)
    prunings = [] if pipeline is None else pipeline.of(PruneFilters)
    if prunings:
        options = prunings[-1]
        by_group = {group.name: 1 - group.kept / group.width for group in pruning.groups if group.width}
        ratio = options.ratio_everywhere
        yield Claim("pruning.ratio", pruning.ratio, by_group if ratio is None else ratio)
        yield Claim("pruning.criterion", pruning.criterion, options.decided_by)
        yield Claim("pruning.round_to", pruning.round_to, options.round_to)
        rounds = len(prunings)
        yield Claim("pruning.schedule", pruning.schedule, "one-shot" if rounds == 1 else f"{rounds} rounds")


def _runs(report: Report) -> Iterator[Claim]:
    yield from _seeds("runs", report.runs)
    summary = summarise_runs(report.runs, seed_matters=True)
    yield Claim("runs_summary.mean", report.runs_summary.mean, summary.mean)
    if not isinstance(report.runs_summary.standard_deviation, Unknown):
        told = report.runs_summary.standard_deviation
        yield Claim("runs_summary.standard_deviation", told, summary.standard_deviation)
    if len(report.runs) == 1:
        yield Claim("runs.0.accuracy", report.runs[0].accuracy, report.accuracy.exported)
    for position, control in enumerate(report.controls):
        path, runs = f"controls.{position}", known(control.runs)
        if runs:
            yield from _seeds(f"{path}.runs", runs)
            yield Claim(f"{path}.accuracy", control.accuracy, runs[0].accuracy)
            mean = summarise_runs(runs, seed_matters=True).mean
            summary_told = known(control.summary)
            yield Claim(f"{path}.summary.mean", NOT_RECORDED if summary_told is None else summary_told.mean, mean)


def _seeds(path: str, runs: Sequence[RunPart]) -> Iterator[Claim]:
    seeds = [run.seed for run in runs]
    yield Claim(f"{path}: seeds, each once", len(set(seeds)), len(seeds))


def _engine(report: Report) -> Iterator[Claim]:
    engine = known(report.engine)
    yield Claim("size_bytes.engine is known", known(report.size_bytes.engine) is not None, engine is not None)
    if engine is None:
        return
    if "compute_capabilities" in engine.model_fields_set:
        yield Claim("engine.built_ahead_of_time", engine.built_ahead_of_time, bool(engine.compute_capabilities))
    if report.engine_request.kind:
        yield Claim("engine.kind", engine.kind, report.engine_request.kind)
    error, limit = known(report.numerics.engine_vs_torch_max_relative_error), _tolerance(report)
    if error is not None and limit is not None:
        yield rule(f"numerics.engine_vs_torch_max_relative_error is below {limit:g}", 0 <= error < limit)
    by_output = known(report.numerics.engine_vs_fp32_relative_error)
    if by_output and error is not None and known(report.calibration) is None:
        yield Claim("numerics.engine_vs_fp32_relative_error, largest", max(by_output.values()), error)


def _tolerance(report: Report) -> float | None:
    """The largest error of the report's kind of engine; None where it isn't known here, which `check_files` refuses."""
    try:
        target, kind = target_and_engine(report)
    except MissingDependencyError:
        return None
    with ENGINES.blame(kind.name):
        return kind.tolerance(target.precision)


_FAMILIES: tuple[Callable[[Report], Iterator[Claim]], ...] = (_sizes, _latencies, _oracle, _pruning, _runs, _engine)
