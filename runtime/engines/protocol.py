"""The protocol that prunec's own engines and those of plug-ins follow. Imports no torch.

An *engine kind* is a library that runs compiled networks. It knows which targets it serves, whether it can build here,
and how to build, open, compare and time; a *session* is one of its engines, loaded. `catalogue` knows all kinds.
Engines are built, loaded, run and timed in the process of native code (`prunec.runtime.children`), where no torch is
imported and a crash costs nothing; all else of a kind is asked in the process of the compile.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.size_range import SizeRange
from prunec.passes.unknown import Unknown
from prunec.runtime.devices import Device
from prunec.runtime.engines.options import OPTION_FLAGS, EngineOptions
from prunec.runtime.engines.sparsity_log import BuilderSparsity
from prunec.runtime.processor import processor
from prunec.runtime.target import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunec.runtime.gpu_state import GpuState
    from prunec.runtime.latency import Timer

#: Largest relative difference of an engine's outputs from torch in float32, by the engine's precision.
TOLERANCES: Mapping[str, float] = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": 2e-1, "fp8": 5e-1, "int4": 2e-2}
#: Stands for the builder's word on sparse kernels where there is none.
NO_WORD = Unknown("the builder's log says nothing of sparse kernels.")


@dataclass(frozen=True)
class EngineInfo:
    """A built engine.

    Attributes:
        kind: Name of the engine kind that loads it.
        builder: Library and version, as in "tensorrt 10.13.0.35".
        run_on_device: Whether the engine can be run on this machine.
        gpu: Name of the GPU that it was built on; None where it was built without one.
        compute_capabilities: Capabilities that it was built for ahead of time; empty where its device was there.
        ranges: Sizes that it takes, by dynamic dimension; empty where it takes any.
        sparsity: The builder's word on sparse kernels.
        notes: Sentences on the engine that users must know.
        outside_support: Sentence that the vendor doesn't support it on the target; empty where the vendor does.
        seconds: Duration of the build.
    """

    kind: str
    path: Path
    builder: str
    run_on_device: bool
    gpu: str | None = None
    compute_capabilities: tuple[tuple[int, int], ...] = ()
    ranges: Mapping[str, SizeRange] = field(default_factory=dict)
    sparsity: BuilderSparsity | Unknown = NO_WORD
    notes: tuple[str, ...] = ()
    outside_support: str = ""
    seconds: float = 0.0

    @property
    def built_ahead_of_time(self) -> bool:
        """Whether it was built without its device."""
        return bool(self.compute_capabilities)

    @property
    def built_by(self) -> str:
        """The builder and the GPU that it was built on, in words."""
        return self.builder if self.gpu is None else f"{self.builder} on {self.gpu}"


class Session(ABC):
    """A loaded engine, used as a context manager; it is ready inside the ``with`` block.

    Arrays come and go in the order of the model's inputs and outputs.
    """

    def __enter__(self) -> Self:
        """Load the engine.

        Raises:
            MissingDependencyError: The engine doesn't fit this machine.
        """
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 - not every engine has something to free
        """Free the engine."""

    @abstractmethod
    def __call__(self, *inputs: "NDArray[Any]") -> "list[NDArray[Any]]":
        """Run one inference."""

    def timer(self, *inputs: "NDArray[Any]") -> "Timer":
        """A function that runs one inference and returns its milliseconds; the wall clock's, by default."""
        from prunec.runtime.latency import wall_clock

        return wall_clock(partial(self, *inputs))

    def node_times_ms(
        self, inputs: "Sequence[NDArray[Any]]", nodes: Sequence[str], runs: int
    ) -> Mapping[str, float] | Unknown:
        """Median milliseconds by ONNX node, over ``runs`` inferences on the inputs.

        Of the weighted nodes that are asked for, those whose time can't be told apart from another one's are left out.
        """
        return Unknown("the engine doesn't tell the times of its layers.")

    def sparse_kernels(self, nodes: Sequence[str]) -> Mapping[str, bool]:
        """Whether a sparse kernel runs an ONNX node, by node; those whose kernel isn't named are left out."""
        return {}


