"""Published pruning configurations as ratios by layer, and how their numbers are counted.

Numbering of Li et al. (2017): convolutions count from 1 in the order of the network, shortcuts aside, so that
the first convolution of basic block j is number 2 j; only those are pruned.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters

#: Ratios of the four stages, on the first two convolutions of every bottleneck, by MAC speed-up
#: (Wang et al. 2021).
GREG_RESNET50 = {"2.31x": (0.6, 0.6, 0.6, 0.21), "2.56x": (0.74, 0.74, 0.6, 0.21)}
#: VGG16-A of Li et al.: half of the first and of the last six convolutions, by index in ``features``.
VGG16_A = {f"features.{index}": 0.5 for index in (0, 24, 27, 30, 34, 37, 40)}


@dataclass(frozen=True)
class Counts:
    """Multiply-accumulates for one sample (convolutions and linear layers) and trained scalars."""

    macs: int
    parameters: int

    @classmethod
    def of(cls, program: Program, *, without: str | None = None) -> "Counts":
        """Counts of a program, MACs without the layers whose path contains ``without``."""
        left_out = sum(layer.macs for layer in program.layers() if without and without in layer.name)
        return cls(program.macs() - left_out, program.parameter_count())


@dataclass(frozen=True)
class Reduction:
    """What pruning saved."""

    speedup: float
    macs_percent: float
    parameters_percent: float

    @classmethod
    def between(cls, dense: Counts, pruned: Counts) -> "Reduction":
        return cls(
            speedup=dense.macs / pruned.macs,
            macs_percent=100 * (1 - pruned.macs / dense.macs),
            parameters_percent=100 * (1 - pruned.parameters / dense.parameters),
        )


def captured(network: nn.Module, size: int) -> Program:
    """A network captured on RGB images of ``size`` x ``size`` pixels."""
    return capture(network.eval(), (torch.zeros(2, 3, size, size),))


def pruned(program: Program, ratios: Mapping[str, float]) -> Program:
    """The program with filters removed at ratios by layer path."""
    return PruneFilters(ratio=dict(ratios)).run(program).program


def stage_ratios(
    stages: Sequence[float], depths: Sequence[int], convolutions: Sequence[str], skip: Collection[int] = ()
) -> dict[str, float]:
    """One ratio per stage on the named convolutions of its blocks.

    Args:
        stages: ratio of each stage.
        depths: blocks in each stage.
        convolutions: names within a block, such as "conv1".
        skip: blocks left whole, by the number 2 j of block j = 1, 2, ...
    """
    ratios: dict[str, float] = {}
    number = 0
    for stage, (ratio, depth) in enumerate(zip(stages, depths, strict=True)):
        for block in range(depth):
            number += 2
            if number not in skip and ratio > 0:
                ratios |= {f"layer{stage + 1}.{block}.{name}": ratio for name in convolutions}
    return ratios
