"""``prunec inspect``: what of a network can be pruned, what can't and why, and which layers can carry 2:4."""

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunec.compiler.bundle import unwritable
from prunec.compiler.project import ModelOptions, Project
from prunec.passes.cost import CONVENTION
from prunec.passes.coupling import Group, analyse
from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from prunec.passes.two_four import LayerEligibility, eligibility

#: Forms that a picture may have.
PICTURES = (".html", ".svg")


@dataclass(frozen=True)
class GroupInfo:
    """A group of coupled channels.

    Attributes:
        name: path of the first layer whose filters are its units.
        units: how many can be removed one by one.
        layers: paths of all layers whose filters they are.
        residual: whether a sum of several layers shares the channels.
        members: "parameter[dimension]" that shrink together, with "x N" where N slices go with each unit.
        reasons: why the group is frozen; empty where it can be pruned.
        inexact: operators that mix the channels; empty where removing them equals zeroing them.
        macs_share: MACs of the layers that shrink with it, of all; groups share layers, so these add up to more than 1.
    """

    name: str
    units: int
    layers: tuple[str, ...]
    residual: bool
    members: tuple[str, ...]
    reasons: tuple[str, ...]
    inexact: tuple[str, ...]
    macs_share: float


@dataclass(frozen=True)
class Inspection:
    """What `inspect_program` found; `notes` and `lost_in_capture` are in words."""

    macs: int
    macs_convention: str
    attention_macs: int
    parameters: int
    input_shapes: tuple[tuple[int, ...], ...]
    batch_is_dynamic: bool
    lost_in_capture: tuple[str, ...]
    dropped_parameters: tuple[str, ...]
    prunable: tuple[GroupInfo, ...]
    frozen: tuple[GroupInfo, ...]
    unknown_operators: dict[str, int]
    two_four: tuple[LayerEligibility, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def inspect_checkpoint(
    checkpoint: Path, *, config: Path | None, model: ModelOptions, picture: Path | None = None
) -> Inspection:
    """Load a checkpoint and inspect it.

    Args:
        checkpoint: of the network.
        config: project file.
        model: how to read the checkpoint.
        picture: file to draw the network into, .svg or .html; one that is there is replaced.

    Raises:
        PrunecError: the checkpoint can't be loaded, or the picture not written.
    """
    if picture is not None and picture.suffix not in PICTURES:
        raise UsageError(f"{picture} can't be drawn into.", hint=f"Name a file that ends in {' or '.join(PICTURES)}.")
    loaded = Project.find(checkpoint, config).load(checkpoint, model)
    if picture is not None:
        from prunec.compiler.picture import render_picture

        _write_whole(picture, render_picture(loaded.program, picture.suffix))
    return inspect_program(loaded.program, loaded.notes)


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def inspect_program(program: Program, notes: tuple[str, ...] = ()) -> Inspection:
    """Analyse a program; nothing is changed."""
    coupling = analyse(program)
    macs = Counter[str]()
    for layer in program.layers():
        macs[layer.weight] += layer.macs
    return Inspection(
        macs=program.macs(),
        macs_convention=CONVENTION,
        attention_macs=program.attention_macs(),
        parameters=program.parameter_count(),
        input_shapes=tuple(tuple(x.shape[1:]) for x in program.example_inputs),
        batch_is_dynamic=program.batch_is_dynamic,
        lost_in_capture=program.lost_in_capture,
        dropped_parameters=program.dropped,
        prunable=tuple(describe_group(group, macs) for group in coupling.groups),
        frozen=tuple(describe_group(group, macs) for group in coupling.frozen),
        unknown_operators=dict(coupling.unknown_operators),
        two_four=tuple(eligibility(program)),
        notes=notes,
    )


def describe_group(group: Group, macs: Counter[str]) -> GroupInfo:
    """A group in words.

    Args:
        group: of the analysis.
        macs: by weight.
    """
    members = tuple(
        f"{m.parameter}[{m.dim}]" + (f" x {m.slices_per_unit}" if m.slices_per_unit > 1 else "") for m in group.members
    )
    touched = sum(macs[parameter] for parameter in {m.parameter for m in group.members})
    return GroupInfo(
        name=group.name,
        units=group.count,
        layers=tuple(group.layers),
        residual=group.residual,
        members=members,
        reasons=group.reasons,
        inexact=group.inexact,
        macs_share=touched / (macs.total() or 1),
    )
