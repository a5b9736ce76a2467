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
#: One variant in so many has unaligned widths, and of those in turn one in so many has a group's width aligned.
_MIXED_EVERY, _ALIGNED_EVERY = 3, 3
#: Channels that an unaligned width is no multiple of, so that engines can't run it in blocks.
_MULTIPLE = 4


def variant_widths(counts: NDArray[np.int64], variants: int, seed: int) -> NDArray[np.int64]:
    """Units that each variant keeps of each group, int64 (variants, groups).

    The first variant is the whole network. Over the others the share that a group keeps is stratified (a Latin
    hypercube: McKay, Beckman, Conover, Technometrics 21(2), 1979), so that few variants cover each group's range.
    Widths are multiples of 16, of less in narrow groups; in one variant of three they are odd ones for two groups of
    three, other groups each time, so that a layer is met both ways.
    """
    generator = np.random.default_rng(seed)
    drawn = variants - 1
    strata = generator.permuted(np.tile(np.arange(drawn), (len(counts), 1)), axis=1).T
    units = np.array([next(unit for least, unit in _ALIGNMENTS.items() if count >= least) for count in counts])
    shares = _LEAST_SHARE + (1 - _LEAST_SHARE) * (strata + generator.random(strata.shape)) / max(drawn, 1)
    widths = np.maximum(np.rint(shares * counts), 1).astype(np.int64)
    aligned = np.clip(np.rint(widths / units), 1, counts // units) * units
    mixed = np.flatnonzero(are_mixed(variants)[1:])
    turns = generator.permuted(np.tile(np.arange(len(mixed)), (len(counts), 1)), axis=1).T
    odd = np.zeros(widths.shape, dtype=bool)
    odd[mixed] = turns % _ALIGNED_EVERY > 0 if len(mixed) > 1 else generator.random(turns.shape) < 1 / 2
    ragged = np.maximum(widths - (widths % _MULTIPLE == 0) * generator.integers(1, _MULTIPLE, widths.shape), 1)
    return np.concatenate([counts[None], np.where(odd, ragged, aligned)]).astype(np.int64)


def are_mixed(variants: int) -> NDArray[np.bool_]:
    """Which of the variants have unaligned widths, bool (variants,)."""
    return np.asarray(np.arange(variants) % _MIXED_EVERY == _MIXED_EVERY - 1)


def variant(program: Program, coupling: Coupling, kept: NDArray[np.int64], seed: int) -> Program:
    """The program with ``kept`` random units of each group, int64 (groups,)."""
    generator = np.random.default_rng(seed)
    removed = np.zeros(len(coupling.roots), dtype=bool)
    for group, width in zip(coupling.groups, kept, strict=True):
        removed[coupling.units(group)[generator.permutation(group.count)[width:]]] = True
    return remove(program, coupling, plan_of(coupling, removed), removed)
