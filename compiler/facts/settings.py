"""The settings of a compile besides its pipeline: seeds, measurements, gates. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prunec.compiler.facts.progress import Progress, Silent
from prunec.compiler.recovery.schedules import Schedule
from prunec.passes.errors import UsageError
from prunec.passes.seeds import check_seed
from prunec.runtime.engines.options import EngineOptions

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from prunec.passes.program import Program

#: Whether passes are checked where nothing says it; tests turn it on.
VERIFY_EACH = False


@dataclass(frozen=True)
class Settings:
    """Settings of a compile besides its pipeline.

    Attributes:
        seed: Seed of every random choice that has no seed of its own.
        threads: Number of threads of ONNX Runtime in latency measurements.
        latency_batch: Batch size of latency measurements.
        latency_runs: Number of measurements of each of the two models.
        cost_model: File of a cost model, for goals in time; without one it is measured where the target's engine runs,
            and predicted from the device's data sheet elsewhere.
        cpu_latency: Whether the float32 files are timed on this CPU where that is not the target.
        build_engine: Whether an engine is asked for.
        engine_options: Options of the engine's build.
        max_drop_points: Limit of the accuracy gate in percentage points; None for no gate.
        min_speedup: Limit of the latency gate, dense over compiled latency on the target.
        max_latency_ms: Limit of the gate of milliseconds on the target.
        max_size_mb: Limit of the size of the engine's file.
        require_sparse_percent: Limit of the sparsity gate, percent of the layers that hold 2:4.
        gates: Further gates as text, such as gates of plug-ins: ``NAME{limit=...}``.
        allow_unknown: Whether a gate passes whose value can't be measured.
        allow_noop: Whether a step may reach nothing of what it was asked for, or less than half.
        strict: Whether doubts that no gate covers fail the compile: accuracy, latency, the vendor's support.
        allow_implausible: Whether data are taken that look otherwise than those of the network's training.
        stated_accuracy: The dense network's stated accuracy on the test data, to be checked; None where none is.
        command: The command line, for the report.
        model_name: Name of the dense network, such as "ResNet-50", by which runs are compared with published ones.
        pretraining: The dense network's own training; None where it isn't known, 0 epochs where there was none.
        pretraining_optimizer: The optimizer of that training, as recipes name it; None where it isn't known.
        optimizers: Functions that make an optimizer of parameter groups, by the name that the recipe or the dense
            training gives them.
        early: Dense networks of early epochs, by the name that the recipe gives them, for weight rewinding.
        resume: Whether a training that was stopped goes on.
        save_steps: Number of steps after which the state of the training is saved; it always is after an epoch.
        tensorboard: Folder for learning curves; None for none.
        controls: Names of the control arms to run (`control_names.CONTROLS`).
        seeds: Number of runs, with seeds from ``seed`` on.
        module: The dense network as its factory builds it, for control arms from scratch.
        initialise: Draws all weights of such a network; its modules' own ``reset_parameters()`` by default.
        verify_each: Whether the framework checks after each step what the step claims.
        print_after: Names of steps after which the program is told as text.
        progress: Receiver of messages on the compile.
    """

    seed: int = 0
    threads: int = 1
    latency_batch: int = 1
    latency_runs: int = 200
    cost_model: Path | None = None
    cpu_latency: bool = False
    build_engine: bool = True
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    max_drop_points: float | None = None
    min_speedup: float | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    require_sparse_percent: float | None = None
    gates: tuple[str, ...] = ()
    allow_unknown: bool = False
    allow_noop: bool = False
    strict: bool = False
    allow_implausible: bool = False
    stated_accuracy: float | None = None
    command: str = ""
    model_name: str = ""
    pretraining: Schedule | None = None
    pretraining_optimizer: str | None = None
    optimizers: "Mapping[str, Callable[..., Optimizer]]" = field(default_factory=dict)
    early: Mapping[str, "Program"] = field(default_factory=dict)
    resume: bool = False
    save_steps: int | None = None
    tensorboard: Path | None = None
    controls: tuple[str, ...] = ()
    seeds: int = 1
    module: "nn.Module | None" = None
    initialise: "Callable[[nn.Module], None] | None" = None
    verify_each: bool = field(default_factory=lambda: VERIFY_EACH)
    print_after: tuple[str, ...] = ()
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        """Raise `UsageError` where there is no run, or a seed is out of its range; gates check their own limits."""
        if self.seeds < 1:
            raise UsageError(f"--seeds must be at least 1, got {self.seeds}.")
        check_seed("The compile", self.seed)
        check_seed("The last of the runs", self.seed + self.seeds - 1)
