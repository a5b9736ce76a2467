"""Parts of report.json that tell of the engine, of measurements, of the machine and of gates."""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from prunec.compiler.report.nulls import NOT_RECORDED, Maybe, NullMeans
from prunec.compiler.report.report_part import Count, Part, SortedDict

GateVerdict = Literal["passed", "failed", "unknown"]


def _file_name(name: str) -> str:
    """The name of a file beside the report: a path that leads elsewhere would be read, or removed, there."""
    if not name or PurePath(name).name != name or "\\" in name or name == "..":
        raise ValueError(f"{name!r} is no name of a file in the bundle")
    return name


class PercentilesPart(Part):
    """Latency percentiles in milliseconds."""

    median: float
    p90: float
    p99: float


class LatencyPart(Part):
    """Dense and compiled measured in interleaved runs; the interval of the speed-up is a 95 % bootstrap.

    `asked_speedup` and `asked_ms` are what the recipe asks for in time, `predicted_speedup` is what the cost model said
    of the chosen widths.
    """

    dense_ms: PercentilesPart
    compiled_ms: PercentilesPart
    speedup: float
    speedup_interval: tuple[float, float]
    threads: Annotated[Count | None, NullMeans("measured on a GPU")]
    batch: Count
    runs: Count
    asked_speedup: Annotated[float | None, NullMeans("no speed-up in time was asked for")] = None
    asked_ms: Annotated[float | None, NullMeans("no milliseconds were asked for")] = None
    predicted_speedup: Annotated[float | None, NullMeans("no cost model was used")] = None


class GatePart(Part):
    """A limit that was asked for, the value measured, and the verdict; `allow_unknown` lets one pass that isn't known.

    `label` says in words what the value is, and `unit` stands behind it. `margin` is half the width of the value's 95 %
    interval. `asked` is the text that asks for a gate of a
    plug-in; it is empty for prunec's own, which have nothing but their limit.
    """

    name: str
    limit: float
    value: Maybe[float]
    verdict: GateVerdict
    allow_unknown: bool = False
    label: str = ""
    unit: str = ""
    asked: str = ""
    margin: Annotated[float | None, NullMeans("the value is exact, or nothing tells its error")] = None


class EnginePart(Part):
    """The engine: `kind` is the runtime that loads it, `path` the name of its file in the bundle.

    `sha256` is the hash of its file, `builder` library and version, `gpu` what it was built on. One built ahead of time
    is for `compute_capabilities`. `dimensions` are the sizes it takes, as smallest:tuned:largest. `outside_support`
    says that the vendor doesn't support the engine on the target; it is empty where the vendor does.
    """

    kind: str
    path: Annotated[str, AfterValidator(_file_name)]
    sha256: Maybe[str] = NOT_RECORDED
    builder: Maybe[str] = NOT_RECORDED
    gpu: Annotated[str | None, NullMeans("built without a GPU")] = None
    built_ahead_of_time: bool
    compute_capabilities: tuple[str, ...] = ()
    dimensions: Maybe[SortedDict[str]] = NOT_RECORDED
    run_on_device: bool
    notes: tuple[str, ...] = ()
    outside_support: Maybe[str] = NOT_RECORDED


class LatencyRequestPart(Part):
    """The request for measurements of latency: samples at once, measurements of each network, threads of a CPU."""

    batch: Count
    runs: Count
    threads: Count


class EngineRequestPart(Part):
    """The request for the engine, for `prunec build`: sizes of dynamic dimensions, further devices, its kind.

    `kind` is empty where the target decides. `latency` says how the engine is timed.
    """

    dimensions: SortedDict[str] = Field(default_factory=dict)
    also_for: tuple[str, ...] = ()
    kind: str = ""
    latency: Maybe[LatencyRequestPart] = NOT_RECORDED


class GpuStatePart(Part):
    """The GPU right after latency was measured on it; `performance_state` 0 is the fastest."""

    name: str
    driver: str
    sm_clock_mhz: Count
    max_sm_clock_mhz: Count
    memory_clock_mhz: Count
    power_w: Annotated[float | None, NullMeans("this GPU doesn't tell")]
    power_limit_w: Annotated[float | None, NullMeans("this GPU doesn't tell")]
    temperature_c: int
    performance_state: Count
    clocks_held_by: tuple[str, ...]


class EnvironmentPart(Part):
    """The machine that made the report: versions of the tools, processor, threads, GPU and its state."""

    versions: SortedDict[str]
    processor: str
    threads: Count
    gpu: Annotated[str | None, NullMeans("no GPU seen")]
    gpu_state: Maybe[GpuStatePart] = NOT_RECORDED
