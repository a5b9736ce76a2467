"""Groups of coupled channels in words and figures, as `prunec inspect` and pictures tell them."""

from collections import Counter
from dataclasses import dataclass

from prunec.passes.groups import Group
from prunec.passes.program import Program


@dataclass(frozen=True)
class GroupSummary:
    """A group of coupled channels; name, layers, residual, reasons and inexact are those of `Group`.

    Attributes:
        units: Number of units that can be removed one by one.
        members: "parameter[dimension]" that shrink together, with "x N" where N slices go with each unit.
        macs_share: Share of the MACs that is in layers that shrink with it. Groups share layers, so shares add up to
            more than 1.
    """

    name: str
    units: int
    layers: tuple[str, ...]
    residual: bool
    members: tuple[str, ...]
    reasons: tuple[str, ...]
    inexact: tuple[str, ...]
    macs_share: float


def macs_by_weight(program: Program) -> Counter[str]:
    """Multiply-accumulates for one sample by name of the weight, all its uses together."""
    macs = Counter[str]()
    for layer in program.layers():
        macs[layer.weight] += layer.macs
    return macs


def summarise_group(group: Group, macs: Counter[str]) -> GroupSummary:
    """A group in words and figures; ``macs`` are those that `macs_by_weight` gives for its program."""
    members = tuple(
        f"{m.parameter}[{m.dim}]" + (f" x {m.slices_per_unit}" if m.slices_per_unit > 1 else "") for m in group.members
    )
    touched = sum(macs[parameter] for parameter in {m.parameter for m in group.members})
    share = touched / (macs.total() or 1)
    layers, reasons, inexact = tuple(group.layers), group.reasons, group.inexact
    return GroupSummary(group.name, group.count, layers, group.residual, members, reasons, inexact, share)
