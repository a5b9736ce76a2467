"""Widths of variants cover each group's range, and as many are measured as there is time for."""

import numpy as np
import pytest

from prunec.passes.coupling import analyse
from prunec.runtime.costs import variants
from prunec.runtime.costs.variants import RUN_SECONDS, VariantBudget, are_mixed, removed_units, variant_widths, without
from tests.passes.costs.synthetic import workload
from tests.runtime.costs.test_measuring import network

COUNTS = np.array([512, 64, 24, 3, 1])


def test_widths_of_variants() -> None:
    widths = variant_widths(COUNTS, 19, 0)
    assert widths.shape == (19, 5) and (widths[0] == COUNTS).all()
    assert (widths >= 1).all() and (widths <= COUNTS).all()
    mixed = np.flatnonzero(are_mixed(19))
    assert len(mixed) == 6
    aligned = np.delete(widths, mixed, axis=0)
    assert (aligned[:, :2] % 16 == 0).all() and (aligned[:, 2] % 8 == 0).all()
    odd = widths[mixed, :3] % 4 != 0
    assert (odd.sum(axis=0) >= 2).all() and not odd.all(axis=0).any()  # met both ways
    for start in (1, 10):
        assert len(np.unique(widths[start : start + 9, 0] * 4 // 513)) == 4  # every quarter of the range
    assert (variant_widths(COUNTS, 1, 0) == COUNTS).all()


@pytest.mark.parametrize("seed", range(5))
def test_fewer_variants_are_the_first_of_more(seed: int) -> None:
    widths = variant_widths(COUNTS, 30, seed)
    for fewer in (1, 2, 10, 11, 29):
        assert (variant_widths(COUNTS, fewer, seed) == widths[:fewer]).all()
    assert (widths[1] < np.maximum(COUNTS, 2)).all()  # some units of every group go, by which places are found
    assert not (variant_widths(COUNTS, 30, seed + 1) == widths).all()


def test_variants_have_their_widths() -> None:
    program = network()
    flow, counts = workload(program)
    coupling, kept = analyse(program), variant_widths(counts, 3, 5)[2]
    pruned = without(program, coupling, removed_units(coupling, kept, 7))
    again, whole = workload(pruned)
    np.testing.assert_allclose(again.at(whole).macs, flow.at(kept).macs)


@pytest.mark.parametrize(
    ("seconds_each", "budget", "expected"),
    [
        (0.0, VariantBudget(3, 20, 1e9), 20),  # the most
        (100.0, VariantBudget(3, 20, 10.0), 3),  # the least, however long they take
        (1.0, VariantBudget(3, 20, 8 * (1 + RUN_SECONDS)), 8),  # as many as there is time for
        (1.0, VariantBudget(3, 20, 8 * (1 + RUN_SECONDS) - 0.1), 7),
        (0.0, VariantBudget(3, 50, 1e9), 30),  # all that there are
    ],
)
def test_as_many_variants_as_there_is_time_for(
    seconds_each: float, budget: VariantBudget, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 5.0
    monkeypatch.setattr(variants.time, "monotonic", lambda: now)
    widths, taken = variant_widths(COUNTS, 30, 0), 0
    for row in budget.within(widths):
        assert (row == widths[taken]).all()
        taken, now = taken + 1, now + seconds_each
    assert taken == expected
