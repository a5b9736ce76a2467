"""Variants of a network to be measured: random units of its groups removed, so that their widths cover the range."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunec.passes.coupling import Coupling
from prunec.passes.program import Program
from prunec.passes.rewrite import Removed, plan_of, remove

#: Widths of groups of at least so many units -> what they are multiples of, so that they are whole blocks.
_ALIGNMENTS = {48: 16, 24: 8, 8: 4, 0: 1}
#: Least share of a group's units that variants keep.
_LEAST_SHARE = 0.1
#: One variant in so many has unaligned widths, and of those in turn one in so many has a group's width aligned.
_MIXED_EVERY, _ALIGNED_EVERY = 3, 3
#: Variants that cover every group's range together; further ones begin anew.
_SET = 9
#: Seconds of a variant's runs, at most.
RUN_SECONDS = 1.0
#: Channels that an unaligned width is no multiple of, so that engines can't run it in blocks.
_MULTIPLE = 4


@dataclass(frozen=True)
class VariantBudget:
    """How many variants are measured, the whole network among them.

    Attributes:
        least: At least so many.
        most: At most so many.
        seconds: More than the least only while making and running them is foreseen to take no longer than this.
    """

    least: int = 10
    most: int = 37
    seconds: float = 40.0

    def within(self, widths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The first of some variants' widths, (variants, groups), that there is time for.

        The next one is taken to be made as fast as the last one, which the caller does before it asks for another.
        """
        started = last = time.monotonic()
        for number, row in enumerate(widths[: self.most]):
            now = time.monotonic()
            foreseen = now - started + (now - last) + (number + 1) * RUN_SECONDS
            if number >= self.least and foreseen > self.seconds:
                return
            last = now
            yield row


def variant_widths(counts: NDArray[np.int64], variants: int, seed: int) -> NDArray[np.int64]:
    """Units that each variant keeps of each group, int64 (variants, groups); fewer variants are the first of more.

    The first variant is the whole network; the second one keeps no group whole that has several units. The others come
    in sets of nine. In a set the share that a group keeps is stratified (a Latin hypercube: McKay, Beckman, Conover,
    Technometrics 21(2), 1979), so that few variants cover each group's range. Widths are multiples of 16, of less in
    narrow groups; in one variant of three they are odd ones for two groups of three, other groups each time, so that a
    layer is met both ways.
    """
    generator, rows = np.random.default_rng(seed), [counts[None]]
    while sum(map(len, rows)) < variants:
        rows.append(_covering(counts, generator))
    widths = np.concatenate(rows)[:variants]
    units = _units(counts)
    widths[1:2] = np.minimum(widths[1:2], np.maximum((counts - 1) // units * units, 1))
    return widths


def _covering(counts: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """A set of widths, int64 (_SET, groups)."""
    units, is_mixed = _units(counts), are_mixed(1 + _SET)[1:]
    strata = _turns(_SET, counts, generator)
    shares = _LEAST_SHARE + (1 - _LEAST_SHARE) * (strata + generator.random(strata.shape)) / _SET
    widths = np.maximum(np.rint(shares * counts), 1).astype(np.int64)
    aligned = np.clip(np.rint(widths / units), 1, counts // units) * units
    odd = np.zeros(widths.shape, dtype=bool)
    odd[is_mixed] = _turns(int(is_mixed.sum()), counts, generator) % _ALIGNED_EVERY > 0
    ragged = np.maximum(widths - (widths % _MULTIPLE == 0) * generator.integers(1, _MULTIPLE, widths.shape), 1)
    return np.where(odd, ragged, aligned).astype(np.int64)


def _turns(variants: int, counts: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """The variants' numbers in an order of its own for each group, int64 (variants, groups)."""
    return generator.permuted(np.tile(np.arange(variants), (len(counts), 1)), axis=1).T


def _units(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """What aligned widths of groups are multiples of."""
    return np.array([next(unit for least, unit in _ALIGNMENTS.items() if count >= least) for count in counts])


def are_mixed(variants: int) -> NDArray[np.bool_]:
    """Which of the variants have unaligned widths, bool (variants,)."""
    return np.asarray(np.arange(variants) % _MIXED_EVERY == _MIXED_EVERY - 1)


def removed_units(coupling: Coupling, kept: NDArray[np.int64], seed: int) -> Removed:
    """The classes of atoms that go where ``kept`` random units of each group stay, int64 (groups,)."""
    generator = np.random.default_rng(seed)
    removed = np.zeros(len(coupling.roots), dtype=bool)
    for group, width in zip(coupling.groups, kept, strict=True):
        removed[coupling.units(group)[generator.permutation(group.count)[width:]]] = True
    return removed


def without(program: Program, coupling: Coupling, removed: Removed) -> Program:
    """The program without these classes of atoms."""
    return remove(program, coupling, plan_of(coupling, removed), removed)
