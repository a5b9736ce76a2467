"""``prunec inspect``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, note, print_json, print_table
from prunec.passes.errors import UsageError
from prunec.passes.two_four_words import two_four_state, two_four_words

if TYPE_CHECKING:
    from prunec.compiler.commands.inspect_network import Inspection
    from prunec.compiler.commands.look_ahead import Ahead
    from prunec.passes.group_summary import GroupSummary
    from prunec.runtime.onnx_sparsity import LayerSparsity

_SHOWN_MEMBERS = 4


def inspect(
    checkpoint: options.Artifact,
    config: options.Config = None,
    model: options.Factory = None,
    input_: options.Inputs = None,
    trust: options.Trust = False,
    weights: options.Weights = "",
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw the network into this .html or .svg file.", metavar="FILE")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="Predict for a target what halving widths and 2:4 would bring there."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples per inference on the target.")] = 1,
    as_json: options.AsJson = False,
) -> None:
    """List what can be pruned together, what is frozen and why, and which layers can carry 2:4.

    Of a bundle or an ONNX file: which layers hold 2:4, and which are likely to gain by it.
    """
    from prunec.compiler.commands.artifacts import onnx_file
    from prunec.compiler.commands.inspect_network import Destination, InspectionAhead, inspect_checkpoint
    from prunec.runtime.target import Target

    destination = None if target is None else Destination(Target.parse(target), batch)

    exported = onnx_file(checkpoint, as_deployed=True)
    if exported is not None:
        if picture is not None:
            raise UsageError(f"--picture draws checkpoints, and {checkpoint} is none.")
        if destination is not None:
            raise UsageError(f"--target looks ahead from a checkpoint, and {checkpoint} is none.")
        _inspect_onnx(exported, as_json)
        return
    loading = options.model_options(model, input_, trust, weights)
    inspection = inspect_checkpoint(
        checkpoint, config=config, model=loading, note=note, picture=picture, destination=destination
    )
    if picture is not None:
        note(f"picture: {picture}")
    if as_json:
        print_json(inspection)
        return
    for text in (*inspection.notes, *inspection.lost_in_capture):
        note(text)
    _print(inspection)
    if isinstance(inspection, InspectionAhead):
        _print_ahead(inspection.ahead)


def _inspect_onnx(path: Path, as_json: bool) -> None:
    from prunec.runtime.onnx_sparsity import check_sparsity, weight_states

    layers = check_sparsity(path)
    if as_json:
        print_json(layers)
        return
    title = f"{path.name}: {two_four_words(weight_states(layers))}"
    columns = ("layer", "operator", "weight", "axis", "C", "K", "groups", "type", "2:4", "why not", "likely to gain")
    print_table(title, columns, [_onnx_row(layer) for layer in layers])


def _onnx_row(layer: "LayerSparsity") -> tuple[str, ...]:
    sizes = (layer.axis, layer.input_channels, layer.output_channels, layer.groups)
    gain = f"{'yes' if layer.likely_to_gain else 'no'}: {layer.gain_rule}" if layer.eligible else ""
    state = two_four_state(layer.eligible, layer.valid)
    return layer.layer, layer.operator, _sizes(layer.shape), *map(str, sizes), layer.dtype, state, layer.reason, gain


def _print(result: "Inspection") -> None:
    attention = f", and {result.attention_macs:,} of products of activations" if result.attention_macs else ""
    echo(f"{result.macs:,} MACs per sample{attention}; {result.parameters:,} parameters")
    echo(f"MACs are {result.macs_convention}.")
    echo(f"inputs: {'; '.join(result.inputs)}. Outputs: {', '.join(result.outputs)}.\n")
    prunable = [
        (group.name, str(group.units), f"{group.macs_share:.1%}", _kind(group), _shortened(group.members))
        for group in result.prunable
    ]
    columns = ("group", "units", "MACs", "kind", "what shrinks together")
    print_table(f"prunable groups: {len(prunable)}", columns, prunable)
    frozen = [(group.name, str(group.units), "; ".join(group.reasons)) for group in result.frozen]
    print_table(f"frozen groups: {len(frozen)}", ("group", "units", "why"), frozen)
    if result.unknown_operators:
        unknown = [(name, str(count)) for name, count in result.unknown_operators.items()]
        print_table("operators without a rule, which freeze what they touch", ("operator", "calls"), unknown)
    states = [two_four_state(layer.eligible, layer.valid) for layer in result.two_four]
    layers = [
        (layer.layer, layer.operator, _sizes(layer.shape), state, layer.reason)
        for layer, state in zip(result.two_four, states, strict=True)
    ]
    print_table(two_four_words(states), ("layer", "operator", "weight", "2:4", "why not"), layers)


def _print_ahead(ahead: "Ahead") -> None:
    from prunec.compiler.report.headline_figures import predicted

    times = [f"{predicted(ahead.predicted_ms)} ms dense"] if ahead.predicted_ms is not None else []
    if ahead.predicted_two_four_ms is not None:
        times.append(f"{predicted(ahead.predicted_two_four_ms)} ms with 2:4 wherever it can be")
    echo(f"on {ahead.target} at batch {ahead.batch}: {', '.join(times) or f'not predicted: {ahead.reason}'}")
    if times:
        echo("Times are predictions from the device's data sheet, not measurements; each layer with what follows it.")
    groups = [
        (group.group, str(group.units), f"{group.halved_macs_saved:.1%}", _share(group.halved_ms_saved))
        for group in ahead.groups
    ]
    print_table("what half of a group's units would save", ("group", "units", "MACs", "predicted time"), groups)
    layers = [
        (
            layer.layer,
            _sizes(layer.shape),
            layer.group,
            f"{layer.macs_share:.1%}",
            "-" if layer.predicted_ms is None else predicted(layer.predicted_ms),
            layer.bound or "-",
            "-" if layer.two_four_gain is None else f"{layer.two_four_gain:.2g}x",
            {True: "yes", False: "no", None: "-"}[layer.likely_to_gain],
            layer.reason,
        )
        for layer in ahead.layers
    ]
    columns = ("layer", "weight", "group", "MACs", "predicted ms", "bound by", "by 2:4", "likely to gain", "why not")
    print_table("layers", columns, layers)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _kind(group: "GroupSummary") -> str:
    inexact = [f"inexact under {', '.join(group.inexact)}"] if group.inexact else []
    return "; ".join((["residual stream"] if group.residual else []) + inexact)


def _shortened(members: tuple[str, ...]) -> str:
    more = f", and {len(members) - _SHOWN_MEMBERS} more" if len(members) > _SHOWN_MEMBERS else ""
    return ", ".join(members[:_SHOWN_MEMBERS]) + more
