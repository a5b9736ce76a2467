"""``prunec inspect``: what of a network can be pruned, what can't and why, and which layers can carry 2:4."""

from dataclasses import dataclass, field
from pathlib import Path

from prunec.compiler.commands.look_ahead import Ahead, look_ahead
from prunec.compiler.drawing.picture import render_picture
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Note, Project
from prunec.passes.cost import CONVENTION
from prunec.passes.coupling import analyse
from prunec.passes.errors import UsageError
from prunec.passes.group_summary import GroupSummary, macs_by_weight, summarise_group
from prunec.passes.patterns.eligibility import LayerEligibility, eligibility, with_weights
from prunec.passes.program import Program
from prunec.passes.whole_file import write_whole
from prunec.runtime.target import Target

#: Forms that a picture may have.
PICTURES = (".html", ".svg")


@dataclass(frozen=True)
class Inspection:
    """The prunable parts of a network; `inputs`, `notes` and `lost_in_capture` are words."""

    macs: int
    macs_convention: str
    attention_macs: int
    parameters: int
    input_shapes: tuple[tuple[int, ...], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch_is_dynamic: bool
    lost_in_capture: tuple[str, ...]
    dropped_parameters: tuple[str, ...]
    prunable: tuple[GroupSummary, ...]
    frozen: tuple[GroupSummary, ...]
    unknown_operators: dict[str, int]
    two_four: tuple[LayerEligibility, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class InspectionAhead(Inspection):
    """An inspection that looks ahead to a target."""

    ahead: Ahead = field(kw_only=True)


@dataclass(frozen=True)
class Destination:
    """The target that an inspection looks ahead to, and the number of samples at once there."""

    target: Target
    batch: int = 1


def inspect_checkpoint(
    checkpoint: Path,
    *,
    config: Path | None,
    model: ModelOptions,
    note: Note = None,
    picture: Path | None = None,
    destination: Destination | None = None,
) -> Inspection:
    """Load a checkpoint, inspect it, and draw it into a picture (.svg or .html; one that is there is replaced).

    Args:
        checkpoint: The trained network.
        config: The project file; by default the one beside the checkpoint, else in the working directory.
        model: Options on how to read the checkpoint.
        note: Receiver of the sentence that says whose code may run.
        picture: The file of the picture; None for none.
        destination: What to look ahead to; the result is an `InspectionAhead` then.

    Raises:
        PrunecError: The checkpoint can't be loaded, or the picture not written.
    """
    if picture is not None and picture.suffix not in PICTURES:
        raise UsageError(f"{picture} can't be drawn into.", hint=f"Name a file that ends in {' or '.join(PICTURES)}.")
    loaded = Project.find(checkpoint, config, note).load(checkpoint, model)
    if picture is not None:
        write_whole(picture, render_picture(loaded.program, picture.suffix))
    return inspect_program(loaded.program, loaded.notes, destination)


def inspect_program(
    program: Program, notes: tuple[str, ...] = (), destination: Destination | None = None
) -> Inspection:
    """Analyse a program, and look ahead to a destination; nothing is changed."""
    coupling = analyse(program)
    macs = macs_by_weight(program)
    inspection = Inspection(
        macs=program.macs(),
        macs_convention=CONVENTION,
        attention_macs=program.attention_macs(),
        parameters=program.parameter_count(),
        input_shapes=tuple(tuple(x.shape[1:]) for x in program.example_inputs),
        inputs=tuple(each.words() for each in program.inputs),
        outputs=program.output_names,
        batch_is_dynamic=program.batch_is_dynamic,
        lost_in_capture=program.lost_in_capture,
        dropped_parameters=program.dropped,
        prunable=tuple(summarise_group(group, macs) for group in coupling.groups),
        frozen=tuple(summarise_group(group, macs) for group in coupling.frozen),
        unknown_operators=dict(coupling.unknown_operators),
        two_four=tuple(with_weights(eligibility(program), program)),
        notes=(*notes, *program.capture_notes),
    )
    if destination is None:
        return inspection
    ahead = look_ahead(program, coupling, destination.target, destination.batch)
    return InspectionAhead(**vars(inspection), ahead=ahead)
