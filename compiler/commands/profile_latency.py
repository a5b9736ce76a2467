"""``prunec profile``: latency over batches and threads, time per operator, and per layer beside what models tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.commands.profile_layers import LayerTime, layer_times
from prunec.compiler.commands.profile_subject import ProfileSubject, opened
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Note
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.costs.layers import check_pruned
from prunec.passes.errors import UsageError
from prunec.passes.two_four_words import TwoFourState, two_four_state, two_four_words
from prunec.passes.unknown import Unknown
from prunec.runtime import children
from prunec.runtime.costs.cost_file import check_key
from prunec.runtime.latency import Percentiles, SessionTimes, WarmUp, percentiles
from prunec.runtime.onnx_events import KernelTimes
from prunec.runtime.onnx_sparsity import LayerSparsity, check_sparsity, weight_states
from prunec.runtime.profile import OperatorTime, kernel_times, operator_times
from prunec.runtime.series import Steadiness, median_interval, steadiness

#: Sessions where the number isn't given, and the runs that each must have for that.
_SESSIONS, _RUNS_OF_A_SESSION = 3, 10


@dataclass(frozen=True)
class ProfileSettings:
    """Settings of a measurement.

    Attributes:
        threads: Threads of ONNX Runtime.
        batch: Samples per inference.
        runs: Timed runs, over all sessions.
        seed: Seed of the random inputs and of the bootstrap.
    """

    threads: int = 1
    batch: int = 1
    runs: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Combination:
    """One batch and number of threads.

    Attributes:
        settings: Settings of the measurement.
        latency_ms: Percentiles over the runs of all sessions, in milliseconds.
        interval_ms: 95 % interval of a session's median.
        samples_per_s: Samples in a second, by the median.
        sessions_ms: Median of each session.
        warm_up: Runs before those that count, of each session.
        steadiness: Drift and outliers.
        operators: Median time of what the engine really runs, after its fusions, over all runs; with the reason where
            the engine doesn't tell.
        layers: Time of each layer with what follows it, beside what models tell; with the reason where it isn't known.
    """

    settings: ProfileSettings
    latency_ms: Percentiles
    interval_ms: tuple[float, float]
    samples_per_s: float
    sessions_ms: tuple[float, ...]
    warm_up: tuple[WarmUp, ...]
    steadiness: Steadiness
    operators: tuple[OperatorTime, ...] | Unknown
    layers: tuple[LayerTime, ...] | Unknown


@dataclass(frozen=True)
class Profile:
    """Latency of a model.

    Attributes:
        path: File or folder that was profiled.
        engine: Name of the kind of engine that ran it.
        target: Target that it was compiled for; empty where it was not.
        settings: Settings of the first combination.
        latency_ms: Latency of the first combination, in milliseconds.
        operators: What the engine really runs in the first combination.
        combinations: Every batch with every number of threads.
        two_four: State of each layer with a weight, by its path.
        two_four_words: Those states in short.
    """

    path: str
    engine: str
    target: str
    settings: ProfileSettings
    latency_ms: Percentiles
    operators: tuple[OperatorTime, ...] | Unknown
    combinations: tuple[Combination, ...]
    two_four: Mapping[str, TwoFourState]
    two_four_words: str


@dataclass
class _Taken:
    """What the sessions of one combination have measured so far; ``kernels`` where the engine tells."""

    settings: ProfileSettings
    inputs: list[NDArray[Any]]
    sessions: list[SessionTimes] = field(default_factory=list)
    kernels: list[KernelTimes] | Unknown = field(default_factory=list)


def profile_path(
    path: Path,
    combinations: Sequence[ProfileSettings],
    *,
    config: Path | None,
    model: ModelOptions,
    sessions: int | None = None,
    costs: CostModel | None = None,
    note: Note = None,
) -> Profile:
    """Profile a checkpoint (exported to ONNX first), a bundle (its float32 ONNX model), an ONNX file or an engine.

    Args:
        path: What is profiled.
        combinations: Batches and threads, with the same runs each; their sessions take turns.
        config: The project file of a checkpoint; by default the one beside it.
        model: How to read a checkpoint.
        sessions: Number of sessions, each in a process of its own, which share the runs; 3 by default, or 1 where
            there are few runs.
        costs: A cost model to compare layers with.
        note: Receiver of the sentence that says whose code may run.

    Raises:
        PrunecError: It can't be loaded, exported or run here.
        UsageError: A session would have less than two runs, or the cost model holds for no combination.
        InputError: The cost model is that of another network.
    """
    shares = shares_of(combinations[0].runs, sessions)
    with opened(path, config=config, model=model, note=note) as subject:
        if costs is not None:
            _check_fits(costs, subject, combinations)
        rows = check_sparsity(subject.onnx_path)
        taken = [_Taken(each, subject.inputs(each.batch, each.seed)) for each in combinations]
        for runs in shares:
            children.restart()
            for each in taken:
                _measure(subject, each, runs, rows)
        profiled = tuple(_combination(subject, each, costs) for each in taken)
        states = {row.layer: two_four_state(row.eligible, row.valid) for row in rows if row.weight}
        first = profiled[0]
        return Profile(
            path=str(path),
            engine=subject.title,
            target="" if subject.target is None else str(subject.target),
            settings=first.settings,
            latency_ms=first.latency_ms,
            operators=first.operators,
            combinations=profiled,
            two_four=states,
            two_four_words=two_four_words(weight_states(rows)),
        )


def combinations_of(batches: Sequence[int], threads: Sequence[int], runs: int, seed: int) -> list[ProfileSettings]:
    """Every batch with every number of threads."""
    return [ProfileSettings(count, batch, runs, seed) for batch, count in product(batches, threads)]


def shares_of(runs: int, sessions: int | None) -> list[int]:
    """Runs of each session.

    Raises:
        UsageError: One would have less than two.
    """
    if sessions is None:
        sessions = _SESSIONS if runs >= _SESSIONS * _RUNS_OF_A_SESSION else 1
    if sessions < 1 or runs < 2 * sessions:
        raise UsageError(f"{runs} runs in {sessions} sessions: a session needs 2 runs at least.")
    return [len(share) for share in np.array_split(np.arange(runs), sessions)]


def _check_fits(costs: CostModel, subject: ProfileSubject, combinations: Sequence[ProfileSettings]) -> None:
    """Refuse a cost model that holds for none of the combinations, or for no network that this one can stem from."""
    wanted = [subject.cost_key(each.batch, each.threads) for each in combinations]
    if costs.key not in wanted:
        check_key(costs, wanted[0])
    if subject.program is not None and isinstance(costs, FittedCosts):
        check_pruned(costs.layers, work_of(subject.program))


def _measure(subject: ProfileSubject, taken: _Taken, runs: int, rows: Sequence[LayerSparsity]) -> None:
    """One session of one combination."""
    threads = taken.settings.threads
    with subject.session(threads) as session:
        taken.sessions.append(session.timed(taken.inputs, runs))
        told = None if subject.is_onnx else session.node_times_ms(taken.inputs, [row.name for row in rows], runs)
    if told is None:
        stage, path = f"ONNX Runtime profiled {subject.onnx_path.name}", subject.onnx_path.absolute()
        kernels: list[KernelTimes] | Unknown = children.call(stage, kernel_times, path, taken.inputs, threads, runs)
    else:
        kernels = told if isinstance(told, Unknown) else [_of_nodes(told, rows)]
    if isinstance(kernels, Unknown) or isinstance(taken.kernels, Unknown):
        taken.kernels = kernels
    else:
        taken.kernels += kernels


def _of_nodes(told: Mapping[str, float], rows: Sequence[LayerSparsity]) -> KernelTimes:
    """The medians of one session, as far as an engine tells of nodes."""
    nodes = [row for row in rows if row.name in told]
    ms = np.array([[told[row.name] for row in nodes]])
    return KernelTimes(tuple(row.name for row in nodes), tuple(row.operator for row in nodes), ms)


def _combination(subject: ProfileSubject, taken: _Taken, costs: CostModel | None) -> Combination:
    settings, sessions = taken.settings, [session.ms for session in taken.sessions]
    latency = percentiles(np.concatenate(sessions))
    kernels = taken.kernels
    operators = kernels if isinstance(kernels, Unknown) else tuple(operator_times(subject.onnx_path, kernels))
    wanted = subject.cost_key(settings.batch, settings.threads)
    fitting = costs if costs is not None and costs.key == wanted else None
    return Combination(
        settings=settings,
        latency_ms=latency,
        interval_ms=median_interval(sessions, settings.seed),
        samples_per_s=1000 * settings.batch / latency.median,
        sessions_ms=tuple(float(np.median(ms)) for ms in sessions),
        warm_up=tuple(session.warm_up for session in taken.sessions),
        steadiness=steadiness(sessions),
        operators=operators,
        layers=layer_times(subject, operators, settings.batch, fitting),
    )