class EngineKind(ABC):
    """A library that builds and runs engines. Instances hold no state; plug-ins register the class.

    Attributes:
        name: Name in options and reports.
        title: Name in sentences.
        file_name: Name of the engine's file in a bundle; None where the ONNX file itself is the engine.
        devices: Devices that a plug-in brings; prunec's own are in `prunec.runtime.devices`.
        uses_threads: Whether the number of CPU threads bears on its latency.
        is_profiled: Whether it runs ONNX files under ONNX Runtime, whose profiler tells the time of every operation;
            of the others a cost model learns what sessions tell of nodes (`Session.node_times_ms`).
        takes: Names of the fields of `EngineOptions` that it uses; `check` refuses the others.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    file_name: ClassVar[str | None] = None
    devices: ClassVar[tuple[Device, ...]] = ()
    uses_threads: ClassVar[bool] = False
    is_profiled: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()

    def serves(self, target: Target) -> bool:
        """Whether engines of this kind can be for a target; the target's device says so, by default."""
        return self.name in target.info.engines

    def check(self, target: Target, options: EngineOptions, latency_batch: int) -> None:
        """Refuse early what can't be built, or measured with ``latency_batch`` samples at once.

        Raises:
            UsageError: An option doesn't fit the target.
        """
        given = (name for name in OPTION_FLAGS if getattr(options, name))
        if useless := [OPTION_FLAGS[name] for name in given if name not in self.takes]:
            raise UsageError(
                f"Target {target}: {self.title} takes no {', '.join(useless)}.",
                hint=f"{', '.join(OPTION_FLAGS.values())} are for engines of NVIDIA devices.",
            )

    def unavailable(self, target: Target, options: EngineOptions) -> MissingDependencyError | None:
        """Why no engine for a target can be built on this machine, with the line that mends it; None where one can."""
        return None

    def parse(self, onnx_path: Path, options: EngineOptions) -> str | Unknown:
        """Have the library read a model before there is anything to build; its name and version. Unknown by default.

        Raises:
            UnsupportedModelError: The library refuses the model.
            UsageError: The options don't fit the model.
        """
        return Unknown(f"{self.title} reads no model but to build it.")

    @abstractmethod
    def build(self, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
        """Build the engine of a target.

        Args:
            target: A target that this kind serves.
            onnx_path: The model, typed as the target asks.
            folder: Folder that gets the file of this kind's ``file_name``, whole or not at all.
            options: Sizes, further devices, timing cache.

        Raises:
            UnsupportedModelError: The library refuses the model.
            UsageError: The options don't fit the model.
        """

    def hardware(self) -> str:
        """The processor or GPU of this machine that measurements of its engines hold for; empty where there is none."""
        return processor()

    def on_this_machine(self, target: Target, engine: EngineInfo) -> EngineInfo:
        """A built engine, with what only the process that asked for it knows of this machine."""
        return engine

    def runs_here(self, target: Target) -> bool:
        """Whether an engine for a target can be run on this machine."""
        return True

    @abstractmethod
    def open(self, engine: EngineInfo, threads: int = 1) -> Session:
        """The session of a built engine.

        Args:
            engine: The engine, as `build` returned it or a report describes it.
            threads: Number of CPU threads, where they matter; 0 for as many as the library likes.
        """

    def tolerance(self, precision: str) -> float:
        """Largest relative difference of an engine's outputs from torch in float32 that counts as equal."""
        return TOLERANCES[precision]

    def gpu_state(self) -> "GpuState | Unknown":
        """Clocks, power and temperature of the GPU that engines run on, now."""
        return Unknown("nothing was measured on a GPU.")

    def outside_support(self, target: Target) -> str:
        """A sentence where a target lies outside the vendor's support matrix; empty where it doesn't."""
        return ""

    def why_not_run(self, target: Target) -> str:
        """Why this machine can't run an engine for a target, as a sentence of the report."""
        return f"{self.title} can't run engines for {target.info.title} on this machine."

    def why_not_timed(self, target: Target) -> str:
        """Why the layers of an engine that wasn't run have no times, as a sentence of the report."""
        return "the engine was not run."

    def why_no_sparse_kernels(self, target: Target) -> str:
        """Why no layer runs a sparse kernel on a target, as a sentence of the report; empty where layers may."""
        return "" if target.sparse else "the target is dense."
