"""Variants of a network to be measured: random units of its groups removed, so that their widths cover the range."""

import numpy as np
from numpy.typing import NDArray

from prunec.passes.coupling import Coupling
from prunec.passes.program import Program
from prunec.passes.rewrite import plan_of, remove

#: Widths of groups of at least so many units -> what they are multiples of, so that they are whole blocks.
_ALIGNMENTS = {48: 16, 24: 8, 8: 4, 0: 1}
#: Least share of a group's units that variants keep.
_LEAST_SHARE = 0.1
#: One variant in so many has unaligned widths.
_MIXED_EVERY = 4


def variant_widths(counts: NDArray[np.int64], variants: int, seed: int) -> NDArray[np.int64]:
    """Units that each variant keeps of each group, int64 (variants, groups).

    The first variant is the whole network. Over the others the share that a group keeps is stratified (a Latin
    hypercube: McKay, Beckman, Conover, Technometrics 21(2), 1979), so that few variants cover each group's range.
    Widths are multiples of 16, of less in narrow groups; in one variant of four half of them are any.
    """
    generator = np.random.default_rng(seed)
    drawn = variants - 1
    strata = generator.permuted(np.tile(np.arange(drawn), (len(counts), 1)), axis=1).T
    units = np.array([next(unit for least, unit in _ALIGNMENTS.items() if count >= least) for count in counts])
    shares = _LEAST_SHARE + (1 - _LEAST_SHARE) * (strata + generator.random(strata.shape)) / max(drawn, 1)
    widths = np.maximum(np.rint(shares * counts), 1).astype(np.int64)
    aligned = np.clip(np.rint(widths / units), 1, counts // units) * units
    is_mixed = np.arange(drawn) % _MIXED_EVERY == 1
    stays = is_mixed[:, None] & (generator.random(widths.shape) < 0.5)
    return np.concatenate([counts[None], np.where(stays, widths, aligned)]).astype(np.int64)


def variant(program: Program, coupling: Coupling, kept: NDArray[np.int64], seed: int) -> Program:
    """The program with ``kept`` random units of each group, int64 (groups,)."""
    generator = np.random.default_rng(seed)
    removed = np.zeros(len(coupling.roots), dtype=bool)
    for group, width in zip(coupling.groups, kept, strict=True):
        removed[coupling.units(group)[generator.permutation(group.count)[width:]]] = True
    return remove(program, coupling, plan_of(coupling, removed), removed)
