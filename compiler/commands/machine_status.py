"""The libraries and the GPU of this machine, and the abilities of each target on it."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Literal

from prunec.compiler.gates.gate_catalogue import GATES, gate_class
from prunec.compiler.machine.environment import find_gpus
from prunec.compiler.machine.versions import tool_version
from prunec.compiler.pipeline.own_steps import STEPS, step_kind
from prunec.compiler.recovery.hooks import HOOKS, TrainingHook
from prunec.passes.criteria.catalogue import CRITERIA
from prunec.passes.criteria.protocol import ScoresElements, ScoresUnits, SelectsUnits
from prunec.passes.errors import MissingDependencyError, PrunecError, UsageError
from prunec.passes.plugins import Catalogue, plug_ins
from prunec.runtime.engines.catalogue import choose_engine, load_engine
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.target import Target, known_devices

Ability = Literal["build and run", "build ahead of time", "bundle only"]

# tool -> what prunec uses it for, line that installs it
_PURPOSES = {
    "torch": ("capture, pruning, recovery", "pip install torch"),
    "onnx": ("exported models", "pip install onnx"),
    "onnxscript": ("ONNX export", "pip install onnxscript"),
    "onnxruntime": ("target cpu, numeric checks", "pip install onnxruntime"),
    "polygraphy": ("building and running NVIDIA engines", "pip install polygraphy"),
    "tensorrt": ("engine.plan, on a machine with the GPU", "pip install 'prunec[tensorrt]'"),
    "tensorrt_rtx": ("engine.rtx, ahead of time without the GPU", "pip install tensorrt-rtx-cu12"),
    "plotly": ("charts of report.html", "pip install plotly"),
    "pynvml": ("GPU clocks and power", "pip install nvidia-ml-py"),
}


def _load_step(name: str) -> None:
    kind = step_kind(name)
    if not is_dataclass(kind.options_class()) or not callable(kind.runner()):
        raise UsageError(f"The step {name!r} needs a dataclass of options, and a function that runs it.")


def _load_criterion(name: str) -> None:
    kind = CRITERIA.load(name)
    if not (
        isinstance(kind, type) and is_dataclass(kind) and isinstance(kind, ScoresUnits | SelectsUnits | ScoresElements)
    ):
        raise UsageError(f"{kind!r} is no criterion: expected a dataclass with a name, needs and a method that scores.")


def _load_hook(name: str) -> None:
    kind = HOOKS.load(name)
    if not (isinstance(kind, type) and is_dataclass(kind) and issubclass(kind, TrainingHook)):
        raise UsageError(f"{kind!r} is no training hook: expected a dataclass derived from TrainingHook.")


#: Everything that other packages can bring, each with what refuses a thing of the wrong kind by its name.
_LOADERS: tuple[tuple[Catalogue, Callable[[str], object]], ...] = (
    (STEPS, _load_step),
    (CRITERIA, _load_criterion),
    (ENGINES, load_engine),
    (HOOKS, _load_hook),
    (GATES, gate_class),
)


@dataclass(frozen=True)
class ToolStatus:
    """A tool: its version, or None and the line that installs it."""

    name: str
    version: str | None
    purpose: str
    install: str


@dataclass(frozen=True)
class DeviceStatus:
    """Abilities of this machine for a device; `detail` names the builder, or the reason why there is none."""

    device: str
    title: str
    ability: Ability
    detail: str


@dataclass(frozen=True)
class PlugInStatus:
    """An extension of another package: what it is, and why it can't be used; empty where it can."""

    kind: str
    name: str
    package: str
    problem: str


@dataclass(frozen=True)
class MachineStatus:
    """The whole picture; `gpus` are names, empty where none is seen. `problems` tell why devices are left out."""

    python: str
    gpus: tuple[str, ...]
    tools: tuple[ToolStatus, ...]
    devices: tuple[DeviceStatus, ...]
    plug_ins: tuple[PlugInStatus, ...]
    problems: tuple[str, ...] = ()


def diagnose() -> MachineStatus:
    """Look at this machine; starts nothing on the GPU and builds nothing."""
    tools = tuple(ToolStatus(name, tool_version(name), *purpose) for name, purpose in _PURPOSES.items())
    known = known_devices()
    devices, extensions = tuple(map(device_status, known.devices)), tuple(plug_in_statuses())
    return MachineStatus(platform.python_version(), find_gpus(), tools, devices, extensions, known.problems)


def plug_in_statuses() -> Iterator[PlugInStatus]:
    """Every plug-in, imported to see whether it can be, and whether it is what it is registered as."""
    for catalogue, load in _LOADERS:
        for plug_in in plug_ins(catalogue.group):
            try:
                with catalogue.blame(plug_in.name):
                    load(plug_in.name)
                problem = ""
            except PrunecError as error:
                problem = error.message
            yield PlugInStatus(catalogue.kind, plug_in.name, plug_in.package, problem)


def device_status(name: str) -> DeviceStatus:
    """The abilities of this machine for one device of `known_devices`."""
    target = Target.parse(name)
    try:
        kind = choose_engine(target, EngineOptions())
        with ENGINES.blame(kind.name):
            ability: Ability = "build and run" if kind.runs_here(target) else "build ahead of time"
            outside = kind.outside_support(target)
    except (MissingDependencyError, UsageError) as error:
        return DeviceStatus(name, target.info.title, "bundle only", " ".join(filter(None, (error.message, error.hint))))
    detail = f"with {kind.name}" + (f"; {outside.removesuffix('.')}" if outside else "")
    return DeviceStatus(name, target.info.title, ability, detail)


def doctor_rows(status: MachineStatus) -> list[tuple[str, str, str, str]]:
    """The diagnosis as rows (section, name, state, detail) for a table or plain lines."""
    gpus = ", ".join(status.gpus) or "none seen"
    rows = [("machine", "python", status.python, ""), ("machine", "NVIDIA GPU", gpus, "")]
    for tool in status.tools:
        advice = "" if tool.version else f"; {tool.install}"
        rows.append(("tool", tool.name, tool.version or "not installed", tool.purpose + advice))
    rows += [("target", device.device, device.ability, f"{device.title}: {device.detail}") for device in status.devices]
    rows += [("target", "", "left out", problem) for problem in status.problems]
    for plug_in in status.plug_ins:
        state, why = ("can't be used", f": {plug_in.problem}") if plug_in.problem else ("ready", "")
        rows.append((f"plug-in, {plug_in.kind}", plug_in.name, state, f"of {plug_in.package}{why}"))
    return rows
