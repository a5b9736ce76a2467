"""The working state of one compile: what stages read and what they leave for those after them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import nn

from prunec.calibration.data import Data
from prunec.compiler.objective import Objective
from prunec.compiler.progress import Progress, Silent
from prunec.compiler.ranks import is_main
from prunec.compiler.recovery.diagnosis import Diagnosis
from prunec.compiler.recovery.recover import Recover, RecoveryResult
from prunec.compiler.recovery.schedules import Schedule
from prunec.passes.errors import UsageError
from prunec.passes.oracle import OracleReport
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.runtime.engines.building import EngineInfo
from prunec.runtime.engines.measuring import DeviceMeasurement
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.evaluate import evaluate
from prunec.runtime.latency import LatencyComparison
from prunec.runtime.roofline import predict_program
from prunec.runtime.target import Target

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Settings:
    """What doesn't change the network: how it is measured and what a run is judged by.

    Attributes:
        seed: of every random choice.
        threads: of ONNX Runtime in latency measurements.
        latency_batch: batch size of latency measurements.
        latency_runs: measurements of each of the two models.
        build_engine: whether an engine is asked for.
        engine_options: how it is built.
        max_drop_points: accuracy gate, percentage points; None for no gate, as for the others.
        min_speedup: latency gate, dense over compiled latency on the target.
        require_sparse_percent: sparsity gate, percent of the layers that hold 2:4.
        allow_unknown: whether a gate that can't be measured passes.
        command: the command line, for the report.
        pretraining: the dense network's own training; None where it isn't known, 0 epochs where there was none.
        early: dense networks of early epochs, by the name that the recipe gives them, for weight rewinding.
        resume: go on with a training that was stopped.
        save_steps: how often within an epoch the state of the training is saved; it always is after an epoch.
        tensorboard: folder for learning curves; None for none.
        controls: control arms to run, by name (`control_names.CONTROLS`).
        seeds: how many runs, with seeds from ``seed`` on.
        module: the dense network as its factory builds it, for control arms from scratch.
        initialise: draws all weights of such a network; its modules' own ``reset_parameters()`` by default.
    """

    seed: int = 0
    threads: int = 1
    latency_batch: int = 1
    latency_runs: int = 200
    build_engine: bool = True
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    max_drop_points: float | None = None
    min_speedup: float | None = None
    require_sparse_percent: float | None = None
    allow_unknown: bool = False
    command: str = ""
    pretraining: Schedule | None = None
    early: Mapping[str, Program] = field(default_factory=dict)
    resume: bool = False
    save_steps: int | None = None
    tensorboard: Path | None = None
    controls: tuple[str, ...] = ()
    seeds: int = 1
    module: nn.Module | None = None
    initialise: Callable[[nn.Module], None] | None = None

    def __post_init__(self) -> None:
        """Refuse a gate that nothing can pass or fail.

        Raises:
            UsageError: its limit is not finite, or out of its range.
        """
        if self.seeds < 1:
            raise UsageError(f"--seeds must be at least 1, got {self.seeds}.")
        if self.max_drop_points is not None and not math.isfinite(self.max_drop_points):
            raise UsageError(f"--max-drop-points must be finite, got {self.max_drop_points}.")
        if self.min_speedup is not None and not 0 < self.min_speedup < math.inf:
            raise UsageError(f"--min-speedup must be a factor above 0, got {self.min_speedup}.")
        if self.require_sparse_percent is not None and not 0 <= self.require_sparse_percent <= 100:
            raise UsageError(f"--require-sparse must lie in 0% .. 100%, got {self.require_sparse_percent:g}%.")


@dataclass
class Pruned:
    """What filter pruning leaves for the report.

    Attributes:
        options: of the last round.
        widths: (group, dense width, kept units).
        oracle: of the last round.
        rounds: how often filters were pruned.
    """

    options: PruneFilters
    widths: tuple[tuple[str, int, int], ...]
    oracle: OracleReport
    rounds: int


@dataclass(frozen=True)
class Permuted:
    """What channel permutation leaves for the report.

    Attributes:
        retained_before: by layer, the share of its magnitude that 2:4 would have kept.
        gain: by layer, the share that it keeps more by the new order.
        efficacy: by layer, the share of 2:4's loss that the order undoes.
        refused: groups that kept their order, with the reason.
        cut_short: groups whose search ended because the time was up.
    """

    retained_before: dict[str, float]
    gain: dict[str, float]
    efficacy: dict[str, float]
    refused: dict[str, str]
    cut_short: tuple[str, ...]

    @classmethod
    def of(cls, stats: dict[str, Any]) -> Self:
        """From what the pass says."""
        return cls(
            {layer["layer"]: layer["retained_before"] for layer in stats["layers"]},
            {layer["layer"]: layer["retained_after"] - layer["retained_before"] for layer in stats["layers"]},
            {layer["layer"]: layer["efficacy"] for layer in stats["layers"]},
            {group["name"]: group["reason"] for group in stats["groups"] if group["reason"]},
            tuple(group["name"] for group in stats["groups"] if group["complete"] is False),
        )


@dataclass(frozen=True)
class StepRecord:
    """The network after one step, for the report.

    Attributes:
        name: of the step, with its options; "dense" for the network that came in.
        macs: for one sample.
        nonzero_weights: of convolutions and linear layers.
        predicted_ms: sum of the layers' rooflines on the target; None where its rates aren't known.
        accuracy: on the test data; None without data, or where it was not measured after this step.
    """

    name: str
    macs: int
    nonzero_weights: int
    predicted_ms: float | None
    accuracy: float | None


@dataclass
class Recovered:
    """What a recovery finetune leaves for the report.

    Attributes:
        options: with the schedule that was followed.
        result: of it.
        schedule_reason: why the schedule was chosen; empty where the recipe names it.
        diagnosis: whether it converged.
    """

    options: Recover
    result: RecoveryResult
    schedule_reason: str
    diagnosis: Diagnosis | None


@dataclass(frozen=True)
class ControlRun:
    """A finished control arm.

    Attributes:
        name: of `control_names.CONTROLS`.
        epochs: of its training.
        schedule: that it followed.
        accuracy: at its end, on the test data; None in processes that only help.
        note: what is to be known of it; empty for nothing.
    """

    name: str
    epochs: int
    schedule: str
    accuracy: float | None
    note: str


@dataclass
class Compilation:
    """One compile under way.

    Attributes:
        dense: the program that came in; never changed.
        program: the program as it is now.
        folder: where the bundle's files go.
        state_folder: where the states of trainings are kept while they are under way; None for nowhere.
        recoveries: how many there were.
        name: of this run among the controls and further seeds of one compile; empty for the compile itself.
        controls: that were run.
        further_seeds: accuracy by seed.
        accuracy: metric on the test data by stage (`stage_names.STAGES`).
        plan: from the dense network to this one, what was removed and in what order the rest stands.
        final_accuracy: the one measured last, before any export; None where there is none.
        reasons: why a field of the report is null, by dotted path.
    """

    dense: Program
    target: Target
    data: Data | None
    objective: Objective
    settings: Settings
    folder: Path
    program: Program
    progress: Progress = field(default_factory=Silent)
    state_folder: Path | None = None
    recoveries: int = 0
    name: str = ""
    controls: list[ControlRun] = field(default_factory=list)
    further_seeds: dict[int, float | None] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    final_accuracy: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    plan: PruningPlan = field(default_factory=lambda: PruningPlan({}))
    pruned: Pruned | None = None
    permuted: Permuted | None = None
    retained_magnitude: dict[str, float] = field(default_factory=dict)
    recovered: Recovered | None = None
    onnx_vs_torch: float | None = None
    size_bytes: dict[str, int] = field(default_factory=dict)
    latency: LatencyComparison | None = None
    latency_cpu: LatencyComparison | None = None
    engine: EngineInfo | None = None
    on_device: DeviceMeasurement | None = None
    steps: list[StepRecord] = field(default_factory=list)

    def measure_accuracy(self, stage: str) -> None:
        """Evaluate the current program on the test data, where there is data and this process speaks for all."""
        if self.data is not None and is_main():
            self.progress.stage(f"accuracy, {stage}")
            batches = self.data.test.batches(EVALUATION_BATCH)
            self.accuracy[stage] = evaluate(self.program.eval(), batches, self.objective.metric)
            self.final_accuracy = self.accuracy[stage]

    def record_step(self, name: str, accuracy: float | None) -> None:
        """Keep what the network is now."""
        program, parameters = self.program, self.program.parameters()
        weights = {layer.weight for layer in program.layers()} & parameters.keys()
        self.steps.append(
            StepRecord(
                name=name,
                macs=program.macs(),
                nonzero_weights=sum(int(parameters[weight].count_nonzero()) for weight in weights),
                predicted_ms=predict_program(program, self.target, self.settings.latency_batch),
                accuracy=accuracy,
            )
        )
