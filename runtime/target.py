"""Targets of a compile: ``<device>[-<pattern>][-<precision>]``, such as "a100-2:4". Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from prunec.passes.errors import MissingDependencyError, UsageError, did_you_mean
from prunec.runtime.devices import DEVICES, ON_GRIDS, PRECISIONS, Device
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.tiles import channel_multiple

PATTERNS = ("dense", "2:4")
_MAX_CHARACTERS = 200


@dataclass(frozen=True)
class KnownDevices:
    """Devices of prunec and of plug-ins.

    Attributes:
        devices: Name -> device, prunec's own first.
        problems: A sentence for each plug-in whose devices can't be used.
    """

    devices: Mapping[str, Device]
    problems: tuple[str, ...]


def known_devices() -> KnownDevices:
    """All devices; imports every plug-in that brings an engine."""
    devices, problems = dict(DEVICES), []
    for name in ENGINES.names()[len(ENGINES.own) :]:
        try:
            kind = ENGINES.load(name)
            with ENGINES.blame(name):
                brought = tuple(getattr(kind, "devices", ()))
        except (MissingDependencyError, UsageError) as error:
            problems.append(error.message)
            continue
        for device in brought:
            if not isinstance(device, Device):
                problems.append(f"The engine {name!r} brings {device!r}; expected a Device of prunec.runtime.devices.")
            elif device.name in devices:
                problems.append(f"The device {device.name!r} of the engine {name!r} is left out: there is one already.")
            else:
                devices[device.name] = device
    return KnownDevices(devices, tuple(problems))


def _device(name: str) -> Device:
    """A device; plug-ins are asked where prunec itself doesn't know it."""
    if name in DEVICES:
        return DEVICES[name]
    known = known_devices()
    if name not in known.devices:
        hint = " ".join((did_you_mean(name, known.devices), *known.problems))
        raise UsageError(f"Unknown device {name!r} in target.", hint=hint)
    return known.devices[name]


def _others(precision: str) -> str:
    """A sentence on the devices that have a precision, where not nearly all have it."""
    names = [device.name for device in DEVICES.values() if precision in device.precisions]
    return f" {precision} is for {', '.join(names)}." if len(names) < len(DEVICES) / 2 else ""


@dataclass(frozen=True)
class Target:
    """A device with a sparsity pattern and a precision. ``str`` gives the full form, which `parse` reads back.

    >>> str(Target.parse("a100-2:4"))
    'a100-2:4-fp16'

    Attributes:
        device: Name of a device.
        pattern: "dense" or "2:4".
        precision: Precision of weights and activations.

    Raises:
        UsageError: The device, pattern or precision isn't known, or the device doesn't have the combination.
    """

    device: str
    pattern: str
    precision: str

    def __post_init__(self) -> None:
        _device(self.device)
        for kind, value, known in (("pattern", self.pattern, PATTERNS), ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise UsageError(f"Unknown {kind} {value!r} in target.", hint=did_you_mean(value, known))
        if self.precision not in self.info.precisions:
            raise UsageError(
                f"Target {self}: {self.info.title} has no {self.precision}.",
                hint=f"Known for {self.device}: {', '.join(self.info.precisions)}.{_others(self.precision)}",
            )
        if self.sparse and not self.info.sparse_tensor_cores:
            raise UsageError(
                f"Target {self}: {self.info.title} has no sparse tensor cores, so 2:4 can't make it faster.",
                hint=f"Compile for {self.device}-dense, or for a device with compute capability 8.0 or more.",
            )
        if self.sparse and self.precision in ("fp32", "int4"):
            raise UsageError(
                f"Target {self}: sparse tensor cores don't compute in {self.precision}.",
                hint=f"Use {self.device}-2:4-fp16.",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<device>[-<pattern>][-<precision>]``; dense, and the device's own precision, by default.

        Raises:
            UsageError: The causes are those of the constructor, or a part is none of the three.
        """
        if len(text) > _MAX_CHARACTERS:
            raise UsageError(f"A target of {len(text)} characters can't be: at most {_MAX_CHARACTERS} are read.")
        name, *parts = text.strip().lower().split("-")
        pattern, precision = "dense", _device(name).default_precision
        if parts and parts[0] in PATTERNS:
            pattern = parts.pop(0)
        if parts and parts[0] in PRECISIONS:
            precision = parts.pop(0)
        if parts:
            known = (*PATTERNS, *PRECISIONS)
            suggestion = "" if parts[0] in known else f"{did_you_mean(parts[0], known)} "
            raise UsageError(
                f"Target {text!r}: {parts[0]!r} is no pattern or precision in this place.",
                hint=f"{suggestion}A target is device-pattern-precision.",
            )
        return cls(name, pattern, precision)

    def __str__(self) -> str:
        """The full form; a dense fp32 CPU is just "cpu"."""
        if self.device != "cpu":
            return f"{self.device}-{self.pattern}-{self.precision}"
        return "-".join(part for part in (self.device, self.pattern, self.precision) if part not in ("dense", "fp32"))

    @property
    def info(self) -> Device:
        """The device with its figures."""
        return _device(self.device)

    @property
    def sparse(self) -> bool:
        """Whether the target asks for 2:4."""
        return self.pattern == "2:4"

    @property
    def float_precision(self) -> str:
        """The precision of what isn't computed on grids."""
        return self.info.precision_beside_grids if self.on_grids else self.precision

    @property
    def on_grids(self) -> bool:
        """Whether the target asks for values on grids."""
        return self.precision in ON_GRIDS

    @property
    def channel_multiple(self) -> int:
        """The multiple of channels that the target's kernels are made for (`prunec.runtime.tiles`)."""
        return channel_multiple(self.info, self.precision, sparse=self.sparse)
