"""Facts of a compile after its steps: the export, the engine, the measurements, and all of them together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prunec.calibration.plausibility import Plausibility
from prunec.compiler.facts.costs import Costs
from prunec.compiler.facts.ledger import LedgerEntry
from prunec.compiler.facts.step_facts import StepFact, entries_of
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.measuring import Measurement
from prunec.runtime.engines.protocol import EngineInfo
from prunec.runtime.latency import LatencyComparison
from prunec.runtime.onnx_sparsity import LayerSparsity

#: Why there is no engine where the user wanted none.
NO_ENGINE_ASKED = "no engine was asked for (--no-engine)."
#: Why this CPU was not timed beside another target's device.
NO_CPU_LATENCY_ASKED = Unknown("time on this CPU, which is not the target, was not asked for (--cpu-latency).")
_NOT_CHECKED = Unknown("the data were not checked.")


@dataclass(frozen=True)
class Exported:
    """The compiled network as ONNX.

    Attributes:
        onnx: The float32 file.
        typed_onnx: The file that the engine is built from, typed as the target asks; unknown where ONNX died of it.
        difference_from_torch: Largest relative difference of ONNX Runtime from torch; unknown where it died.
        sparsity: The 2:4 sparsity of the exported layers.
        accuracy: Metric on the test data under ONNX Runtime.
        compiled_bytes: Size of the float32 file.
    """

    onnx: Path
    typed_onnx: Path | Unknown
    difference_from_torch: float | Unknown
    sparsity: tuple[LayerSparsity, ...]
    accuracy: float | Unknown
    compiled_bytes: int


@dataclass(frozen=True)
class Built:
    """The engine, if there is one.

    Attributes:
        engine: The engine.
        size_bytes: Size of its file.
        difference_from_torch: Largest relative difference from the compiled program, where it runs here.
        from_fp32: Relative differences by output from the compiled program without grids, in float32.
    """

    engine: EngineInfo | Unknown
    size_bytes: int | Unknown
    difference_from_torch: float | Unknown
    from_fp32: Mapping[str, float] | Unknown

    @classmethod
    def nothing(cls, reason: str) -> "Built":
        """No engine, for a reason."""
        return cls(*[Unknown(reason)] * 4)


@dataclass(frozen=True)
class OnTarget:
    """Measurements of the engine on its device.

    Attributes:
        latency: Latency of the dense network and of the compiled one.
        engine: Times by layer, and the state of the GPU.
        accuracy: Metric of the engine on the test data.
        batch: Batch size of the latency measurements.
        threads: Number of CPU threads; None where it doesn't run on a CPU.
    """

    latency: LatencyComparison | Unknown
    engine: Measurement | Unknown
    accuracy: float | Unknown
    batch: int
    threads: int | None


@dataclass(frozen=True)
class OnThisCpu:
    """Latency of the float32 files under ONNX Runtime on this CPU, where that is not the target."""

    latency: LatencyComparison | Unknown
    batch: int
    threads: int


@dataclass(frozen=True)
class SeedRun:
    """A finished run of one seed: the metric on the test data at its end, and all entries that it left."""

    seed: int
    accuracy: float | Unknown
    entries: tuple[LedgerEntry, ...]


@dataclass(frozen=True)
class ControlRun:
    """A finished control arm.

    Attributes:
        name: Name of the control arm (`control_names.CONTROLS`).
        epochs: Length of its training.
        schedule: The schedule that it followed.
        macs: Multiply-accumulates of its network for one sample.
        zero_fraction: Share of zeros among its parameters.
        seeds: Its runs, one for each seed of the compile.
        note: A remark that a reader of its figures needs; empty for none.
    """

    name: str
    epochs: int
    schedule: str
    macs: int
    zero_fraction: float
    seeds: tuple[SeedRun, ...]
    note: str


@dataclass(frozen=True)
class Steps:
    """Results of the steps.

    Attributes:
        program: The compiled program.
        history: The facts of the steps, the dense network's first.
        further_seeds: The same steps with further seeds.
        seed_matters: Whether a further seed gave other weights.
        controls: The control arms.
        plausibility: What the data are to the dense network.
        costs: The cost model; None where none was used.
    """

    program: Program
    history: tuple[StepFact, ...]
    further_seeds: tuple[SeedRun, ...] = ()
    seed_matters: bool = False
    controls: tuple[ControlRun, ...] = ()
    plausibility: Plausibility | Unknown = _NOT_CHECKED
    costs: Costs | None = None

    @property
    def ledger(self) -> tuple[LedgerEntry, ...]:
        """The entries of the compile, then those of further seeds and control arms."""
        others = [*self.further_seeds, *(run for control in self.controls for run in control.seeds)]
        return (*entries_of(self.history), *(entry for run in others for entry in run.entries))


@dataclass(frozen=True)
class Outcome:
    """All facts of one compile: its steps, the ONNX files, the engine, and the measurements.

    `dense_bytes` is the size of the dense network's float32 file.
    """

    steps: Steps
    dense_bytes: int
    exported: Exported
    built: Built
    on_target: OnTarget
    on_this_cpu: OnThisCpu
