"""Normalisation operators mix the axes that they normalise over; gains and biases go with their channels."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Channels, Label, Ties, Value, is_zero, with_zero
from prunec.passes.rules.registry import rule


@rule("batch_norm", "instance_norm")
def batch_norm(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axis 1 holds the channels. Where inference uses batch statistics, it mixes the axes that they run over."""
    operator = operator_name(node.target)
    value = ties.of(a["input"])
    over = list(value[2:] if operator == "instance_norm" else (*value[:1], *value[2:]))
    from_statistics = operator == "instance_norm" or (a["training"] and not node.meta.get("switch"))
    for label in over if from_statistics else ():
        ties.mix(node, label, operator)
    channels = _affine(ties, node, a, value[1], ("running_mean", "running_var"))
    batch = value[0] if operator == "instance_norm" and a["bias"] is None else with_zero(value[0], False)
    return (batch, channels, *(with_zero(label, False) for label in value[2:]))


@rule("layer_norm", "rms_norm")
def layer_norm(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The last axes are mixed; gains and biases have their shape."""
    value, shape = list(ties.of(a["input"])), a["normalized_shape"]
    first = len(value) - len(shape)
    for axis in range(first, len(value)):
        ties.mix(node, value[axis], operator_name(node.target))
        affine = [ties.of(a[name])[axis - first] for name in ("weight", "bias") if a.get(name) is not None]
        met = ties.meet_all([value[axis], *affine], _untracked(node))
        value[axis] = with_zero(met, bool(affine) and all(map(is_zero, affine)))
    ties.follow_sizes(node, "normalized_shape", shape, value[first:])
    return (*(with_zero(label, False) for label in value[:first]), *value[first:])


@rule("group_norm")
def group_norm(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Whole groups of channels go, which is exact; a single group is mixed."""
    value, groups = ties.of(a["input"]), a["num_groups"]
    label, mode = value[1], "index"
    if isinstance(label, Channels) and groups > 1:
        block = label.atoms.reshape(groups, -1)
        modes = ["groups", "index"]
        mode = ties.decide(node.name, modes)
        ties.decided(node.name, modes, block[:, 0] if mode == "groups" else block[0])
        if mode == "groups":
            ties.tie(block, block[:, :1])
            ties.follow(node, "num_groups", None, label, per=block.shape[1])
        else:
            ties.tie(block, block[:1])
    if mode == "index":
        ties.mix(node, label, "group_norm")
    for axis in value[2:]:
        ties.mix(node, axis, "group_norm")
    channels = _affine(ties, node, a, label, ())
    return (with_zero(value[0], False), channels, *(with_zero(axis, False) for axis in value[2:]))


def _affine(ties: Ties, node: Node, a: dict[str, Any], channels: Label, statistics: tuple[str, ...]) -> Label:
    """Channels after gain and bias, zero where both are, or where there are none and the input and its mean are."""
    named = [name for name in ("weight", "bias", *statistics) if a.get(name) is not None]
    labels = {name: ties.of(a[name])[0] if ties.of(a[name]) else None for name in named}
    zero = {name: is_zero(label) for name, label in labels.items()}
    gain_is_zero = zero.get("weight", is_zero(channels) and zero.get("running_mean", True))
    return with_zero(
        ties.meet_all([channels, *labels.values()], _untracked(node)), gain_is_zero and zero.get("bias", True)
    )


def _untracked(node: Node) -> str:
    return f"{operator_name(node.target)} over channels that are not tracked"


@rule("_weight_norm")
def weight_norm(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """``g v / |v|`` with the norm over all axes but one: removed slices of v add nothing to the norm of the others.

    Along that one axis zeroed slices would be 0 / 0, so it stays whole.
    """
    value, gains = list(ties.of(a["v"])), ties.of(a["g"])
    dim = a["dim"] % len(value)
    for axis, label in enumerate(value):
        if axis != dim:
            ties.sum_over(node, label, "_weight_norm")
    reason = "weight norm, which is not defined for zeroed filters (fold-parameters makes the weight a plain one)"
    ties.freeze_value((value[dim], gains[dim]), reason)
    return tuple(value)
