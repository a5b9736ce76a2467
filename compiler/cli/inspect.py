"""``prunec inspect``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import note, print_json, print_table
from prunec.passes.errors import UsageError

if TYPE_CHECKING:
    from prunec.compiler.inspect_model import GroupInfo, Inspection

_SHOWN_MEMBERS = 4


def inspect(
    checkpoint: options.Artifact,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw the network into this .html or .svg file.", metavar="FILE")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List what can be pruned together, what is frozen and why, and which layers can carry 2:4.

    Of a bundle or an ONNX file: which layers hold 2:4, and which are likely to gain by it.
    """
    from prunec.compiler.artifacts import onnx_file
    from prunec.compiler.inspect_model import inspect_checkpoint

    exported = onnx_file(checkpoint, as_deployed=True)
    if exported is not None:
        if picture is not None:
            raise UsageError(f"--picture draws checkpoints, and {checkpoint} is none.")
        _inspect_onnx(exported, as_json)
        return
    chosen = options.model_options(model, input_, trust)
    found = inspect_checkpoint(checkpoint, config=config, model=chosen, picture=picture)
    if picture is not None:
        note(f"picture: {picture}")
    if as_json:
        print_json(found.to_json())
        return
    for text in (*found.notes, *found.lost_in_capture):
        note(text)
    _print(found)


def _inspect_onnx(path: Path, as_json: bool) -> None:
    from prunec.runtime.onnx_sparsity import check_sparsity

    found = check_sparsity(path)
    if as_json:
        print_json([asdict(layer) for layer in found])
        return
    valid, eligible = sum(layer.valid for layer in found), sum(layer.eligible for layer in found)
    print_table(
        f"{path.name}: 2:4 in {valid} of {eligible} layers that can hold it",
        ("layer", "operator", "weight", "axis", "C", "K", "groups", "type", "2:4", "why not", "likely to gain"),
        [
            (
                *(x.layer, x.operator, "x".join(map(str, x.shape))),
                *(str(number) for number in (x.axis, x.input_channels, x.output_channels, x.groups)),
                *(x.dtype, "yes" if x.valid else "no", x.reason),
                f"{'yes' if x.likely_to_gain else 'no'}: {x.gain_rule}" if x.eligible else "",
            )
            for x in found
        ],
    )


def _print(found: "Inspection") -> None:
    attention = f", and {found.attention_macs:,} of products of activations" if found.attention_macs else ""
    typer.echo(f"{found.macs:,} MACs per sample{attention}; {found.parameters:,} parameters")
    typer.echo(f"MACs are {found.macs_convention}.\n")
    print_table(
        f"prunable groups: {len(found.prunable)}",
        ("group", "units", "MACs", "kind", "what shrinks together"),
        [
            (group.name, str(group.units), f"{group.macs_share:.1%}", _kind(group), _shortened(group.members))
            for group in found.prunable
        ],
    )
    print_table(
        f"frozen groups: {len(found.frozen)}",
        ("group", "units", "why"),
        [(group.name, str(group.units), "; ".join(group.reasons)) for group in found.frozen],
    )
    if found.unknown_operators:
        print_table(
            "operators without a rule, which freeze what they touch",
            ("operator", "calls"),
            [(name, str(count)) for name, count in found.unknown_operators.items()],
        )
    print_table(
        f"2:4 in {sum(layer.eligible for layer in found.two_four)} of {len(found.two_four)} layers",
        ("layer", "operator", "weight", "2:4", "why not"),
        [
            (x.layer, x.operator, "x".join(map(str, x.shape)), "yes" if x.eligible else "no", x.reason)
            for x in found.two_four
        ],
    )


def _kind(group: "GroupInfo") -> str:
    kinds = ["residual stream"] if group.residual else []
    return "; ".join([*kinds, *([f"inexact under {', '.join(group.inexact)}"] if group.inexact else [])])


def _shortened(members: tuple[str, ...]) -> str:
    more = f", and {len(members) - _SHOWN_MEMBERS} more" if len(members) > _SHOWN_MEMBERS else ""
    return ", ".join(members[:_SHOWN_MEMBERS]) + more
